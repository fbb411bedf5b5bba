"""What was said while nobody listened is read up on: each message is one run, in its order, over restarts and gaps."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.channels import intake as intake_module
from gateway.channels import lanes as lanes_module
from gateway.channels.channel import Heard, NotConnected, Place, Unreachable
from gateway.ledger.records import Ending
from protocols.runs import RunState
from protocols.targets import Target
from tests.gateway.channels.listening import (
    ANN,
    BOB,
    DIRECT,
    FREE,
    ROOM,
    World,
    ears_of,
    heard_after_a_restart,
)
from tests.standins.channel import Message


class TestCatchingUp:
    async def test_what_was_said_meanwhile_is_taken_in_once_and_in_order(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "before")
            world.say(DIRECT, ANN, "before, directly")
            await world.settle()
        for number in range(3):
            world.say(FREE, ANN, f"missed {number}", hear=False)
        world.say(DIRECT, ANN, "missed directly", hear=False)
        await heard_after_a_restart(world)
        await heard_after_a_restart(world)
        assert [t for t in world.texts if "directly" not in t] == ["before", "missed 0", "missed 1", "missed 2"]
        assert [t for t in world.texts if "directly" in t] == ["before, directly", "missed directly"]
        assert world.accepted[-1].options.to in (str(ANN), str(FREE))

    async def test_a_direct_message_needs_no_more_than_the_mark(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "before")
            await world.settle()
        missed = world.say(DIRECT, ANN, "missed", hear=False)
        usual = world.channel.heard

        def vague(message: Any, **values: Any) -> Heard:
            """A history's direct channel: what it is, nobody knows."""
            return msgspec.structs.replace(usual(message, **values), place=Place(message.place, "channel"))

        world.channel.heard = vague  # type: ignore[method-assign, assignment]
        await heard_after_a_restart(world)
        assert world.accepted[-1].idempotency_key == f"discord:{missed.id}"
        assert world.accepted[-1].options.to == str(ANN)

    async def test_the_first_message_ever_is_not_lost_by_a_kill(self, world: World) -> None:
        """Killed after it was heard and before it was accepted: the channel was noted before."""
        hold = asyncio.Event()

        async def never(new: Any) -> Any:
            hold.set()
            await asyncio.Event().wait()

        world.intake._reception._accept = never
        async with world.listening():
            world.say(FREE, ANN, "first ever")
            async with asyncio.timeout(10):
                await hold.wait()
            marks = world.reader.posts.marks("heard/discord/")
        assert list(marks) == [FREE.id]
        await heard_after_a_restart(world)
        assert world.texts == ["first ever"]

    async def test_a_channel_never_heard_begins_at_its_newest_message(self, world: World) -> None:
        world.ears = msgspec.structs.replace(world.ears, channels=frozenset({FREE.id, ROOM.id}))
        world.say(FREE, ANN, "long before it came", hear=False)
        await heard_after_a_restart(world)
        assert world.texts == []
        world.say(FREE, ANN, "after", hear=False)
        world.say(ROOM, ANN, "@me the first in an empty channel", hear=False)
        await heard_after_a_restart(world)
        assert sorted(world.texts) == ["after", "the first in an empty channel"]

    async def test_nothing_older_than_a_day_is_answered(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
        world.say(FREE, ANN, "too old", hear=False)
        world.now += 86_400
        world.say(FREE, ANN, "new", hear=False)
        await heard_after_a_restart(world)
        assert world.texts == ["before", "new"]

    async def test_what_is_too_old_to_be_answered_is_said(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "hearing")
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
        world.say(FREE, ANN, "missed", hear=False)
        world.now += 25 * 3600
        await heard_after_a_restart(world)
        assert world.texts == ["before"]
        assert "1 message(s) older than a day" in caplog.text

    async def test_at_most_a_hundred_the_newest(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
        for number in range(130):
            world.say(FREE, ANN, f"missed {number}", hear=False)
        await heard_after_a_restart(world)
        assert world.texts == ["before", *(f"missed {number}" for number in range(30, 130))]

    async def test_an_old_run_that_was_pruned_is_not_answered_again(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "answered long ago")
            await world.settle()
        (run,) = await world.claim()
        await world.ledger.finish(run.run_id, Ending(RunState.SUCCEEDED, text="yes"))
        assert await world.ledger.prune(world.now + 1) == 1
        await heard_after_a_restart(world)
        assert world.texts == ["answered long ago"]

    async def test_no_gap_no_reading(self, world: World) -> None:
        async with world.listening():
            world.intake.connected(gap=True)
            world.say(FREE, ANN, "before")
            await world.settle()
            world.channel.calls.clear()
            world.intake.connected(gap=False)
            await world.settle()
        assert world.channel.calls == []

    async def test_what_a_new_connection_brings_early_does_not_hide_what_was_missed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake_module, "PATIENCE", 0.01)
        async with world.listening():
            world.intake.connected(gap=True)
            world.say(FREE, ANN, "before")
            await world.settle()
            world.channel.is_ready = False
            world.say(FREE, ANN, "missed", hear=False)
            world.say(FREE, ANN, "early")
            await world.settle()
            world.channel.is_ready = True
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before", "early", "missed"]

    async def test_what_a_resumed_connection_replays_is_settled(self, world: World) -> None:
        async with world.listening():
            world.intake.connected(gap=True)
            await world.settle()
            world.channel.is_ready = False
            world.say(ROOM, BOB, "the load is 40 N", hear=False)
            said = world.say(ROOM, ANN, "@me right?")
            await asyncio.sleep(0)
            world.channel.is_ready = True
            world.intake.connected(gap=False)
            await world.settle()
        assert f'"id":"{said.id}"' in world.reader.posts.marks("heard/discord/")[ROOM.id]
        assert "40 N" in world.accepted[0].options.context, "it waited until the history could be read"

    async def test_what_was_missed_comes_before_what_a_new_connection_brought_early(self, world: World) -> None:
        async with world.listening():
            world.intake.connected(gap=True)
            world.say(FREE, ANN, "before")
            await world.settle()
            world.channel.is_ready = False
            world.say(FREE, ANN, "missed", hear=False)
            world.say(FREE, ANN, "early")
            await asyncio.sleep(0)
            world.channel.is_ready = True
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before", "missed", "early"]

    async def test_a_replay_that_is_not_followed_by_a_connection_still_settles_with_the_next(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(intake_module, "PATIENCE", 0.01)
        async with world.listening():
            world.intake.connected(gap=True)
            await world.settle()
            world.channel.is_ready = False
            said = world.say(FREE, ANN, "replayed")
            await world.settle()
            world.channel.is_ready = True
            world.intake.connected(gap=False)
        assert f'"id":"{said.id}"' in world.reader.posts.marks("heard/discord/")[FREE.id]

    async def test_a_lost_connection_while_reading_up_is_waited_out(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
        world.say(FREE, ANN, "missed", hear=False)
        world.close()
        world.open()
        world.channel.fail("history", NotConnected("away"))
        async with world.listening():
            world.intake.connected(gap=True)
            world.say(FREE, ANN, "live")
            await world.channel.until(lambda: "history" in world.channel.calls)
            await world.until_accepted(2)
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before", "live", "missed"], "the mark had not moved past what was missed"

    async def test_a_connection_lost_again_while_reading_up_is_read_up_on_too(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, again = world.channel.history, [True]

        async def history(place: Target, **how: Any) -> list[Heard]:
            said = await real(place, **how)
            if again and how.get("after") is None:
                again.clear()
                world.say(FREE, ANN, "missed the second time", hear=False)
                world.intake.connected(gap=True)
            return said

        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
            world.say(FREE, ANN, "missed", hear=False)
            monkeypatch.setattr(world.channel, "history", history)
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before", "missed", "missed the second time"]

    async def test_what_did_not_fit_while_reading_up_is_read_up_on_too(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lanes_module, "WAITING", 2)
        real, once = world.channel.history, [True]

        async def history(place: Target, **how: Any) -> list[Heard]:
            said = await real(place, **how)
            if once and how.get("after") is None:
                once.clear()
                for number in range(4):
                    world.say(FREE, ANN, f"message {number}")
            return said

        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
            monkeypatch.setattr(world.channel, "history", history)
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before", *(f"message {number}" for number in range(4))]

    async def test_what_still_waits_when_a_connection_is_lost_outlives_a_kill(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More than is read up on: what waited is older than that, and not in it."""
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
        for number in range(3):
            world.say(FREE, ANN, f"message {number}")
        world.say(FREE, ANN, "missed", hear=False)
        monkeypatch.setattr(intake_module, "CATCH_UP", 2)
        world.intake.connected(gap=True)
        async with world.listening():
            await world.until_accepted(3)
        monkeypatch.setattr(intake_module, "CATCH_UP", 100)
        await heard_after_a_restart(world)
        runs = [run.task for run in world.reader.runs(10)[0]]
        assert sorted(runs) == ["before", "message 0", "message 1", "message 2", "missed"]

    async def test_a_channel_that_cannot_be_read_is_let_be(self, world: World) -> None:
        async with world.listening():
            world.say(FREE, ANN, "before")
            await world.settle()
            world.channel.hidden.add(FREE)
            world.intake.connected(gap=True)
            await world.settle()
        assert world.texts == ["before"]

    async def test_more_than_fits_is_read_from_the_history(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes_module, "WAITING", 3)
        for number in range(10):
            world.say(FREE, ANN, f"message {number}")
        async with world.listening():
            await world.settle()
        assert world.texts == [f"message {number}" for number in range(10)]

    async def test_what_waits_comes_before_what_did_not_fit(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a kill in between would lose it: the mark stands past all that the history was read up to."""
        monkeypatch.setattr(lanes_module, "WAITING", 3)
        monkeypatch.setattr(intake_module, "CATCH_UP", 2)
        async with world.listening():
            for number in range(4):
                world.say(FREE, ANN, f"message {number}")
            await world.settle()
        assert world.texts == [f"message {number}" for number in range(4)]


_ids = itertools.count()
_EVENTS = (
    *("say", "say", "hear", "hear", "repeat", "drop", "early", "early"),
    *("connect", "resume", "settle", "pause", "kill", "fault"),
)


@example([(event, 0) for event in ("say", "hear", "drop", "say", "say", "early", "pause", "connect")])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(_EVENTS), st.integers(0, 30)), max_size=40))
async def test_any_order_of_live_repeats_and_catching_up_gives_each_message_one_run(
    tmp_path: Path, events: list[tuple[str, int]]
) -> None:
    """Messages are said; they are heard in their order, heard again, missed and read up on, over kills and gaps."""
    folder = tmp_path / str(next(_ids))
    folder.mkdir()
    world = World(folder)
    world.ears = ears_of(channels=frozenset({FREE.id}))
    said: list[Message] = []
    coming: list[Message] = []
    """What this connection will still bring, or the next if it can be resumed."""

    def hear(message: Message) -> None:
        world.intake.heard(world.channel.heard(message))

    async def run(what: str, number: int) -> None:
        match what:
            case "say":
                said.append(world.say(FREE, ANN, f"message {len(said)}", hear=False))
                coming.append(said[-1])
            case "hear" if world.channel.is_ready and coming:
                hear(coming.pop(0))
            case "early" if not world.channel.is_ready and coming:
                hear(coming[-1])  # a new connection brings what is said from now on, before it stands
            case "repeat" if world.channel.is_ready and said[: len(said) - len(coming)]:
                hear(said[number % (len(said) - len(coming))])
            case "drop":
                world.channel.is_ready = False
            case "connect":
                world.channel.is_ready = True
                coming.clear()
                world.intake.connected(gap=True)
            case "resume" if not world.channel.is_ready:
                for message in coming:
                    hear(message)
                coming.clear()
                world.channel.is_ready = True
                world.intake.connected(gap=False)
            case "fault":
                world.channel.fail("history", Unreachable("500"))
            case "settle" if world.channel.is_ready:
                await world.settle()
            case "pause" if busy := [lane.task for lane in world.intake._lanes if lane.task is not None]:
                await asyncio.wait(busy, timeout=0.05)

    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(intake_module, "_RETRY_SECONDS", (0.001,))
            patched.setattr(intake_module, "PATIENCE", 0.005)
            todo = [("connect", 0), ("settle", 0), *events, ("kill", 0), ("connect", 0), ("settle", 0)]
            while todo:
                async with world.listening():
                    while todo and (event := todo.pop(0))[0] != "kill":
                        await run(*event)
                world.close()
                world.open()
                world.channel.is_ready = False
        runs = [world.reader.run(run.run_id) for run in world.reader.runs(500)[0]]
        assert sorted(run.message for run in runs if run) == sorted(f"message {n}" for n in range(len(said)))
    finally:
        world.close()
