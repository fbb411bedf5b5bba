"""What the bot does, as Discord sees it; and what each failure of it becomes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.channels.channel import (
    Attachment,
    Button,
    NotConnected,
    Post,
    Posted,
    Refusal,
    Uncertain,
    Unreachable,
    Upload,
)
from gateway.channels.discord import supervision
from protocols.targets import Target
from tests.gateway.channels.discord.conftest import Bot
from tests.standins.discord import wire

MESSAGES = "/channels/*/messages"


@pytest.fixture
async def on(bot: Bot) -> Bot:
    """A bot that is connected."""
    await bot.connect()
    return bot


def own(bot: Bot, channel: str = "webster") -> list[dict[str, Any]]:
    return bot.discord.view.messages(channel, "webster")


class TestSending:
    async def test_to_a_channel(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("hello @everyone"))
        [row] = own(on)
        assert posted == Posted(on.place("webster"), row["id"])
        assert row["content"] == "hello @everyone"
        assert row["allowed_mentions"]["parse"] == []

    async def test_to_a_person(self, on: Bot) -> None:
        posted = await on.channel.send(on.person(), Post("psst"))
        [row] = on.discord.view.dms("antoine", "webster")
        assert (posted.place.kind, posted.place.id, posted.message_id) == ("channel", row["channel_id"], row["id"])

    async def test_to_a_person_again_opens_nothing_again(self, on: Bot) -> None:
        for text in ("one", "two"):
            await on.channel.send(on.person(), Post(text))
        assert len(on.discord.view.requests("POST", "/users/@me/channels")) == 1

    async def test_twice_with_one_nonce_posts_once(self, on: Bot) -> None:
        first = await on.channel.send(on.place("webster"), Post("hello", nonce="run-1.0"))
        again = await on.channel.send(on.place("webster"), Post("hello", nonce="run-1.0"))
        assert first == again
        assert len(own(on)) == 1

    async def test_as_an_answer_that_pings_nobody(self, on: Bot) -> None:
        asked = on.discord.say("webster", "antoine", "who?")
        await on.channel.send(on.place("webster"), Post("me", reply_to=asked))
        [row] = own(on)
        assert row["reply_to"] == asked
        assert row["allowed_mentions"] == {"parse": [], "replied_user": False}

    async def test_as_an_answer_to_what_is_gone(self, on: Bot) -> None:
        asked = on.discord.say("webster", "antoine", "who?")
        on.discord.delete(asked)
        await on.channel.send(on.place("webster"), Post("me", reply_to=asked))
        [row] = own(on)
        assert (row["content"], row["reply_to"]) == ("me", None)

    async def test_as_an_answer_where_it_may_not_read(self, on: Bot) -> None:
        asked = on.discord.say("webster", "antoine", "who?")
        on.discord.overwrite("webster", "webster", deny=["read_message_history"])
        await on.channel.send(on.place("webster"), Post("me", reply_to=asked, files=[Upload("a.md", b"# A")]))
        [row] = own(on)
        assert (row["content"], row["reply_to"], len(row["attachments"])) == ("me", None, 1)

    async def test_with_files(self, on: Bot) -> None:
        files = [Upload("a.md", b"# A"), Upload("b.bin", b"\0" * 9)]
        await on.channel.send(on.place("webster"), Post("two", files=files))
        [row] = own(on)
        assert [(a["filename"], a["size"]) for a in row["attachments"]] == [("a.md", 3), ("b.bin", 9)]

    async def test_a_file_without_words(self, on: Bot) -> None:
        await on.channel.send(on.place("webster"), Post("", files=[Upload("a.md", b"# A")]))
        assert own(on)[0]["content"] == ""

    async def test_with_buttons(self, on: Bot) -> None:
        buttons = [Button("ok:1", "Approve", "good"), Button("no:1", "Reject", "bad")]
        posted = await on.channel.send(on.place("webster"), Post("May I?", buttons=buttons))
        [line] = own(on)[0]["components"]
        assert [(b["custom_id"], b["label"], b["style"]) for b in line["components"]] == [
            ("ok:1", "Approve", 3),
            ("no:1", "Reject", 4),
        ]
        await on.channel.edit(posted, "Approved.")
        assert own(on)[0]["components"] == [], "an edit without buttons takes them away"


class TestChanging:
    async def test_an_edit(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        await on.channel.edit(posted, "two")
        assert own(on)[0]["content"] == "two"

    async def test_a_deletion_and_another_of_the_same(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        await on.channel.delete(posted)
        await on.channel.delete(posted)
        assert own(on) == []

    async def test_reactions(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "hello")
        await on.channel.react(on.place("webster"), said, "👀")
        await on.channel.react(on.place("webster"), said, "✅")
        await on.channel.unreact(on.place("webster"), said, "👀")
        assert on.discord.view.message(said)["reactions"] == {"✅": ["webster"]}

    async def test_typing(self, on: Bot) -> None:
        await on.channel.typing(on.place("webster"))
        assert len(on.discord.view.events("typed", "webster")) == 1


class TestThreads:
    async def test_on_a_message(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "hello")
        thread = await on.channel.start_thread(on.place("webster"), said, "a  name\n" + "x" * 200)
        assert thread == Target("discord", "channel", said)
        [row] = on.discord.view.channels(on.place("webster").id)
        assert row["name"] == ("a name " + "x" * 200)[:100]
        await on.channel.send(thread, Post("inside"))

    async def test_on_a_message_that_has_one(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "hello")
        one = await on.channel.start_thread(on.place("webster"), said, "one")
        assert await on.channel.start_thread(on.place("webster"), said, "two") == one

    @pytest.mark.parametrize("on_message", [True, False])
    async def test_none_is_made_in_which_the_bot_may_not_write(self, bot: Bot, on_message: bool) -> None:
        bot.discord.overwrite("webster", "webster", deny=["send_messages_in_threads"])
        await bot.connect()
        said = bot.discord.say("webster", "antoine", "hello") if on_message else None
        with pytest.raises(Refusal, match="Send Messages in Threads") as caught:
            await bot.channel.start_thread(bot.place("webster"), said, "one")
        assert caught.value.reason == "no_access"
        assert bot.discord.view.channels(bot.place("webster").id) == []

    async def test_one_that_is_not_wanted_is_removed_where_that_is_permitted(self, on: Bot) -> None:
        on.discord.overwrite("webster", "webster", allow=["manage_threads"])
        thread = await on.channel.start_thread(on.place("webster"), None, "one")
        await on.channel.end_thread(thread)
        assert on.discord.view.channels(on.place("webster").id) == []

    async def test_else_it_is_archived(self, on: Bot) -> None:
        thread = await on.channel.start_thread(on.place("webster"), None, "one")
        await on.channel.end_thread(thread)
        [row] = on.discord.view.channels(on.place("webster").id)
        assert (row["id"], row["archived"]) == (thread.id, True)

    async def test_an_archived_thread_is_opened_for_an_edit(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "hello")
        thread = await on.channel.start_thread(on.place("webster"), said, "one")
        posted = await on.channel.send(thread, Post("before"))
        on.discord.changes.archive(on.discord.find_channel(thread.id), True)
        await on.channel.edit(posted, "after")
        assert on.discord.view.message(posted.message_id)["content"] == "after"


class TestHistory:
    async def test_the_newest_oldest_first(self, on: Bot) -> None:
        said = [on.discord.say("webster", "antoine", f"line {n}") for n in range(5)]
        found = await on.channel.history(on.place("webster"), limit=3)
        assert [m.id for m in found] == said[-3:]

    async def test_the_first_after_an_id(self, on: Bot) -> None:
        said = [on.discord.say("webster", "antoine", f"line {n}") for n in range(5)]
        found = await on.channel.history(on.place("webster"), after=said[1], limit=2)
        assert [m.id for m in found] == said[2:4]

    async def test_what_was_said_since_a_time(self, on: Bot) -> None:
        on.discord.say("webster", "antoine", "long ago")
        on.discord.state.clock.advance(100)
        since = on.discord.state.clock.now()
        said = on.discord.say("webster", "antoine", "now")
        assert [m.id for m in await on.channel.history(on.place("webster"), since=since)] == [said]

    async def test_own_messages_as_they_are_with_their_nonce(self, on: Bot) -> None:
        mine = f"I am <@{on.world['bots']['webster']['id']}>"
        await on.channel.send(on.place("webster"), Post(mine, nonce="run-1.0"))
        [found] = await on.channel.history(on.place("webster"))
        assert (found.own, found.text, found.nonce) == (True, mine, "run-1.0")

    async def test_of_the_direct_messages_with_a_person(self, on: Bot) -> None:
        on.discord.dm("antoine", "webster", "hello")
        [found] = await on.channel.history(on.person())
        assert (found.place.kind, found.text, found.author.target) == ("direct", "hello", on.person())

    async def test_without_what_nobody_wrote(self, on: Bot) -> None:
        on.discord.start_thread("antoine", "talk", channel="webster")
        said = on.discord.say("webster", "antoine", "hello")
        assert [m.id for m in await on.channel.history(on.place("webster"))] == [said]

    async def test_what_nobody_wrote_makes_no_page_shorter(self, on: Bot) -> None:
        """A page that is not full reads as the end of the history."""
        first = on.discord.say("webster", "antoine", "first")
        for number in range(3):
            on.discord.start_thread("antoine", f"talk {number}", channel="webster")
        said = [on.discord.say("webster", "antoine", f"line {n}") for n in range(3)]
        place = on.place("webster")
        assert [m.id for m in await on.channel.history(place, after=first, limit=2)] == said[:2]
        assert [m.id for m in await on.channel.history(place, limit=4)] == [first, *said]
        assert [m.id for m in await on.channel.history(place, limit=50)] == [first, *said]

    async def test_one_message_that_cannot_be_read_hides_no_other(
        self, on: Bot, caplog: pytest.LogCaptureFixture
    ) -> None:
        said = [on.discord.say("webster", "antoine", f"line {n}") for n in range(3)]
        rows = [
            wire.message(on.discord.state, on.discord.find_message(id), None)
            | ({"attachments": None} if id == said[1] else {})
            for id in reversed(said)
        ]
        on.discord.fault("GET", "*/messages", status=200, body=rows)
        found = await on.channel.history(on.place("webster"))
        assert [m.id for m in found] == [said[0], said[2]]
        assert f"message {said[1]}" in caplog.text

    async def test_an_own_message_that_cannot_be_read_is_no_proof_that_it_is_not_there(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("mine"))
        row = wire.message(on.discord.state, on.discord.find_message(posted.message_id), None) | {"attachments": None}
        on.discord.fault("GET", "*/messages", status=200, body=[row])
        with pytest.raises(Unreachable):
            await on.channel.history(on.place("webster"))


class TestBrake:
    """Ten thousand refusals in ten minutes ban the address of the host."""

    @pytest.mark.parametrize("status", [401, 403, 429])
    async def test_after_many_refusals_nothing_is_asked_for_a_while(
        self, bot: Bot, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        monkeypatch.setattr(supervision, "MOST_REFUSED", 5)
        bot.channel = bot.new_channel()
        await bot.connect()
        bot.discord.fault("POST", "*/typing", status=status, code=50013, times=0, via=False)
        for _ in range(20):
            with pytest.raises((Refusal, Unreachable)):
                await bot.channel.typing(bot.place("webster"))
        assert len(bot.discord.view.requests("POST", "*/typing")) == 5
        with pytest.raises(Unreachable, match="refused 5 requests within ten minutes") as braked:
            await bot.channel.send(bot.place("webster"), Post("hello"))
        assert braked.value.retry_after == pytest.approx(600, abs=30)
        assert "refused 5 requests within ten minutes" in bot.channel.status().detail
        bot.time.advance(601)
        await bot.channel.send(bot.place("webster"), Post("hello"))
        assert bot.channel.status().detail == ""

    async def test_limits_that_others_used_up_do_not_count(self, bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(supervision, "MOST_REFUSED", 2)
        bot.channel = bot.new_channel()
        await bot.connect()
        shared = {"X-RateLimit-Scope": "shared"}
        bot.discord.fault("POST", "*/typing", status=429, via=False, times=3, headers=shared)
        for _ in range(3):
            with pytest.raises(Unreachable, match="429"):
                await bot.channel.typing(bot.place("webster"))
        await bot.channel.typing(bot.place("webster"))

    async def test_it_holds_over_connections_and_hearing_goes_on(
        self, bot: Bot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervision, "MOST_REFUSED", 3)
        bot.channel = bot.new_channel()
        await bot.connect()
        bot.discord.fault("POST", "*/typing", status=403, code=50013, times=0)
        for _ in range(3):
            with pytest.raises(Refusal):
                await bot.channel.typing(bot.place("webster"))
        bot.discord.reconnect("webster")
        await bot.ear.until(lambda: len(bot.ear.connections) == 2)
        assert bot.channel.status().state == "ready"
        bot.time.patient = True
        bot.discord.close("webster", 4010)
        bot.channel.configure(bot.token, bot.settings(guilds=frozenset()))
        assert "refused 3 requests" in await bot.state("degraded")


class TestRefused:
    """What will never work says what to do next."""

    async def test_a_channel_that_is_hidden(self, on: Bot) -> None:
        on.discord.overwrite("webster", "webster", deny=["view_channel"])
        with pytest.raises(Refusal) as refused:
            await on.channel.send(on.place("webster"), Post("hello"))
        assert refused.value.reason == "no_access"

    async def test_a_channel_in_which_it_may_not_write(self, on: Bot) -> None:
        on.discord.overwrite("webster", "webster", deny=["send_messages"])
        with pytest.raises(Refusal) as refused:
            await on.channel.send(on.place("webster"), Post("hello"))
        assert refused.value.reason == "no_access"

    async def test_a_channel_that_is_not_there(self, on: Bot) -> None:
        with pytest.raises(Refusal) as refused:
            await on.channel.send(Target("discord", "channel", "123456789012345678"), Post("hello"))
        assert refused.value.reason == "unknown_target"

    async def test_a_person_who_takes_no_direct_messages(self, on: Bot) -> None:
        on.discord.find_user("antoine").dms_open = False
        with pytest.raises(Refusal) as refused:
            await on.channel.send(on.person(), Post("hello"))
        assert refused.value.reason == "direct_refused"

    async def test_a_person_who_is_not_there(self, on: Bot) -> None:
        with pytest.raises(Refusal) as refused:
            await on.channel.send(Target("discord", "user", "123456789012345678"), Post("hello"))
        assert refused.value.reason == "unknown_target"

    async def test_an_edit_of_what_is_gone(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        on.discord.delete(posted.message_id)
        with pytest.raises(Refusal) as refused:
            await on.channel.edit(posted, "two")
        assert refused.value.reason == "unknown_message"

    async def test_an_edit_too_late(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        on.discord.fault("PATCH", status=429, via=True, retry_after=0.01)
        on.discord.fault("PATCH", status=400, code=30046)
        with pytest.raises(Refusal) as refused:
            await on.channel.edit(posted, "two")
        assert refused.value.reason == "too_old"

    async def test_a_message_that_is_too_long(self, on: Bot) -> None:
        with pytest.raises(Refusal) as refused:
            await on.channel.send(on.place("webster"), Post("x" * 2001))
        assert refused.value.reason == "other"
        assert "50035" in str(refused.value)


class TestUnreachable:
    """Nothing was done, and it is known."""

    async def test_before_it_is_connected(self, bot: Bot) -> None:
        with pytest.raises(NotConnected, match="no Discord token"):
            await bot.channel.send(bot.place("webster"), Post("hello"))

    async def test_the_connection_is_refused(self, on: Bot) -> None:
        await on.discord.down("rest")
        with pytest.raises(Unreachable):
            await on.channel.send(on.place("webster"), Post("hello"))
        await on.discord.up("rest")
        await on.channel.send(on.place("webster"), Post("hello"))

    async def test_503(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=503)
        with pytest.raises(Unreachable, match="503"):
            await on.channel.send(on.place("webster"), Post("hello"))
        assert len(on.discord.view.requests("POST", MESSAGES)) == 1

    async def test_a_short_limit_is_waited_for(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=429, retry_after=0.2)
        await on.channel.send(on.place("webster"), Post("hello"))
        assert len(own(on)) == 1

    async def test_a_long_limit_is_told(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=429, retry_after=77)
        with pytest.raises(Unreachable) as error:
            await on.channel.send(on.place("webster"), Post("hello"))
        assert error.value.retry_after == 77

    async def test_a_limit_longer_than_a_call_may_take(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=429, retry_after=20)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await on.channel.send(on.place("webster"), Post("hello"))
        assert time.monotonic() - began < 4

    async def test_held_back_by_cloudflare(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=429, via=False, retry_after=60)
        with pytest.raises(Unreachable) as error:
            await on.channel.send(on.place("webster"), Post("hello"))
        assert error.value.retry_after == 60
        assert len(on.discord.view.requests("POST", MESSAGES)) == 1

    @pytest.mark.parametrize("status", [500, 502, 504])
    async def test_an_edit_may_be_made_again_whatever_became_of_it(self, on: Bot, status: int) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        on.discord.fault("PATCH", status=status)
        with pytest.raises(Unreachable):
            await on.channel.edit(posted, "two")

    async def test_a_firewalls_page_is_no_refusal(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=403, body="<html>no</html>")
        with pytest.raises(Unreachable):
            await on.channel.send(on.place("webster"), Post("hello"))


class TestUncertain:
    """It went out, and no answer came."""

    @pytest.mark.parametrize("how", ["reset", "close", "hang"])
    async def test_an_answer_lost(self, on: Bot, how: str) -> None:
        on.discord.lose_reply(how=how)
        with pytest.raises(Uncertain):
            await on.channel.send(on.place("webster"), Post("hello", nonce="n1"))
        assert len(own(on)) == 1
        again = await on.channel.send(on.place("webster"), Post("hello", nonce="n1"))
        assert [row["id"] for row in own(on)] == [again.message_id]

    @pytest.mark.parametrize("status", [500, 502, 504])
    async def test_a_server_that_broke_on_the_way(self, on: Bot, status: int) -> None:
        on.discord.fault("POST", MESSAGES, status=status, after=True)
        with pytest.raises(Uncertain):
            await on.channel.send(on.place("webster"), Post("hello", nonce="n1"))
        assert len(on.discord.view.requests("POST", MESSAGES)) == 1, "the library repeats nothing by itself"

    async def test_an_answer_that_cannot_be_read(self, on: Bot) -> None:
        on.discord.fault("POST", MESSAGES, status=200, body={"id": "nonsense"}, after=True)
        with pytest.raises(Uncertain):
            await on.channel.send(on.place("webster"), Post("hello", nonce="n1"))


class TestFetching:
    async def attachment(self, on: Bot, data: str) -> Attachment:
        on.discord.say("webster", "antoine", "look", attachments={"notes.txt": data})
        [heard] = await on.ear.until(lambda: on.ear.messages)
        return heard.attachments[0]

    async def test_the_bytes(self, on: Bot) -> None:
        file = await self.attachment(on, "hello")
        assert (file.name, file.size, file.content_type) == ("notes.txt", 5, "text/plain")
        assert await on.channel.fetch(file, 100) == b"hello"

    async def test_what_is_too_large_is_not_asked_for(self, on: Bot) -> None:
        file = await self.attachment(on, "x" * 101)
        with pytest.raises(Refusal):
            await on.channel.fetch(file, 100)
        assert on.discord.view.requests("GET", "*notes.txt") == []

    async def test_what_is_larger_than_was_said(self, on: Bot) -> None:
        file = await self.attachment(on, "x" * 101)
        lied = Attachment(file.id, file.name, 5, file.content_type, file.url)
        with pytest.raises(Refusal, match="larger than Discord said"):
            await on.channel.fetch(lied, 100)

    async def test_a_server_that_is_away(self, on: Bot) -> None:
        file = await self.attachment(on, "hello")
        await on.discord.down("rest")
        with pytest.raises(Unreachable):
            await on.channel.fetch(file, 100)


async def test_a_call_that_is_cancelled_stays_cancelled(bot: Bot) -> None:
    await bot.connect()
    bot.discord.lose_reply(how="hang")
    call = asyncio.create_task(bot.channel.send(bot.place("webster"), Post("hello")))
    await bot.discord.wait_for(lambda view: own(bot))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
