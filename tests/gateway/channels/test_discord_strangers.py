"""What people on a server can make agents do, and what not: real gateway processes against the stand-in."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.gateway.channels.land import Land, land

STRANGER = "mallory"


@pytest.fixture(scope="module")
def here() -> Iterator[Land]:
    with land("webster", "auditor", people=("antoine", STRANGER)) as made:
        for agent, other in (("webster", "auditor"), ("auditor", "webster")):
            made.configure(agent, bots=[made.made["bots"][other]["id"]], bot_turns=2)
        made.gateway("webster")
        made.gateway("auditor")
        yield made


def runs(here: Land, agent: str, message: str) -> list[str]:
    """The states of its runs for a message."""
    return [
        str(state)
        for (state,) in here.gateway(agent).sql(
            "SELECT state FROM runs WHERE idempotency_key = ?", f"discord:{message}"
        )
    ]


def test_an_edit_that_adds_a_mention_is_not_heard(here: Land) -> None:
    said = here.discord.say("webster", STRANGER, "nobody is meant")
    here.discord.edit(said, f"<@{here.made['bots']['webster']['id']}> you are meant")
    here.answer(here.say("status"))
    assert runs(here, "webster", said) == []


def test_another_server_is_not_heard_whoever_speaks_there(here: Land) -> None:
    other = here.discord.add_guild("other")
    channel = here.discord.add_channel("elsewhere", guild=other)
    for one in ("webster", "antoine"):
        here.discord.join_guild(one, other)
    said = here.discord.say(channel, "antoine", "status", mentions=["webster"])
    here.answer(here.say("status"))
    assert runs(here, "webster", said) == []


def test_who_was_thrown_out_and_invited_again_is_heard_again(here: Land) -> None:
    here.discord.leave_guild("auditor")
    here.discord.join_guild("auditor")
    assert here.answer(here.say("status", to="auditor"), by="auditor")


def test_two_agents_that_may_hear_each_other_come_to_an_end(here: Land) -> None:
    here.answer(here.say("status", to="auditor", channel=here.channel("research")), by="auditor")
    said = here.discord.say("research", "webster", "status", mentions=["auditor"])
    here.discord.wait_for(lambda view: view.replies(said))

    def bots() -> list[str]:
        """Who has spoken since, each time."""
        rows = here.discord.view.messages("research")
        return [m["author"] for m in rows if int(m["id"]) >= int(said) and m["author"] in ("webster", "auditor")]

    until = time.monotonic() + 10.0
    quiet, before = time.monotonic(), 0
    while time.monotonic() < until and time.monotonic() - quiet < 3.0:
        count = len(bots())
        if count != before:
            quiet, before = time.monotonic(), count
        time.sleep(0.1)
    assert time.monotonic() < until, "they go on and on"
    assert len(bots()) <= 1 + 2 * 2 + 1


def test_a_flood_of_mentions_stays_within_bounds_and_keeps_nobody_else_waiting(here: Land) -> None:
    for number in range(400):
        here.discord.say("research", STRANGER, f"{number} is this heard?", mentions=["webster"])
    began = time.monotonic()
    assert here.answer(here.say("status"))
    assert time.monotonic() - began < 10
    (most,) = here.gateway("webster").sql("SELECT count(*) FROM runs WHERE state IN ('queued', 'waiting')")[0]
    assert most <= 151
    assert here.gateway("webster").status().channels[0].state == "ready"
