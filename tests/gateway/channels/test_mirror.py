"""Runs and delegations told in two channels: gathered, bounded, and never a private word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.channels.channel import Refusal, Uncertain, Unreachable
from gateway.channels.mirror import KEPT, Mirror
from protocols.runs import RunSource, RunState, RunSummary, Usage
from protocols.targets import parse_target
from tests.standins.channel import MemoryChannel

LOGS = parse_target("discord:channel:100000000000000001")
BETWEEN = parse_target("discord:channel:100000000000000002")
RUN = RunSummary(
    run_id="run-1",
    agent="webster",
    state=RunState.QUEUED,
    source=RunSource.HOOK,
    name="Hook",
    caller="operator",
    session_key="hook:1",
    task="find the glass",
    created_at=1.0,
)


class Told:
    def __init__(self, pause: float = 0.0) -> None:
        self.channel = MemoryChannel(lambda: 1.0)
        self.mirror = Mirror(
            "webster",
            self.channel,
            runs_to=lambda: LOGS,
            delegations_to=lambda: BETWEEN,
            agents=lambda: {"manager", "webster"},
            redact=lambda text: text.replace("hunter2", "***"),
            pause=pause,
        )

    def go(self, *states: RunState, **values: object) -> None:
        for state in states:
            self.mirror.changed(msgspec.structs.replace(RUN, **{"state": state, **values}))


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    told = Told()
    task = asyncio.create_task(told.mirror.serve())
    yield told
    task.cancel()


async def test_a_run_is_told_at_its_end_with_what_it_took(told: Told) -> None:
    told.go(RunState.QUEUED, RunState.RUNNING)
    told.go(RunState.SUCCEEDED, started_at=2.0, finished_at=14.0, usage=Usage(input_tokens=1000), cost_usd=0.02)
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    (line,) = told.channel.texts(LOGS)
    assert "**webster** succeeded (12 s, 1000 tokens, $0.020): find the glass (from operator)" in line
    assert told.channel.texts(BETWEEN) == []


async def test_a_delegation_is_told_when_it_is_given_and_when_it_ends(told: Told) -> None:
    told.go(RunState.QUEUED, RunState.RUNNING, RunState.FAILED, caller="manager")
    await told.channel.until(lambda: bool(told.channel.texts(BETWEEN)))
    text = "\n".join(told.channel.texts(BETWEEN))
    assert "**manager → webster**: find the glass" in text
    assert "**webster → manager**: failed: find the glass" in text


async def test_what_somebody_wrote_to_the_agent_alone_is_not_told(told: Told) -> None:
    told.go(RunState.SUCCEEDED, source=RunSource.CHAT, session_key="agent:webster:main", task="my salary")
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    assert "salary" not in told.channel.texts(LOGS)[0]
    assert "a direct message" in told.channel.texts(LOGS)[0]


async def test_nor_is_what_a_person_is_asked_about_it(told: Told) -> None:
    why = "approval ap-1: memory_write: my salary"
    told.go(RunState.WAITING, source=RunSource.CHAT, session_key="agent:webster:main", task="my salary", reason=why)
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    assert told.channel.texts(LOGS) == ["\N{HOURGLASS} **webster** waits: a direct message"]


async def test_secrets_are_not_told(told: Told) -> None:
    told.go(RunState.SUCCEEDED, task="log in with hunter2")
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    assert "hunter2" not in told.channel.texts(LOGS)[0]


async def test_a_beat_that_found_nothing_is_not_told(told: Told) -> None:
    told.go(RunState.SUCCEEDED, source=RunSource.HEARTBEAT, run_id="run-2")
    told.go(RunState.SUCCEEDED)
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    assert told.channel.texts(LOGS)[0].count("**webster**") == 1


async def test_a_flood_comes_in_few_posts_of_a_size_and_says_what_it_left_out() -> None:
    told = Told()
    for number in range(1000):
        told.go(RunState.SUCCEEDED, run_id=f"run-{number}", task=f"job {number} " + "x" * 100)
    task = asyncio.create_task(told.mirror.serve())
    await told.channel.until(lambda: any("job 999" in text for text in told.channel.texts(LOGS)))
    task.cancel()
    posts = told.channel.texts(LOGS)
    assert all(len(post) <= 2000 for post in posts)
    assert posts[0].startswith(f"... {1000 - KEPT} earlier lines left out")
    assert sum(post.count("job ") for post in posts) == KEPT


async def test_what_could_not_be_posted_waits_and_what_may_have_been_is_not_repeated() -> None:
    told = Told()
    told.channel.fail("send", Unreachable("down"))
    told.channel.fail("send", Uncertain("no answer"), when="after")
    told.go(RunState.SUCCEEDED)
    task = asyncio.create_task(told.mirror.serve())
    await told.channel.until(lambda: told.channel.calls.count("send") == 2)
    told.go(RunState.FAILED, run_id="run-2")
    await told.channel.until(lambda: len(told.channel.texts(LOGS)) == 2)
    task.cancel()
    assert "\n".join(told.channel.texts(LOGS)).count("succeeded") == 1


async def test_a_channel_that_refuses_is_not_filled_up_for(told: Told) -> None:
    told.channel.fail("send", Refusal("no_access", "no"))
    told.go(RunState.SUCCEEDED)
    await told.channel.until(lambda: told.channel.calls.count("send") == 1)
    told.go(RunState.FAILED, run_id="run-2")
    await told.channel.until(lambda: bool(told.channel.texts(LOGS)))
    assert "succeeded" not in told.channel.texts(LOGS)[0]
