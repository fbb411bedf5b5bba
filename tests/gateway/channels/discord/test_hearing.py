"""What people write, as the channel port tells it."""

from __future__ import annotations

import pytest

from gateway.channels.channel import Heard, Post
from protocols.targets import Target
from tests.gateway.channels.discord.conftest import Bot
from tests.standins.discord import wire


@pytest.fixture
async def on(bot: Bot) -> Bot:
    await bot.connect()
    return bot


async def next_heard(bot: Bot) -> Heard:
    await bot.ear.until(lambda: bot.ear.messages)
    return bot.ear.messages[-1]


class TestMessages:
    async def test_in_a_channel(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "hello")
        heard = await next_heard(on)
        assert (heard.id, heard.text, heard.own, heard.mentions_me) == (said, "hello", False, False)
        assert (heard.place.target, heard.place.kind, heard.place.name) == (on.place("webster"), "channel", "webster")
        assert (heard.place.guild, heard.place.parent) == (on.world["guild"], None)
        assert (heard.author.target, heard.author.name, heard.author.bot) == (on.person(), "Antoine", False)
        assert heard.at == pytest.approx(on.discord.state.clock.now(), abs=5)

    async def test_in_private(self, on: Bot) -> None:
        on.discord.dm("antoine", "webster", "hello")
        heard = await next_heard(on)
        channel = on.discord.dm_channel("antoine", "webster")
        assert (heard.place.target, heard.place.kind) == (Target("discord", "channel", channel), "direct")
        assert (heard.place.guild, heard.place.name) == (None, "Antoine")

    async def test_in_a_thread_of_a_message(self, on: Bot) -> None:
        start = on.discord.say("webster", "antoine", "a question")
        thread = on.discord.start_thread("antoine", "the question", on=start)
        on.discord.say(thread, "antoine", "more of it")
        await on.ear.until(lambda: len(on.ear.messages) == 2)
        place = on.ear.messages[-1].place
        assert (place.target.id, place.kind, place.name) == (thread, "thread", "the question")
        assert (place.parent, place.started_from, place.guild) == (on.place("webster"), start, on.world["guild"])

    async def test_in_a_thread_that_was_archived(self, on: Bot) -> None:
        thread = on.discord.start_thread("antoine", "old", on=on.discord.say("webster", "antoine", "a question"))
        on.discord.archive(thread)
        on.discord.say(thread, "antoine", "again")
        await on.ear.until(lambda: len(on.ear.messages) == 2)
        assert (on.ear.messages[-1].place.kind, on.ear.messages[-1].place.parent) == ("thread", on.place("webster"))

    async def test_what_is_forwarded_is_apart_from_what_is_written(self, on: Bot) -> None:
        said = on.discord.find_message(on.discord.say("webster", "antoine", "see this"))
        app = on.discord.find_bot("webster")
        event = wire.message_event(on.discord.state, said, app, True) | {"id": str(int(said.id) + 1)}
        shot = {"content": "from elsewhere", "timestamp": event["timestamp"], "edited_timestamp": None, "type": 0}
        shot |= {"flags": 0, "mentions": [], "mention_roles": [], "attachments": [], "embeds": [], "components": []}
        on.discord.dispatch("webster", "MESSAGE_CREATE", event | {"message_snapshots": [{"message": shot}]})
        await on.ear.until(lambda: len(on.ear.messages) == 2)
        assert (on.ear.messages[1].text, on.ear.messages[1].forwarded) == ("see this", "from elsewhere")

    async def test_its_own_are_not_heard(self, on: Bot) -> None:
        await on.channel.send(on.place("webster"), Post("mine"))
        on.discord.say("webster", "antoine", "yours")
        assert (await next_heard(on)).text == "yours"
        assert len(on.ear.messages) == 1

    async def test_what_nobody_wrote_is_not_heard(self, on: Bot) -> None:
        on.discord.start_thread("antoine", "talk", channel="webster")
        on.discord.say("webster", "antoine", "hello")
        assert (await next_heard(on)).text == "hello"

    async def test_another_bot_is_marked_as_one(self, on: Bot) -> None:
        on.discord.add_bot("stranger")
        on.discord.say("webster", "stranger", "hello")
        assert (await next_heard(on)).author.bot

    async def test_attachments(self, on: Bot) -> None:
        on.discord.say("webster", "antoine", "look", attachments={"a.csv": "1,2", "b.png": "base64:iVBORw0KGgo="})
        files = (await next_heard(on)).attachments
        assert [(f.name, f.size, f.content_type) for f in files] == [
            ("a.csv", 3, "text/csv"),
            ("b.png", 8, "image/png"),
        ]
        assert all(f.url.startswith(on.discord.cdn) for f in files)


class TestMentions:
    async def test_by_name_and_the_name_is_taken_out(self, on: Bot) -> None:
        on.discord.say("webster", "antoine", "what is up?", mentions=["webster"])
        heard = await next_heard(on)
        assert (heard.mentions_me, heard.text) == (True, "what is up?")

    async def test_of_others_stand_by_their_names(self, on: Bot) -> None:
        on.discord.add_user("berta")
        channel = on.place("research").id
        on.discord.say("webster", "antoine", f"see <#{channel}>", mentions=["berta"])
        heard = await next_heard(on)
        assert (heard.mentions_me, heard.text) == (False, "@Berta see #research")

    async def test_a_reply_to_it(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("here"))
        on.discord.say("webster", "antoine", "thanks", reply_to=posted.message_id, ping=False)
        heard = await next_heard(on)
        assert (heard.mentions_me, heard.reply_to) == (True, posted.message_id)

    async def test_a_reply_to_somebody_else(self, on: Bot) -> None:
        first = on.discord.say("webster", "antoine", "one")
        on.discord.say("webster", "antoine", "two", reply_to=first)
        await on.ear.until(lambda: len(on.ear.messages) == 2)
        assert (on.ear.messages[-1].mentions_me, on.ear.messages[-1].reply_to) == (False, first)


class TestChanges:
    async def test_an_edit(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "one")
        on.discord.edit(said, f"two <@{on.world['bots']['webster']['id']}>")
        await on.ear.until(lambda: on.ear.edits)
        assert on.ear.edits == [(str(on.place("webster")), said, "two")]

    async def test_its_own_edits_are_not_heard(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("one"))
        await on.channel.edit(posted, "two")
        said = on.discord.say("webster", "antoine", "one")
        on.discord.edit(said, "two")
        await on.ear.until(lambda: on.ear.edits)
        assert [id for _, id, _ in on.ear.edits] == [said]

    async def test_a_thread_on_a_message_is_no_edit_of_it(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "one")
        on.discord.start_thread("antoine", "talk", on=said)
        on.discord.edit(said, "two")
        await on.ear.until(lambda: on.ear.edits)
        assert len(on.ear.edits) == 1

    async def test_a_deletion(self, on: Bot) -> None:
        said = on.discord.say("webster", "antoine", "one")
        on.discord.delete(said)
        await on.ear.until(lambda: on.ear.deletions)
        assert on.ear.deletions == [(str(on.place("webster")), said)]
