"""Answers on a channel: each message once, over lost answers, restarts and hours."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from gateway.channels.channel import NotConnected, Refusal, Uncertain, Unreachable, Upload
from gateway.channels.delivery import DONE, FAILED, SEEN, Delivery, Part
from gateway.channels.outbox import FateUnknown, PermanentRefusal
from gateway.channels.posting import NONCE_SECONDS, Poster
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Effect, NewEffect, Origin
from protocols.targets import Target, parse_target
from tests.standins.channel import MemoryChannel

ROOM = parse_target("discord:channel:100000000000000001")
ANN = parse_target("discord:user:200000000000000001")
ANN_HERE = parse_target("discord:channel:100000000000000002")
HOME = "discord:channel:100000000000000009"
KEY = "run-1/deliver"


class Desk:
    """A ledger, a channel and a delivery; `restart` forgets everything but the ledger's file and the channel."""

    def __init__(self, path: Path) -> None:
        self.now = 1_800_000_000.0
        self.path = path
        self.channel = MemoryChannel(lambda: self.now)
        self.parts: Callable[[str], list[Part]] = lambda text: [Part(p) for p in text.split("|") if p]
        self.retargeted: list[str] = []
        self.closed: list[str] = []

    async def open(self) -> None:
        self.ledger = Ledger(self.path, "manager", clock=lambda: self.now)
        self.ledger.start()
        self.reader = Reader(self.path, "manager")
        self.poster = Poster(self.channel, self.ledger.posts, self.reader.posts.known, clock=lambda: self.now)

        async def close(run_id: str) -> None:
            self.closed.append(run_id)

        async def uploads(names: list[str]) -> list[Upload]:
            return [Upload(name, name.encode()) for name in names]

        async def marked(run_id: str) -> None: ...

        async def retarget(effect_id: int, target: str) -> None:
            self.retargeted.append(target)

        self.delivery = Delivery(
            self.channel,
            self.poster,
            parts_of=lambda text: self.parts(text),
            uploads=uploads,
            close_draft=close,
            marked=marked,
            retarget=retarget,
            add=self.ledger.effects.add,
            home=lambda: HOME,
            reactions=lambda: True,
        )

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    async def restart(self) -> None:
        self.close()
        await self.open()

    async def deliver(self, text: str, target: str = str(ROOM), kind: str = "deliver", **payload: object) -> str:
        return await self.delivery(
            Effect(1, KEY, "run-1", kind, target, {"text": text, **payload}, attempts=0, created_at=self.now)
        )

    async def draft(self, index: int, text: str) -> None:
        rows = {row.index: row for row in await self.poster.of(KEY)}
        await self.poster.put(KEY, index, ROOM, text, row=rows.get(index), final=False)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "state.db")
    await desk.open()
    yield desk
    desk.close()


class TestOnce:
    async def test_every_part_in_order(self, desk: Desk) -> None:
        assert await desk.deliver("one|two|three") == "3 messages"
        assert desk.channel.texts(ROOM) == ["one", "two", "three"]

    async def test_a_second_time_posts_nothing(self, desk: Desk) -> None:
        await desk.deliver("one|two")
        await desk.restart()
        await desk.deliver("one|two")
        assert desk.channel.calls.count("send") == 2

    async def test_after_a_break_between_two_parts_it_goes_on_with_the_second(self, desk: Desk) -> None:
        desk.parts = lambda text: [Part("one"), Part("two")]
        await desk.deliver("")
        desk.channel.messages.pop()
        await desk.ledger.posts.forget(KEY, 1)
        await desk.restart()
        await desk.deliver("")
        assert desk.channel.texts(ROOM) == ["one", "two"]

    async def test_an_answer_lost_on_its_way_is_asked_for_again_with_the_nonce(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with pytest.raises(Uncertain):
            await desk.deliver("one|two")
        await desk.restart()
        await desk.deliver("one|two")
        assert desk.channel.texts(ROOM) == ["one", "two"]

    @pytest.mark.parametrize("later", [NONCE_SECONDS + 1, 3600.0])
    async def test_after_the_nonces_time_the_history_tells(self, desk: Desk, later: float) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with pytest.raises(Uncertain):
            await desk.deliver("one|two")
        desk.now += later
        await desk.restart()
        await desk.deliver("one|two")
        assert desk.channel.texts(ROOM) == ["one", "two"]
        assert "history" in desk.channel.calls

    async def test_a_message_that_never_arrived_is_sent_after_a_look(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="before")
        with pytest.raises(Uncertain):
            await desk.deliver("one")
        desk.now += 3600
        desk.channel.say(ROOM, ANN, "anybody there?")
        await desk.deliver("one")
        assert desk.channel.texts(ROOM) == ["one"]

    async def test_an_hour_later_without_a_history_its_fate_is_unknown_and_nothing_is_sent(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with pytest.raises(Uncertain):
            await desk.deliver("one")
        desk.now += 3600
        desk.channel.fail("history", Refusal("no_access", "not readable"))
        with pytest.raises(FateUnknown, match="may stand in"):
            await desk.deliver("one")
        assert desk.channel.texts(ROOM) == ["one"]

    async def test_likewise_where_a_history_is_shown_as_empty(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with pytest.raises(Uncertain):
            await desk.deliver("one")
        desk.now += 3600
        desk.channel.blind = True
        with pytest.raises(FateUnknown, match="no history is shown"):
            await desk.deliver("one")
        assert desk.channel.texts(ROOM) == ["one"]

    async def test_two_answers_in_the_same_words_are_told_apart(self, desk: Desk) -> None:
        await desk.ledger.posts.trying("run-0/deliver", 0, str(ROOM), "old", "yes")
        old = await desk.channel.send(ROOM, post := desk_post("yes", "old"))
        await desk.ledger.posts.posted("run-0/deliver", 0, str(ROOM), old.message_id, post.text, final=True)
        desk.channel.fail("send", Uncertain("no answer came"), when="before")
        with pytest.raises(Uncertain):
            await desk.deliver("yes")
        desk.now += 3600
        await desk.deliver("yes")
        assert desk.channel.texts(ROOM) == ["yes", "yes"]

    async def test_what_could_not_be_sent_at_all_leaves_no_trace(self, desk: Desk) -> None:
        desk.channel.fail("send", Unreachable("refused"))
        with pytest.raises(Unreachable):
            await desk.deliver("one")
        assert await desk.poster.of(KEY) == []
        desk.channel.is_ready = False
        with pytest.raises(NotConnected):
            await desk.deliver("one")
        assert await desk.poster.of(KEY) == []


def desk_post(text: str, nonce: str):  # type: ignore[no-untyped-def]
    from gateway.channels.channel import Post

    return Post(text, nonce)


class TestDrafts:
    async def test_become_the_final_text(self, desk: Desk) -> None:
        await desk.draft(0, "on")
        await desk.draft(0, "one is")
        await desk.deliver("one is one|two")
        assert desk.channel.texts(ROOM) == ["one is one", "two"]
        assert [m.edits for m in desk.channel.messages] == [2, 0]

    async def test_that_are_not_needed_go_away(self, desk: Desk) -> None:
        await desk.draft(0, "first try")
        await desk.draft(1, "much more of it")
        await desk.deliver("short")
        assert desk.channel.texts(ROOM) == ["short"]
        await desk.restart()
        assert await desk.deliver("") == "nothing left to say"
        assert desk.channel.texts(ROOM) == []

    async def test_whose_id_was_never_learnt_is_found_and_edited(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with contextlib.suppress(Uncertain):
            await desk.draft(0, "one i")
        await desk.restart()
        await desk.deliver("one is one")
        assert desk.channel.texts(ROOM) == ["one is one"]

    async def test_likewise_an_hour_later(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with contextlib.suppress(Uncertain):
            await desk.draft(0, "one i")
        desk.now += 3600
        await desk.deliver("one is one")
        assert desk.channel.texts(ROOM) == ["one is one"]

    async def test_that_somebody_deleted_are_posted_anew(self, desk: Desk) -> None:
        await desk.draft(0, "one i")
        desk.channel.moderate()
        await desk.deliver("one is one")
        assert desk.channel.texts(ROOM) == ["one is one"]

    async def test_likewise_if_that_takes_two_tries(self, desk: Desk) -> None:
        await desk.draft(0, "one i")
        desk.channel.moderate()
        desk.channel.fail("send", Unreachable("refused"))
        with pytest.raises(Unreachable):
            await desk.deliver("one is one")
        await desk.restart()
        await desk.deliver("one is one")
        assert desk.channel.texts(ROOM) == ["one is one"]

    async def test_are_left_alone_by_what_their_run_says_by_the_way(self, desk: Desk) -> None:
        await desk.deliver("a word to somebody else", kind="message")
        assert desk.closed == []
        await desk.deliver("the answer")
        assert desk.closed == ["run-1"]

    async def test_too_old_to_be_edited_are_replaced(self, desk: Desk) -> None:
        await desk.draft(0, "one i")
        desk.channel.fail("edit", Refusal("too_old", "an hour old"))
        await desk.deliver("one is one")
        assert desk.channel.texts(ROOM) == ["one is one"]

    async def test_give_way_to_a_file(self, desk: Desk) -> None:
        await desk.draft(0, "one i")
        desk.parts = lambda text: [Part("in short", [Upload("answer.md", text.encode())])]
        await desk.deliver("one is one")
        assert [(m.text, m.files) for m in desk.channel.messages] == [("in short", ["answer.md"])]

    async def test_a_final_message_that_a_person_deleted_stays_deleted(self, desk: Desk) -> None:
        await desk.deliver("one|two")
        desk.channel.messages.clear()
        await desk.restart()
        await desk.deliver("one|two")
        assert desk.channel.texts(ROOM) == []


class TestFiles:
    async def test_go_with_the_last_message_once(self, desk: Desk) -> None:
        await desk.deliver("one|two", files=["plot.png", "mesh.inp"])
        await desk.restart()
        await desk.deliver("one|two", files=["plot.png", "mesh.inp"])
        assert [(m.text, m.files) for m in desk.channel.messages] == [("one", []), ("two", ["plot.png", "mesh.inp"])]

    async def test_whose_answer_was_lost_are_not_sent_twice(self, desk: Desk) -> None:
        desk.channel.fail("send", Uncertain("no answer came"), when="after")
        with pytest.raises(Uncertain):
            await desk.deliver("one", files=["plot.png"])
        desk.now += 3600
        await desk.deliver("one", files=["plot.png"])
        assert [(m.text, m.files) for m in desk.channel.messages] == [("one", ["plot.png"])]


class TestAnswering:
    async def test_the_first_message_replies_and_the_question_is_marked(self, desk: Desk) -> None:
        asked = desk.channel.say(ROOM, ANN, "what is one?")
        asked.reactions.append(SEEN)
        origin = Origin(str(ROOM), asked.id, str(ANN), "Ann")
        await desk.deliver("one|two", to=str(ROOM), origin=msgspec.to_builtins(origin), mark="done")
        assert [m.reply_to for m in desk.channel.messages] == [None, asked.id, None]
        assert asked.reactions == [DONE]

    async def test_elsewhere_it_replies_to_nothing(self, desk: Desk) -> None:
        asked = desk.channel.say(ROOM, ANN, "what is one?")
        origin = msgspec.to_builtins(Origin(str(ROOM), asked.id, str(ANN), "Ann"))
        await desk.deliver("one", target=str(ANN), to=str(ROOM), origin=origin, mark="failed")
        assert desk.channel.messages[-1].reply_to is None
        assert asked.reactions == [FAILED]

    async def test_a_reaction_that_fails_is_no_failure(self, desk: Desk) -> None:
        asked = desk.channel.say(ROOM, ANN, "what is one?")
        desk.channel.fail("react", Refusal("no_access", "reactions are off"))
        origin = msgspec.to_builtins(Origin(str(ROOM), asked.id, str(ANN)))
        assert await desk.deliver("one", to=str(ROOM), origin=origin, mark="done") == "1 message"

    async def test_an_answer_that_does_not_get_there_marks_the_question_as_failed(self, desk: Desk) -> None:
        asked = desk.channel.say(ANN_HERE, ANN, "what is one?")
        asked.reactions.append(SEEN)
        desk.channel.hidden.add(ROOM)
        told = {"to": str(ROOM), "mark": "done", "origin": msgspec.to_builtins(Origin(str(ANN_HERE), asked.id, "x"))}
        with pytest.raises(PermanentRefusal):
            await desk.deliver("one", **told)
        assert asked.reactions == [FAILED]
        desk.channel.hidden.clear()
        await desk.ledger.effects.add("run-1", NewEffect(KEY, "deliver", {"text": "one", **told}, str(ROOM), "dead"))
        assert await desk.ledger.letters.replay(1, None, "operator") == "again"
        (effect,) = await desk.ledger.effects.due()
        await desk.delivery(effect)
        assert asked.reactions == [DONE]

    async def test_nothing_is_kept_of_the_places_it_has_answered_in(self, desk: Desk) -> None:
        for number in range(20):
            await desk.deliver("one", target=f"discord:channel:{10**17 + number}")
        assert len(desk.delivery._turns) == 0


class TestRefusals:
    async def test_no_access_is_permanent_and_nobody_else_is_told(self, desk: Desk) -> None:
        desk.channel.hidden.add(ROOM)
        with pytest.raises(PermanentRefusal, match="may not write"):
            await desk.deliver("one")
        assert desk.reader.letters.by_key(f"{KEY}/refused") is None

    async def test_a_person_who_takes_no_messages_is_told_of_at_home_without_the_text(self, desk: Desk) -> None:
        desk.channel.refuses_direct.add(ANN)
        with pytest.raises(PermanentRefusal, match="no direct messages"):
            await desk.deliver("the secret is 42", target=str(ANN))
        notice = desk.reader.letters.by_key(f"{KEY}/refused")
        assert notice is not None
        assert notice.target == HOME
        assert "42" not in notice.text
        assert f"<@{ANN.id}>" in notice.text

    async def test_a_bare_id_is_resolved_once_and_written_down(self, desk: Desk) -> None:
        await desk.deliver("one", target=ROOM.id)
        assert desk.retargeted == [str(ROOM)]
        assert desk.channel.texts(Target("discord", "channel", ROOM.id)) == ["one"]


async def test_hurry_makes_what_waits_for_the_provider_due_and_nothing_else(desk: Desk) -> None:
    for key, target in (("a", str(ROOM)), ("b", "slack:channel:C0123456")):
        await desk.ledger.effects.add("run-1", NewEffect(key, "message", {"text": "x"}, target))
    for effect in await desk.ledger.effects.due():
        await desk.ledger.effects.retry(effect.id, desk.now + 50, "later")
    await desk.ledger.effects.hurry("discord")
    assert [e.target for e in await desk.ledger.effects.due()] == [str(ROOM)]
