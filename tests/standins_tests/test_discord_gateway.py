"""The gateway of the Discord stand-in, seen by discord.py."""

from __future__ import annotations

import asyncio
import contextlib
import time

import aiohttp
import discord
import pytest

from tests.standins_tests.bot import BLIND, Bot, connected, starting
from tests.standins_tests.conftest import World


class TestConnecting:
    async def test_a_bot_logs_in_hears_and_answers(self, world: World) -> None:
        began = time.monotonic()
        async with connected(world.token) as bot:
            assert time.monotonic() - began < 5
            assert [guild.name for guild in bot.guilds] == ["Atomizer"]
            asked = world.discord.say("research", "antoine", "hello")
            await bot.until(lambda: bot.texts)
            assert (bot.heard[0].content, bot.heard[0].author.name) == ("hello", "antoine")
            await bot.heard[0].reply("good day", mention_author=False)
            [answer] = await world.discord.wait_for(lambda view: view.replies(asked))
            assert (answer["author"], answer["content"], answer["mentions"]) == ("webster", "good day", [])
            assert world.discord.view.bot("webster")["identifies"] == 1
        await world.discord.wait_for(lambda view: not view.connected("webster"))

    async def test_a_wrong_token_is_refused_at_login(self, world: World) -> None:
        async with starting(world.token[:-1] + "x") as bot:
            assert isinstance(await bot.ended(), discord.LoginFailure)

    async def test_a_revoked_token_closes_with_4004(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.revoke("webster")
            error = await bot.ended()
            assert isinstance(error, discord.ConnectionClosed)
            assert error.code == 4004

    async def test_intents_the_portal_forbids_are_refused_with_4014(self, world: World) -> None:
        world.discord.set_message_content("webster", False)
        async with starting(world.token) as bot:
            assert isinstance(await bot.ended(), discord.PrivilegedIntentsRequired)
            assert not bot.application_flags.gateway_message_content_limited

    @pytest.mark.parametrize("code", [4010, 4013])
    async def test_an_identify_can_be_refused_with_any_code(self, world: World, code: int) -> None:
        world.discord.refuse_identify("webster", code)
        async with starting(world.token) as bot:
            error = await bot.ended()
            assert isinstance(error, discord.ConnectionClosed)
            assert error.code == code

    async def test_thirteen_bots_at_once(self, world: World) -> None:
        tokens = [world.discord.add_bot(f"agent-{number}")["token"] for number in range(13)]
        async with contextlib.AsyncExitStack() as stack:
            bots = await asyncio.gather(*(stack.enter_async_context(connected(token)) for token in tokens))
            world.discord.say("research", "antoine", "to all")
            for bot in bots:
                await bot.until(lambda bot=bot: bot.texts == ["to all"])

    async def test_a_gateway_that_is_down_refuses_connections(self, world: World) -> None:
        await world.discord.down("gateway")
        async with starting(world.token) as bot:
            assert isinstance(await bot.ended(), AttributeError)  # discord.py's own fault: it never had a socket
        await world.discord.up("gateway")
        async with connected(world.token):
            pass

    async def test_rest_that_is_down_refuses_connections(self, world: World) -> None:
        await world.discord.down("rest")
        async with starting(world.token) as bot:
            assert isinstance(await bot.ended(), aiohttp.ClientConnectorError)

    async def test_what_went_down_comes_back_and_the_session_goes_on(self, world: World) -> None:
        async with connected(world.token) as bot:
            await world.discord.down()
            world.discord.say("research", "antoine", "in the dark")
            await world.discord.up()
            await bot.until(lambda: bot.texts == ["in the dark"], 20)
            assert world.discord.view.bot("webster")["identifies"] == 1


class TestResuming:
    @pytest.mark.parametrize("how", ["close", "drop", "reconnect", "invalidate"])
    async def test_what_was_said_meanwhile_is_replayed_once(self, world: World, how: str) -> None:
        async with connected(world.token) as bot:
            match how:
                case "close":
                    world.discord.close("webster", 4000)
                case "drop":
                    world.discord.drop("webster")
                case "reconnect":
                    world.discord.reconnect("webster")
                case _:
                    world.discord.invalidate("webster", resumable=True)
            world.discord.say("research", "antoine", "meanwhile")
            await bot.until(lambda: bot.resumed)
            world.discord.say("research", "antoine", "after")
            await bot.until(lambda: "after" in bot.texts)
            assert bot.texts == ["meanwhile", "after"]
            seen = world.discord.view.bot("webster")
            assert (seen["identifies"], seen["resumes"]) == (1, 1)

    async def test_op_9_loses_the_session_and_what_was_said_is_in_the_history(self, world: World) -> None:
        async with connected(world.token) as bot:
            last = world.discord.say("research", "antoine", "before")
            await bot.until(lambda: bot.texts)
            world.discord.invalidate("webster")
            world.discord.say("research", "antoine", "lost")
            await bot.until(lambda: bot.connects == 2, 20)
            world.discord.say("research", "antoine", "after")
            await bot.until(lambda: "after" in bot.texts)
            assert bot.texts == ["before", "after"]
            assert world.discord.view.bot("webster")["identifies"] == 2
            channel = bot.get_partial_messageable(world.research)
            caught_up = [m.content async for m in channel.history(after=discord.Object(int(last)))]
            assert caught_up == ["lost", "after"]

    async def test_a_forgotten_session_is_not_resumed(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.close("webster", 4000)
            world.discord.forget_sessions("webster")
            await bot.until(lambda: bot.connects == 2, 20)
            assert [row["author"] for row in world.discord.view.events("resume_refused")] == ["webster"]

    async def test_a_session_is_gone_after_an_hour(self, world: World) -> None:
        async with connected(world.token) as bot:
            await world.discord.down("gateway")
            world.discord.advance(3600)
            await world.discord.up("gateway")
            await bot.until(lambda: bot.connects == 2, 30)

    async def test_a_replay_can_repeat_what_was_heard(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.say("research", "antoine", "once")
            await bot.until(lambda: bot.texts)
            world.discord.repeat_on_resume("webster", 1)
            world.discord.close("webster", 4000)
            await bot.until(lambda: len(bot.heard) == 2)
            assert bot.heard[0].id == bot.heard[1].id

    async def test_without_acks_the_client_leaves_and_resumes(self, world: World) -> None:
        world.discord.set_heartbeat(0.2)
        world.discord.withhold_acks("webster")
        async with connected(world.token, Bot(heartbeat_timeout=0.5)) as bot:
            await bot.until(lambda: bot.resumed)
            world.discord.withhold_acks("webster", False)

    async def test_heartbeats_are_counted(self, world: World) -> None:
        world.discord.set_heartbeat(0.05)
        async with connected(world.token):
            await world.discord.wait_for(lambda view: view.bot("webster")["beats"] > 3)

    async def test_a_malformed_dispatch_ends_the_client(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.dispatch("webster", "MESSAGE_CREATE", {"id": "1"})
            assert isinstance(await bot.ended(), KeyError)


class TestWhoHearsWhat:
    async def test_content_is_withheld_without_the_intent(self, world: World) -> None:
        async with connected(world.token, Bot(BLIND)) as bot:
            world.discord.say("research", "antoine", "secret", attachments={"a.txt": "b"})
            world.discord.say("research", "antoine", "for you", mentions=["webster"])
            world.discord.dm("antoine", "webster", "between us")
            await bot.until(lambda: len(bot.heard) == 3)
            me = world.bots["webster"]["id"]
            assert bot.texts == ["", f"<@{me}> for you", "between us"]
            assert bot.heard[0].attachments == []
            await bot.get_partial_messageable(world.research).send("mine")
            await bot.until(lambda: bot.texts[3:] == ["mine"])

    async def test_a_dm_is_heard_by_its_two_parties_only(self, world: World) -> None:
        async with connected(world.token) as bot, connected(world.bots["manager"]["token"]) as other:
            world.discord.dm("antoine", "webster", "psst")
            world.discord.say("research", "antoine", "aloud")
            await bot.until(lambda: bot.texts == ["psst", "aloud"])
            await other.until(lambda: other.texts == ["aloud"])
            assert bot.heard[0].guild is None

    async def test_a_hidden_channel_is_not_heard(self, world: World) -> None:
        world.discord.overwrite("research", "webster", deny=["view_channel"])
        async with connected(world.token) as bot:
            world.discord.say("research", "antoine", "hidden")
            world.discord.say("projects", "antoine", "seen")
            await bot.until(lambda: bot.texts == ["seen"])

    async def test_reactions_edits_and_deletions_are_told(self, world: World) -> None:
        async with connected(world.token) as bot:
            message = world.discord.say("research", "antoine", "vote")
            edited = asyncio.create_task(bot.wait_for("raw_message_edit", timeout=10))
            deleted = asyncio.create_task(bot.wait_for("raw_message_delete", timeout=10))
            await asyncio.sleep(0)
            world.discord.react(message, "berta", "👍")
            await bot.until(lambda: bot.reactions)
            assert str(bot.reactions[0].emoji) == "👍"
            assert str(bot.reactions[0].user_id) == world.people["berta"]
            world.discord.edit(message, "vote!")
            assert (await edited).message.content == "vote!"
            world.discord.delete(message)
            assert str((await deleted).message_id) == message

    async def test_bots_and_webhooks_are_to_be_told_from_people(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.say("research", "manager", "I am a bot")
            hook = world.discord.webhook_say("research", "build", "it is green")
            world.discord.say("research", "antoine", "I am none")
            await bot.until(lambda: len(bot.heard) == 3)
            assert [(m.author.name, m.author.bot, m.webhook_id is not None) for m in bot.heard] == [
                ("manager", True, False),
                ("build", True, True),
                ("antoine", False, False),
            ]
            assert str(bot.heard[1].id) == hook

    async def test_an_event_can_come_twice(self, world: World) -> None:
        async with connected(world.token) as bot:
            world.discord.say("research", "antoine", "once")
            world.discord.repeat("webster")
            await bot.until(lambda: len(bot.heard) == 2)
            assert bot.heard[0].id == bot.heard[1].id

    async def test_a_presence_is_recorded(self, world: World) -> None:
        async with connected(world.token, Bot(status=discord.Status.idle)) as bot:
            assert world.discord.view.bot("webster")["presence"]["status"] == "idle"
            await bot.change_presence(activity=discord.Game("with beams"))
            await world.discord.wait_for(lambda view: len(view.bot("webster")["presences"]) == 2)
            assert world.discord.view.bot("webster")["presence"]["activities"][0]["name"] == "with beams"

    async def test_permissions_are_those_discord_py_computes(self, world: World) -> None:
        d = world.discord
        d.add_role("muted", [])
        d.add_role("helper", ["manage_messages"])
        for role in ("muted", "helper"):
            d.give_role("webster", role)
        d.overwrite("research", "@everyone", deny=["send_messages", "add_reactions"])
        d.overwrite("research", "helper", allow=["send_messages"])
        d.overwrite("projects", "@everyone", deny=["view_channel"])
        d.overwrite("projects", "webster", allow=["view_channel"])
        d.overwrite("system", "muted", deny=["send_messages"])
        d.overwrite("operations", "helper", allow=["manage_threads"])
        d.overwrite("operations", "muted", deny=["manage_threads"])
        d.overwrite("knowledge", "muted", deny=["view_channel"])
        async with connected(world.token) as bot:
            guild = bot.guilds[0]
            for name in world.channels:
                channel = discord.utils.get(guild.text_channels, name=name)
                assert channel is not None
                ours = d.state.may(world.bots["webster"]["id"], d.find_channel(name))
                theirs = channel.permissions_for(guild.me)
                if theirs.view_channel:
                    assert ours == theirs.value, name
                else:
                    assert ours == 0, name
