"""What is remembered of people and places for no reason any more goes; what a lost connection needs stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.channels.channel import Place, Refusal
from gateway.channels.intake import SILENT_SECONDS
from gateway.channels.pairing import CODE_SECONDS
from protocols.targets import Target
from tests.gateway.channels.listening import ANN, BOB, DIRECT, FREE, GUILD, ROBOT, ROOM, World, ears_of

THREAD = Place(Target("discord", "channel", "300000000000000009"), "thread", "talk", GUILD, parent=ROOM)
BOBS = Target("discord", "channel", f"8{BOB.id[1:]}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    built = World(tmp_path, dm="pairing", bot_turns=3)
    built.ears = ears_of(users=frozenset({ANN.id}), bots=frozenset({ROBOT.id}))
    yield built
    built.close()


def marks(world: World, prefix: str) -> set[str]:
    return set(world.reader.posts.marks(f"{prefix}/discord/"))


async def said_everywhere(world: World) -> None:
    """In a channel, in a thread by a bot, and alone with somebody known and somebody unknown."""
    world.say(FREE, ANN, "hello")
    world.say(THREAD.target, ROBOT, "@me hello", at=THREAD)
    world.say(DIRECT, ANN, "hello")
    world.say(BOBS, BOB, "hello")
    await world.settle()


async def test_threads_and_strangers_in_silence_go_and_those_who_are_always_heard_stay(world: World) -> None:
    async with world.listening():
        await said_everywhere(world)
        assert marks(world, "bots") == {THREAD.target.id}
        world.now += SILENT_SECONDS - 10
        await world.intake.forget()
        await world.intake._last.flush()
        assert marks(world, "heard") == {FREE.id, DIRECT.id, THREAD.target.id, BOBS.id}
        world.now += 20
        await world.intake.forget()
        assert marks(world, "heard") == {FREE.id, DIRECT.id}
        assert marks(world, "bots") == set()


async def test_direct_messages_of_somebody_paired_stay(world: World) -> None:
    async with world.listening():
        world.say(BOBS, BOB, "hello")
        async with asyncio.timeout(10):
            await world.asked.wait()
        (question,) = world.approvals.list()
        await world.approvals.answer(question.id, approve=True, revision=question.revision, by="operator", reason="")
        await world.until_accepted(1)
    world.now += 2 * SILENT_SECONDS
    world.close()
    world.open()
    async with world.listening():
        await world.intake.forget()
        world.say(BOBS, BOB, "missed", hear=False)
        world.intake.connected(gap=True)
        await world.until_accepted(2)
    assert world.texts == ["hello", "missed"]
    assert marks(world, "paired") == {BOB.id}


async def test_what_is_forgotten_is_heard_anew(world: World) -> None:
    async with world.listening():
        await said_everywhere(world)
        world.now += SILENT_SECONDS + 10
        await world.intake.forget()
        world.say(THREAD.target, ANN, "@me again", at=THREAD)
        await world.settle()
        world.say(THREAD.target, ANN, "@me missed", at=THREAD, hear=False)
        world.intake.connected(gap=True)
        world.say(THREAD.target, ANN, "@me and more", at=THREAD)
        await world.settle()
    assert world.texts[-3:] == ["again", "missed", "and more"]


async def test_a_place_where_something_waits_is_not_forgotten(world: World) -> None:
    """A message that broke a long silence is taken in; its mark is on disk before it is a run."""
    async with world.listening():
        await said_everywhere(world)
        world.now += SILENT_SECONDS + 10
        world.say(THREAD.target, ANN, "@me again", at=THREAD)
        await world.intake.forget()
        await world.settle()
        await world.intake._last.flush()
    assert THREAD.target.id in marks(world, "heard")
    assert world.texts[-1] == "again"


@pytest.mark.parametrize(("reason", "stays"), [("unknown_target", False), ("no_access", True)])
async def test_a_channel_that_is_not_there_any_more_goes(world: World, reason: str, stays: bool) -> None:
    async with world.listening():
        await said_everywhere(world)
        world.now += SILENT_SECONDS + 10
        for _ in range(10):
            world.channel.fail("history", Refusal(reason, "it cannot be read"))  # type: ignore[arg-type]
        world.intake.connected(gap=True)
        await world.settle()
    assert (FREE.id in marks(world, "heard")) is stays


async def test_a_channel_that_is_not_listened_to_any_more_goes(world: World) -> None:
    async with world.listening():
        await said_everywhere(world)
        world.now += SILENT_SECONDS + 10
        world.ears = msgspec.structs.replace(world.ears, channels=frozenset({ROOM.id}))
        world.ears = msgspec.structs.replace(world.ears, free=frozenset())
        await world.intake.forget()
    assert marks(world, "heard") == {DIRECT.id}


async def test_who_was_refused_is_forgotten_when_they_may_ask_again(world: World) -> None:
    async with world.listening():
        world.say(BOBS, BOB, "hello")
        async with asyncio.timeout(10):
            await world.asked.wait()
        (question,) = world.approvals.list()
        await world.intake.forget()
        assert marks(world, "pairing") == {BOB.id}, "it waits for an answer"
        await world.approvals.answer(question.id, approve=False, revision=question.revision, by="operator", reason="")
        async with asyncio.timeout(10):
            while watches := list(world.intake.pairing._watches.values()):
                await asyncio.wait(watches)
        await world.intake.forget()
        assert marks(world, "pairing") == {BOB.id}, "they are not heard for an hour"
        world.now += CODE_SECONDS + 1
        await world.intake.forget()
        assert marks(world, "pairing") == set()
