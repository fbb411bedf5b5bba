"""Where answers go: typed targets, a person's route, and beats that never move it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.agent.heartbeat import BeatConfig, Heartbeat
from gateway.channels.outbox import Outbox, effects_of, swallowed
from gateway.channels.routing import Destination, Router
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Effect, Ending, NewRun, RunOptions
from protocols.runs import RunSource, RunState, new_run_id
from protocols.targets import parse_target

PERSON = "discord:user:123456789012345678"
"""The one person on the DM allow-list, which holds the bare number."""
HOME = "discord:channel:223456789012345678"
ROOM = "discord:channel:323456789012345678"
MAIN = "agent:manager:main"


def router(
    *, routes: dict[str, str] | None = None, home: str | None = None, connected: tuple[str, ...] = ("discord",)
) -> Router:
    return Router(
        session_route=lambda key: (routes or {}).get(key),
        main_session=MAIN,
        home=lambda: home,
        connected=lambda: connected,
    )


@pytest.mark.parametrize(
    ("options", "session", "found"),
    [
        (RunOptions(to=ROOM), MAIN, ("pending", ROOM)),
        (RunOptions(to=ROOM, channel="slack"), MAIN, ("pending", ROOM)),
        (RunOptions(), MAIN, ("pending", PERSON)),
        (RunOptions(), "hook:1", ("pending", HOME)),
        (RunOptions(channel="last"), MAIN, ("pending", PERSON)),
        (RunOptions(channel="last"), "hook:1", ("pending", PERSON)),
        (RunOptions(channel="discord"), "hook:1", ("pending", HOME)),
        (RunOptions(channel="slack"), MAIN, ("skipped", None)),
        (RunOptions(channel="323456789012345678"), MAIN, ("pending", "323456789012345678")),
        (RunOptions(channel="general"), MAIN, ("dead", "general")),
        (RunOptions(to="323456789012345678"), MAIN, ("dead", "323456789012345678")),
        (RunOptions(to="slack:channel:C0123456"), MAIN, ("dead", "slack:channel:C0123456")),
        (RunOptions(deliver=False, to=ROOM), MAIN, ("skipped", None)),
    ],
    ids=str,
)
def test_a_destination_is_what_was_asked_else_the_route_else_the_home(
    options: RunOptions, session: str, found: tuple[str, str | None]
) -> None:
    way = router(routes={MAIN: PERSON}, home=HOME).destination(options, session)
    assert (way.state, way.target) == found
    if way.state == "pending" and options.channel != ROOM.rpartition(":")[2]:  # a bare id: the provider is asked
        assert str(parse_target(way.target or "")) == way.target


def test_with_no_channel_at_all_an_answer_is_skipped_and_a_named_place_is_a_dead_letter() -> None:
    nothing = router(connected=())
    assert nothing.destination(RunOptions(), MAIN) == Destination("skipped", None, "no channel")
    assert nothing.destination(RunOptions(channel="discord"), MAIN) == Destination("skipped", None, "no channel")
    assert "no discord channel is connected" in nothing.destination(RunOptions(to=ROOM), MAIN).detail


def test_where_a_beat_s_alert_goes_is_known_before_the_beat() -> None:
    assert router().beat_target(None) == (None, "")
    assert router(routes={MAIN: PERSON}).beat_target("last") == (PERSON, "")
    assert router().beat_target("last")[1].startswith("nobody has written yet")
    assert router(connected=()).beat_target(ROOM) == (ROOM, "no discord channel is connected to this agent")
    assert router().beat_target(ROOM) == (ROOM, "")


def run_of(source: RunSource, **fields: object) -> NewRun:
    given: dict[str, object] = {"session_key": MAIN, "people": source is RunSource.CHAT, "message": "hello"}
    given |= {"caller": "operator", **fields}
    return NewRun(run_id=new_run_id(), source=source, name="x", **given)  # type: ignore[arg-type]


class Agent:
    """A ledger, a heartbeat that tells the last person, and an outbox whose Discord is a list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "HEARTBEAT.md").write_text("- [ ] anything?\n")
        self.ledger = Ledger(folder / "state.db")
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "manager")
        self.router = Router(
            session_route=self.reader.conversations.route,
            main_session=MAIN,
            home=lambda: None,
            connected=lambda: ("discord",),
        )
        self.sent: list[tuple[str, str]] = []
        self.changed = asyncio.Event()
        self.heartbeat = Heartbeat(
            "manager",
            BeatConfig(enabled=True, every=3600.0, quiet=None, tz="UTC", target="last"),
            folder,
            self.ledger,
            self.reader,
            busy=lambda: False,
            route=self.router.beat_target,
            wake_runner=lambda: None,
            on_change=self.changed.set,
        )
        self.outbox = Outbox(
            self.ledger, self.reader, {"deliver": self._deliver}, on_change=lambda _: self.changed.set()
        )
        self.tasks = [asyncio.create_task(part.serve()) for part in (self.heartbeat, self.outbox)]

    async def _deliver(self, effect: Effect) -> str:
        self.sent.append((str(effect.target), effect.payload["text"]))
        return "sent"

    async def carry_out(self, text: str) -> ClaimedRun:
        """The one queued run, answered with `text`; delivered when this returns."""
        async with asyncio.timeout(5):
            while not (runs := await self.ledger.claim(1, 1)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            (run,) = runs
            way = self.router.destination(run.options, run.session_key)
            effects = effects_of(run, RunState.SUCCEEDED, text, "", way, repeated=self.heartbeat.repeats(run, text))
            ending = Ending(state=RunState.SUCCEEDED, text=text, effects=effects)
            await self.ledger.finish(run.run_id, ending)
            if run.source is RunSource.HEARTBEAT:
                await self.heartbeat.ended(run, ending, swallowed(text))
            self.outbox.wake()
            while self._delivery(run) == "pending":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return run

    def _delivery(self, run: ClaimedRun) -> str:
        found = self.reader.summary(run.run_id)
        assert found is not None
        assert found.delivery is not None
        return found.delivery.status

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.reader.close()
        self.ledger.close()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    yield made
    await made.close()


async def test_after_a_direct_message_one_beat_and_then_another_reach_its_writer(agent: Agent) -> None:
    """The regression: a first beat stored the bare id of the allow-list as the route, and the second had none."""
    await agent.ledger.accept(run_of(RunSource.CHAT, caller="123456789012345678", options=RunOptions(to=PERSON)))
    await agent.carry_out("Good morning.")
    for alert in ("The queue is stuck.", "The licence server is down."):
        assert agent.heartbeat.beat_now() == "beating"
        run = await agent.carry_out(alert)
        assert (run.source, run.options.to) == (RunSource.HEARTBEAT, PERSON)
        assert agent.heartbeat.status().last_outcome == "alert"
    assert agent.sent == [
        (PERSON, "Good morning."),
        (PERSON, "The queue is stuck."),
        (PERSON, "The licence server is down."),
    ]
    assert agent.reader.conversations.route(MAIN) == PERSON
    assert agent.reader.dead_letters() == 0


async def test_an_alert_in_the_same_words_is_delivered_once_and_an_all_clear_never(agent: Agent) -> None:
    await agent.ledger.accept(run_of(RunSource.CHAT, options=RunOptions(to=PERSON)))
    await agent.carry_out("Good morning.")
    outcomes = []
    for text in ("The queue is stuck.", "The queue is stuck.", "HEARTBEAT_OK"):
        agent.heartbeat.beat_now()
        await agent.carry_out(text)
        outcomes.append(agent.heartbeat.status().last_outcome)
    assert outcomes == ["alert", "duplicate", "ok"]
    assert [text for _, text in agent.sent] == ["Good morning.", "The queue is stuck."]


@pytest.mark.parametrize("source", [RunSource.HOOK, RunSource.SCHEDULE, RunSource.HEARTBEAT])
async def test_nothing_but_a_person_s_message_moves_a_session(agent: Agent, source: RunSource) -> None:
    await agent.ledger.accept(run_of(RunSource.CHAT, options=RunOptions(to=PERSON)))
    await agent.ledger.accept(run_of(source, people=True, options=RunOptions(to=ROOM)))
    await agent.ledger.accept(run_of(source, options=RunOptions(to="123456789012345678")))
    assert agent.reader.conversations.route(MAIN) == PERSON
    await agent.ledger.accept(run_of(RunSource.CHAT, options=RunOptions(to=ROOM)))
    assert agent.reader.conversations.route(MAIN) == ROOM


async def test_an_idempotent_repeat_of_an_old_message_does_not_move_it_back(agent: Agent) -> None:
    first = run_of(RunSource.CHAT, options=RunOptions(to=PERSON), idempotency_key="discord/1")
    await agent.ledger.accept(first)
    await agent.ledger.accept(run_of(RunSource.CHAT, options=RunOptions(to=ROOM), idempotency_key="discord/2"))
    await agent.ledger.accept(first)
    assert agent.reader.conversations.route(MAIN) == ROOM
