"""Strangers: a code, a question to the operator, and a message that waits without being lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.channels.channel import Refusal
from gateway.channels.pairing import ALPHABET, paired_people
from protocols.approvals import Approval
from protocols.targets import Target
from tests.gateway.channels.listening import ANN, BOB, DIRECT, World

CODE = re.compile(rf"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    built = World(tmp_path, dm="pairing")
    yield built
    built.close()


def direct(person: Target) -> Target:
    return Target("discord", "channel", f"8{person.id[1:]}")


async def asked(world: World) -> Approval:
    """The one open question, once it is put."""
    await world.settle()
    async with asyncio.timeout(10):
        await world.asked.wait()
    (approval,) = world.approvals.list()
    return approval


async def answer(world: World, approve: bool) -> None:
    question = await asked(world)
    await world.approvals.answer(question.id, approve=approve, revision=question.revision, by="operator", reason="")
    async with asyncio.timeout(10):
        while world.intake.pairing._watches:
            await asyncio.wait(list(world.intake.pairing._watches.values()))


class TestAsking:
    async def test_a_stranger_is_told_a_code_and_the_operator_asked_with_the_same(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "are you there?")
            question = await asked(world)
            await world.channel.until(lambda: bool(world.channel.texts(DIRECT)))
        (told,) = world.channel.texts(DIRECT)
        found = CODE.search(told)
        assert found
        assert question.question == f"pairing: code {found[0]}: may Ann ({ANN}) talk to webster?"
        assert (question.tool, question.run_id) == ("pairing", None)
        assert "are you there?" in question.detail
        assert question.expires_at == pytest.approx(world.now + 3600, abs=5)
        assert world.accepted == []

    async def test_more_messages_ask_and_tell_nothing_more(self, world: World) -> None:
        async with world.listening():
            for number in range(4):
                world.say(DIRECT, ANN, f"hello {number}")
            await asked(world)
            await world.channel.until(lambda: bool(world.channel.texts(DIRECT)))
            world.now += 1200
            world.say(DIRECT, ANN, "hello?")
            await world.settle()
        assert len(world.channel.texts(DIRECT)) == 1
        assert len(world.approvals.list()) == 1

    async def test_three_at_a_time(self, world: World) -> None:
        people = [Target("discord", "user", f"10000000000000001{n}") for n in range(5)]
        async with world.listening():
            for person in people:
                world.say(direct(person), person, "hello")
            await world.settle()
            await world.channel.until(lambda: len({m.place for m in world.channel.messages if m.buttons == []}) >= 5)
        assert len(world.reader.posts.marks("pairing/discord/")) == 3

    async def test_one_who_cannot_be_told_is_told_with_a_later_message_ten_minutes_on(self, world: World) -> None:
        world.channel.fail("send", Refusal("direct_refused", "no"))
        async with world.listening():
            world.say(DIRECT, ANN, "hello")
            await asked(world)
            await world.channel.until(lambda: "send" in world.channel.calls)
            world.say(DIRECT, ANN, "hello again")
            await world.settle()
            assert world.channel.texts(DIRECT) == []
            world.now += 601
            world.say(DIRECT, ANN, "and again")
            await world.settle()
        assert len(world.channel.texts(DIRECT)) == 1


class TestApproved:
    async def test_what_waited_is_taken_in_and_the_person_told(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            world.say(DIRECT, ANN, "second")
            await answer(world, True)
            world.say(DIRECT, ANN, "third")
            await world.settle()
        assert world.texts == ["first", "second", "third"]
        assert world.channel.texts(DIRECT)[-1] == "You are approved: webster answers you from now on."
        ((person, paired),) = paired_people(world.reader.posts)
        assert (person, paired.name, paired.by) == (ANN, "Ann", "operator")

    async def test_it_holds_over_a_restart(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            await answer(world, True)
        world.close()
        world.open()
        async with world.listening():
            world.say(DIRECT, ANN, "second")
            await world.settle()
        assert world.texts == ["first", "second"]

    @pytest.mark.parametrize("when", ["before the answer", "after the answer"])
    async def test_a_message_that_waits_outlives_the_process(self, world: World, when: str) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            question = await asked(world)
            await world.channel.until(lambda: bool(world.channel.texts(DIRECT)))
        if when == "after the answer":
            await world.approvals.answer(
                question.id, approve=True, revision=question.revision, by="operator", reason=""
            )
        world.close()
        world.open()
        async with world.listening():
            if when == "before the answer":
                await answer(world, True)
            await world.until_accepted(1)
            await world.channel.until(lambda: len(world.channel.texts(DIRECT)) == 2)
        assert world.texts == ["first"]

    async def test_an_edit_and_a_deletion_reach_what_waits(self, world: World) -> None:
        async with world.listening():
            first = world.say(DIRECT, ANN, "frist")
            second = world.say(DIRECT, ANN, "nonsense")
            await asked(world)
            world.intake.edited(DIRECT, first.id, "first")
            world.intake.deleted(DIRECT, second.id)
            await answer(world, True)
        assert world.texts == ["first"]

    async def test_others_are_strangers_still(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            await answer(world, True)
            world.say(direct(BOB), BOB, "me too")
            question = await asked(world)
        assert str(BOB) in question.question


class TestTurnedDown:
    async def test_nothing_more_is_said_and_nothing_heard_for_an_hour(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            await answer(world, False)
            said = len(world.channel.texts(DIRECT))
            world.say(DIRECT, ANN, "please")
            await world.settle()
            assert (world.approvals.list(), len(world.channel.texts(DIRECT)), world.accepted) == ([], said, [])
            world.now += 3601
            world.say(DIRECT, ANN, "please?")
            question = await asked(world)
        assert "please?" in question.detail
        assert "first" not in question.detail

    async def test_so_is_one_whom_nobody_answered_for(self, world: World) -> None:
        async with world.listening():
            world.say(DIRECT, ANN, "first")
            await asked(world)
            world.now += 3601
            for expired in await world.ledger.approvals.expire():
                world.approvals._tell(expired)
            async with asyncio.timeout(10):
                while watches := list(world.intake.pairing._watches.values()):
                    await asyncio.wait(watches)
            world.say(DIRECT, ANN, "please")
            await world.settle()
        assert world.approvals.list() == []
        assert world.accepted == []
