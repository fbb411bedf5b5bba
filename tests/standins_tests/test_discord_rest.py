"""REST and the CDN of the Discord stand-in, seen by discord.py and, where headers count, by plain aiohttp."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import discord
import pytest

from tests.standins_tests.bot import Bot, connected
from tests.standins_tests.conftest import World

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x02\x00\x00\x00\x03\x08\x02\x00\x00\x006\x88I\xd6"
    b"\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture
async def bot(world: World) -> AsyncIterator[Bot]:
    async with connected(world.token) as client:
        yield client


@pytest.fixture
def research(world: World, bot: Bot) -> discord.PartialMessageable:
    return bot.get_partial_messageable(world.research, guild_id=int(world.guild))


Ask = Callable[..., Awaitable[tuple[int, dict[str, str], Any]]]


@pytest.fixture
async def ask(world: World) -> AsyncIterator[Ask]:
    """`await ask("PATCH", "/channels/...", {...})` -> (status, headers, body)."""
    headers = {"Authorization": f"Bot {world.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def send(method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
            async with session.request(method, world.discord.api_base + path, json=body) as answer:
                text = await answer.text()
                assert answer.headers.get("Content-Type", "application/json") == "application/json"
                return answer.status, dict(answer.headers), await answer.json() if text else None

        yield send


async def refused(action: Awaitable[Any]) -> tuple[int, int]:
    """(status, code) of what Discord answers."""
    with pytest.raises(discord.HTTPException) as error:
        await action
    return error.value.status, error.value.code


class TestSending:
    async def test_a_nonce_said_twice_gives_one_message(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        first = await research.send("answer", nonce="run-1:0")
        assert (await research.send("answer", nonce="run-1:0")).id == first.id
        assert world.discord.view.texts("research") == ["answer"]

    @pytest.mark.parametrize("how", ["told", "old"])
    async def test_a_nonce_that_is_forgotten_gives_a_second_message(
        self, world: World, research: discord.PartialMessageable, how: str
    ) -> None:
        await research.send("answer", nonce="run-1:0")
        world.discord.forget_nonces() if how == "told" else world.discord.advance(301)
        await research.send("answer", nonce="run-1:0")
        assert world.discord.view.texts("research") == ["answer", "answer"]

    async def test_another_author_s_nonce_is_another(self, world: World, research: discord.PartialMessageable) -> None:
        await research.send("mine", nonce="1")
        async with connected(world.bots["manager"]["token"]) as other:
            await other.get_partial_messageable(world.research).send("theirs", nonce="1")
        assert world.discord.view.texts("research") == ["mine", "theirs"]

    async def test_a_lost_reply_leaves_a_message_that_the_nonce_finds(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        world.discord.lose_reply()
        with pytest.raises(aiohttp.ClientOSError):
            await research.send("answer", nonce="run-1:0")
        [stored] = world.discord.view.messages("research")
        assert str((await research.send("answer", nonce="run-1:0")).id) == stored["id"]

    @pytest.mark.parametrize(("text", "answer"), [("x" * 2001, (400, 50035)), (" ", (400, 50006))], ids=["long", "no"])
    async def test_too_much_and_nothing_are_refused(
        self, research: discord.PartialMessageable, text: str, answer: tuple[int, int]
    ) -> None:
        assert await refused(research.send(text)) == answer
        await research.send("x" * 2000)

    async def test_a_reply_to_what_is_gone(self, world: World, research: discord.PartialMessageable) -> None:
        gone = world.discord.say("research", "antoine", "hello")
        world.discord.delete(gone)
        strict = discord.MessageReference(message_id=int(gone), channel_id=world.research)
        lenient = discord.MessageReference(message_id=int(gone), channel_id=world.research, fail_if_not_exists=False)
        assert await refused(research.send("answer", reference=strict)) == (400, 50035)
        assert (await research.send("answer", reference=lenient)).reference is None

    async def test_editing_and_deleting(self, world: World, research: discord.PartialMessageable) -> None:
        message = await research.send("first")
        await message.edit(content="second")
        await message.edit(content="third")
        row = world.discord.view.message(str(message.id))
        assert [text for _, text in row["edits"]] == ["second", "third"]
        await message.delete()
        assert world.discord.view.messages("research") == []
        assert await refused(message.edit(content="fourth")) == (404, 10008)

    async def test_a_message_of_another_is_not_to_be_edited_or_deleted(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        other = research.get_partial_message(int(world.discord.say("research", "antoine", "mine")))
        assert await refused(other.edit(content="x")) == (403, 50005)
        assert await refused(other.delete()) == (403, 50013)

    async def test_files_go_up_and_come_down_until_the_url_expires(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        files = [discord.File(io.BytesIO(PNG), "plot.png"), discord.File(io.BytesIO(b"a,b"), "table.csv")]
        message = await research.send("see", files=files)
        assert [(a.filename, a.size, a.width, a.height) for a in message.attachments] == [
            ("plot.png", len(PNG), 2, 3),
            ("table.csv", 3, None, None),
        ]
        assert await message.attachments[0].read() == PNG
        world.discord.advance(90000)
        with pytest.raises(discord.NotFound):
            await message.attachments[0].read()
        again = await research.fetch_message(message.id)
        assert await again.attachments[1].read() == b"a,b"

    async def test_a_human_s_file_is_read(self, world: World, bot: Bot) -> None:
        world.discord.say("research", "antoine", "read this", attachments={"a.txt": "text", "b.bin": "base64:AAE="})
        await bot.until(lambda: bot.heard)
        assert [await a.read() for a in bot.heard[0].attachments] == [b"text", b"\x00\x01"]
        assert bot.heard[0].attachments[0].content_type == "text/plain; charset=utf-8"

    async def test_typing_and_reactions_are_recorded(self, world: World, research: discord.PartialMessageable) -> None:
        message = research.get_partial_message(int(world.discord.say("research", "antoine", "hello")))
        async with research.typing():
            await message.add_reaction("👀")
        await message.add_reaction("✅")
        await message.remove_reaction("👀", discord.Object(int(world.bots["webster"]["id"])))
        assert world.discord.view.message(str(message.id))["reactions"] == {"✅": ["webster"]}
        assert len(world.discord.view.events("typed", "webster")) == 1
        assert await refused(message.add_reaction("eyes")) == (400, 10014)

    async def test_history_is_cut_at_both_ends(self, world: World, research: discord.PartialMessageable) -> None:
        ids = [int(world.discord.say("research", "antoine", str(number))) for number in range(7)]
        read = [m.content async for m in research.history(limit=3)]
        after = [m.content async for m in research.history(limit=2, after=discord.Object(ids[2]))]
        before = [m.content async for m in research.history(limit=2, before=discord.Object(ids[2]))]
        assert (read, after, before) == (["6", "5", "4"], ["3", "4"], ["1", "0"])


class TestTargets:
    async def test_what_does_not_exist(self, world: World, bot: Bot) -> None:
        assert await refused(bot.fetch_channel(int(world.people["antoine"]))) == (404, 10003)
        assert await refused(bot.fetch_user(1)) == (404, 10013)
        assert await refused(bot.create_dm(discord.Object(1))) == (400, 50033)
        assert (await bot.fetch_user(int(world.people["antoine"]))).name == "antoine"

    async def test_a_channel_that_may_not_be_seen_or_written(self, world: World, bot: Bot) -> None:
        world.discord.overwrite("research", "webster", deny=["view_channel"])
        world.discord.overwrite("projects", "webster", deny=["send_messages"])
        assert await refused(bot.fetch_channel(world.research)) == (403, 50001)
        assert await refused(bot.get_partial_messageable(int(world.channels["projects"])).send("x")) == (403, 50013)
        world.discord.delete_channel("research")
        assert await refused(bot.fetch_channel(world.research)) == (404, 10003)

    async def test_each_permission_counts(self, world: World, bot: Bot, research: discord.PartialMessageable) -> None:
        said = research.get_partial_message(int(world.discord.say("research", "antoine", "x")))
        denied = ["attach_files", "add_reactions", "create_public_threads", "read_message_history"]
        world.discord.overwrite("research", "webster", deny=denied[:3])
        assert await refused(research.send("x", file=discord.File(io.BytesIO(b"x"), "x"))) == (403, 50013)
        assert await refused(said.add_reaction("👀")) == (403, 50013)
        assert await refused(said.create_thread(name="t")) == (403, 50013)
        world.discord.overwrite("research", "webster", deny=denied)
        assert [m async for m in research.history()] == []
        assert await refused(said.fetch()) == (403, 50013)

    async def test_a_dm_arrives_unless_the_person_refuses(self, world: World, bot: Bot) -> None:
        person = await bot.fetch_user(int(world.people["antoine"]))
        await person.send("hello")
        assert [row["content"] for row in world.discord.view.dms("antoine", "webster")] == ["hello"]
        world.discord.set_dms("antoine", False)
        assert await refused(person.send("again")) == (403, 50007)
        manager = await bot.fetch_user(int(world.bots["manager"]["id"]))
        assert await refused(manager.send("hello, colleague")) == (403, 50007)

    async def test_a_thread_on_a_message_has_its_id(
        self, world: World, bot: Bot, research: discord.PartialMessageable
    ) -> None:
        said = research.get_partial_message(int(world.discord.say("research", "antoine", "a long story")))
        thread = await said.create_thread(name="the story")
        assert (thread.id, thread.parent_id, thread.owner_id) == (said.id, world.research, bot.user and bot.user.id)
        assert await refused(said.create_thread(name="again")) == (400, 160004)
        await thread.send("in the thread")
        world.discord.say(str(thread.id), "antoine", "me too")
        await bot.until(lambda: "me too" in bot.texts)
        assert isinstance(bot.heard[-1].channel, discord.Thread)
        assert world.discord.view.texts(str(thread.id)) == ["in the thread", "me too"]

    async def test_a_thread_without_a_message(self, world: World, bot: Bot) -> None:
        channel = await bot.fetch_channel(world.research)
        assert isinstance(channel, discord.TextChannel)
        thread = await channel.create_thread(name="aside", type=discord.ChannelType.public_thread)
        assert [row["name"] for row in world.discord.view.channels(str(world.research))] == ["aside"]
        world.discord.archive(str(thread.id))
        await thread.send("opens it again")
        assert not world.discord.view.channels(str(world.research))[0]["archived"]
        world.discord.archive(str(thread.id), locked=True)
        assert await refused(thread.send("locked")) == (400, 50083)

    async def test_name_and_picture_of_a_bot(self, world: World, bot: Bot) -> None:
        assert bot.user is not None
        await bot.user.edit(username="Webster", avatar=PNG)
        me = await bot.fetch_user(bot.user.id)
        assert (me.name, await me.display_avatar.read()) == ("Webster", PNG)

    async def test_a_guild_and_who_is_in_it(self, world: World, bot: Bot) -> None:
        guild = await bot.fetch_guild(int(world.guild))
        assert {c.name for c in await guild.fetch_channels()} > set(world.channels)
        member = await guild.fetch_member(int(world.people["antoine"]))
        assert member.guild_permissions.send_messages
        stranger = world.discord.add_user("stranger", guild="")
        assert await refused(guild.fetch_member(int(stranger))) == (404, 10007)
        assert await refused(bot.fetch_guild(1)) == (404, 10004)


class TestLimits:
    async def test_the_sixth_edit_within_five_seconds_is_refused(self, world: World, ask: Ask) -> None:
        at = f"/channels/{world.research}/messages"
        message = (await ask("POST", at, {"content": "0"}))[2]["id"]
        seen = [await ask("PATCH", f"{at}/{message}", {"content": str(number)}) for number in range(6)]
        assert [status for status, _, _ in seen] == [200] * 5 + [429]
        assert [headers["X-RateLimit-Remaining"] for _, headers, _ in seen] == ["4", "3", "2", "1", "0", "0"]
        assert len({headers["X-RateLimit-Bucket"] for _, headers, _ in seen}) == 1
        _, headers, body = seen[-1]
        assert headers["Via"]
        assert headers["Retry-After"] == "5"
        assert 4 < body["retry_after"] <= 5
        assert body["global"] is False
        elsewhere = f"/channels/{world.channels['projects']}/messages"
        other = (await ask("POST", elsewhere, {"content": "0"}))[2]["id"]
        assert (await ask("PATCH", f"{elsewhere}/{other}", {"content": "1"}))[0] == 200

    async def test_discord_py_waits_by_the_headers(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.limit("PATCH", "/channels/*/messages/*", 2, 0.5)
        message = await research.send("0")
        began = time.monotonic()
        for number in range(5):
            await message.edit(content=str(number))
        assert time.monotonic() - began > 0.9
        assert [row["status"] for row in world.discord.view.requests("PATCH")] == [200] * 5

    async def test_limits_can_be_switched_off(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.no_limits()
        message = await research.send("0")
        for number in range(8):
            await message.edit(content=str(number))
        assert world.discord.view.message(str(message.id))["content"] == "7"

    async def test_429_from_discord_is_waited_for(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.fault("POST", "/channels/*/messages", status=429, retry_after=0.2)
        began = time.monotonic()
        await research.send("patient")
        assert time.monotonic() - began >= 0.2
        assert [row["status"] for row in world.discord.view.requests("POST")] == [429, 200]

    async def test_a_global_429_holds_every_request(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.fault("POST", "*/messages", status=429, retry_after=0.4, everywhere=True)
        began = time.monotonic()
        first = asyncio.create_task(research.send("first"))
        await world.discord.wait_for(lambda view: [r for r in view.requests("POST") if r["status"] == 429])
        await asyncio.sleep(0.05)
        await research.typing()
        assert time.monotonic() - began >= 0.4
        await first

    async def test_429_from_cloudflare_is_raised(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.fault("POST", "/channels/*/messages", status=429, via=False)
        assert await refused(research.send("x")) == (429, 0)
        assert world.discord.view.texts("research") == []


class TestFaults:
    async def test_503_is_raised_and_502_is_tried_again(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        world.discord.fault("POST", "/channels/*/messages", status=503)
        assert await refused(research.send("x")) == (503, 0)
        world.discord.fault("POST", "/channels/*/messages", status=502)
        await research.send("y")
        assert world.discord.view.texts("research") == ["y"]

    @pytest.mark.parametrize(
        ("cut", "error"), [("reset", aiohttp.ClientOSError), ("close", aiohttp.ServerDisconnectedError)]
    )
    async def test_a_cut_connection_stores_nothing(
        self, world: World, research: discord.PartialMessageable, cut: str, error: type[Exception]
    ) -> None:
        world.discord.fault("POST", "/channels/*/messages", cut=cut)
        with pytest.raises(error):
            await research.send("x")
        assert world.discord.view.messages("research") == []

    async def test_slow_and_silent_answers(self, world: World, research: discord.PartialMessageable) -> None:
        world.discord.fault("POST", "/channels/*/messages", delay=0.3)
        began = time.monotonic()
        await research.send("slow")
        assert time.monotonic() - began >= 0.3
        world.discord.fault("POST", "/channels/*/messages", delay=5, after=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(research.send("stored, but not told in time"), 0.3)
        assert len(world.discord.view.texts("research")) == 2
        world.discord.fault("POST", "/channels/*/messages", cut="hang")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(research.send("never"), 0.3)

    async def test_a_rule_can_wait_count_and_name_its_bot(
        self, world: World, research: discord.PartialMessageable
    ) -> None:
        rule = world.discord.fault("POST", "*/messages", bot="webster", skip=1, times=2, status=503)
        world.discord.fault("POST", "*/messages", bot="manager", times=0, status=503)
        await research.send("1")
        for _ in range(2):
            assert (await refused(research.send("x")))[0] == 503
        await research.send("2")
        assert world.discord.view.texts("research") == ["1", "2"]
        world.discord.clear_faults(rule)
        assert [row["bot"] for row in world.discord.faults.rows()] == [world.bots["manager"]["id"]]
