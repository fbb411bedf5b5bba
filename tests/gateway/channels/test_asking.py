"""Questions on a channel: what a person decides on is what they see, and whoever is first is told to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.agent.approvals import Approvals
from gateway.channels.asking import Asking
from gateway.channels.posting import Poster
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from protocols.approvals import Approval
from protocols.targets import parse_target
from tests.standins.channel import MemoryChannel

HOME = parse_target("discord:channel:100000000000000009")


class Desk:
    """A ledger, its questions and a channel; nothing is told of a change but what `asking` is told."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path, "manager")
        self.ledger.start()
        self.reader = Reader(path, "manager")
        self.channel = MemoryChannel(lambda: 1.0)
        self.approvals = Approvals(
            self.ledger.approvals, self.reader, expires_after=lambda: 60.0, on_change=lambda approval: None
        )
        self.asking = Asking(
            Poster(self.channel, self.ledger.posts, self.reader.posts.known),
            find=self.reader.approval,
            recent=lambda: self.approvals.list(every=True),
            shown=self.reader.posts.of,
            options_of=lambda run_id: None,
            home=lambda: str(HOME),
            operators=lambda: ["200000000000000001"],
            add=self.ledger.effects.add,
            answer=lambda id, approve, revision, by: self.answer(id, revision),
        )

    async def answer(self, id: str, revision: int = 1) -> Approval:
        return await self.approvals.answer(id, approve=False, revision=revision, by="operator", reason="no")

    async def put(self, question: str = "exec: ls", detail: str = "") -> Approval:
        return await self.approvals.put("key", "exec", question, detail, 60.0)

    async def carry_out(self) -> list[str]:
        """What is due, as the outbox would; what stands in the channel then."""
        for effect in await self.ledger.effects.due():
            await self.asking.show(effect)
            await self.ledger.effects.settle(effect.id, "done")
        return self.channel.texts(HOME)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "state.db")
    yield made
    made.reader.close()
    made.ledger.close()


async def test_an_answer_of_which_a_process_did_not_live_to_tell_is_told_by_the_next(desk: Desk) -> None:
    question = await desk.put()
    await desk.asking.start()
    await desk.carry_out()
    assert desk.channel.messages[0].buttons
    await desk.answer(question.id)
    await desk.asking.start()
    (text,) = await desk.carry_out()
    assert text.startswith("**rejected** by operator")
    assert not desk.channel.messages[0].buttons
    await desk.asking.start()
    assert await desk.ledger.effects.due() == []


async def test_a_question_that_was_answered_before_it_was_shown_is_not_asked(desk: Desk) -> None:
    question = await desk.put()
    await desk.answer(question.id)
    await desk.asking.start()
    assert await desk.ledger.effects.due() == []


async def test_a_person_sees_all_that_would_be_done_or_how_much_they_do_not_see(desk: Desk) -> None:
    await desk.put("exec: ls", "\U0001f600" * 2000)
    await desk.asking.start()
    (text,) = await desk.carry_out()
    assert len(text.encode("utf-16-le")) // 2 <= desk.channel.limit
    assert text.endswith(f"[cut: {2010 - text.count(chr(0x1F600)) - 10} more characters; the console shows all]")


async def test_what_cannot_be_seen_is_shown_and_no_fence_is_left(desk: Desk) -> None:
    await desk.put("exec: ls", "rm \u202e-rf ~ \x1b[8m```\n**not code**")
    await desk.asking.start()
    (text,) = await desk.carry_out()
    assert "rm <U+202E>-rf ~ \u241b[8m'''\n**not code**\n```" in text
