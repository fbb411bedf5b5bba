"""Every way in which Discord fails: what is shown, what is tried, and that it recovers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.channels.discord.supervision import Limits
from tests.gateway.channels.discord.conftest import Bot

LOGIN = "/users/@me"
MALFORMED: dict[str, Any] = {"id": "nonsense"}


def logins(bot: Bot) -> int:
    return len(bot.discord.view.requests("GET", LOGIN))


async def settle() -> None:
    """Time for what should not happen: waits are skipped, so a retry would come within milliseconds."""
    await asyncio.sleep(0.3)


class TestStanding:
    async def test_without_a_token_it_is_off_and_asks_nothing(self, bot: Bot) -> None:
        bot.channel.configure(None, bot.settings())
        bot._serving = asyncio.create_task(bot.channel.serve())
        await settle()
        assert bot.channel.status().state == "off"
        assert bot.discord.view.requests() == []

    async def test_it_connects_and_tells_who_it_is(self, bot: Bot) -> None:
        await bot.connect()
        status = bot.channel.status()
        assert (status.name, status.guilds, status.detail) == ("webster", 1, "")
        assert [state for state, _ in bot.states] == ["connecting", "ready"]
        assert bot.ear.connections == [True], "what was said before must be read up on"

    async def test_it_asks_for_no_more_than_it_needs(self, bot: Bot) -> None:
        await bot.connect()
        wanted = 1 << 0 | 1 << 9 | 1 << 12 | 1 << 15
        assert bot.discord.view.bot("webster")["intents"] == [wanted]

    async def test_the_same_configuration_changes_nothing(self, bot: Bot) -> None:
        await bot.connect()
        bot.channel.configure(bot.token, bot.settings())
        await settle()
        assert bot.identifies == 1

    async def test_another_token_is_used_at_once(self, bot: Bot) -> None:
        other = bot.discord.add_bot("other")
        await bot.connect()
        bot.channel.configure(other["token"], bot.settings())
        await bot.discord.wait_for(lambda view: view.connected("other"))
        await bot.discord.wait_for(lambda view: not view.connected("webster"))
        await bot.state("ready")
        assert bot.channel.status().name == "other"

    async def test_a_token_taken_away_disconnects_it(self, bot: Bot) -> None:
        await bot.connect()
        bot.channel.configure(None, bot.settings())
        await bot.state("off")
        await bot.discord.wait_for(lambda view: not view.connected("webster"))
        assert not bot.channel.ready

    async def test_it_says_goodbye_when_it_is_stopped(self, bot: Bot) -> None:
        await bot.connect()
        await bot.end()
        await bot.discord.wait_for(lambda view: view.events("disconnected", "webster", code=1000))


class TestPermanent:
    """Refused until a person changes something: one request, and never another by itself."""

    async def test_a_wrong_token(self, bot: Bot) -> None:
        bot.begin("not.the.token")
        detail = await bot.state("auth_failed")
        assert "atomizer secrets set webster discord" in detail
        await settle()
        assert logins(bot) == 1
        assert bot.channel.status().next_at is None
        bot.channel.configure(bot.token, bot.settings())
        await bot.state("ready")

    @pytest.mark.parametrize("token", ["Bot abc.def.ghi", "two words", "ümlaut.a.b"])
    async def test_a_token_that_cannot_be_one_is_not_tried(self, bot: Bot, token: str) -> None:
        bot.begin(token)
        detail = await bot.state("auth_failed")
        assert "portal" in detail
        assert token not in detail
        assert bot.discord.view.requests() == []

    async def test_white_space_around_a_token_is_nothing(self, bot: Bot) -> None:
        bot.begin(f"  {bot.token}\n")
        await bot.state("ready")

    async def test_a_token_revoked_while_connected(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.revoke("webster")
        detail = await bot.state("auth_failed")
        assert "4004" in detail
        await settle()
        assert (bot.identifies, logins(bot)) == (1, 1)
        assert not bot.channel.ready
        bot.discord.restore("webster")
        bot.channel.configure(bot.token, bot.settings())  # as a reload does, with nothing changed
        await bot.state("ready")

    @pytest.mark.parametrize(
        ("code", "state", "words"),
        [
            (4010, "auth_failed", "shard"),
            (4011, "auth_failed", "too many servers"),
            (4012, "auth_failed", "API version"),
            (4013, "intents_refused", "Message Content Intent"),
            (4014, "intents_refused", "Message Content Intent"),
        ],
    )
    async def test_a_connection_refused_for_good(self, bot: Bot, code: int, state: str, words: str) -> None:
        bot.discord.refuse_identify("webster", code)
        bot.begin()
        detail = await bot.state(state)
        assert words in detail
        assert str(code) in detail
        await settle()
        assert bot.identifies == 1
        bot.channel.configure(bot.token, bot.settings())
        await bot.state("ready")

    async def test_contents_refused_in_the_portal_are_seen_before_connecting(self, bot: Bot) -> None:
        app = bot.discord.find_bot("webster")
        flags, app.flags = app.flags, 0
        bot.time.patient = True
        bot.begin()
        detail = await bot.state("intents_refused")
        assert "Message Content Intent" in detail
        assert bot.identifies == 0
        assert bot.channel.status().next_at == pytest.approx(bot.time.now() + 300, abs=2)
        app.flags = flags
        bot.time.advance(301)
        await bot.state("ready")


class TestTransient:
    """Tried again, slower each time."""

    @pytest.mark.parametrize("what", ["gateway", "rest", "both"])
    async def test_discord_is_down_when_it_starts(self, bot: Bot, what: str) -> None:
        await bot.discord.down(what)
        bot.begin()
        detail = await bot.state("degraded")
        assert "cannot be reached" in detail
        await bot.ear.until(lambda: len(bot.time.waits) >= 3)
        await bot.discord.up(what)
        await bot.state("ready")

    async def test_waits_double_up_to_two_minutes(self, bot: Bot) -> None:
        await bot.discord.down("rest")
        bot.begin()
        await bot.ear.until(lambda: len(bot.time.waits) >= 10)
        assert bot.time.waits[:10] == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]

    async def test_when_it_is_tried_again_is_shown(self, bot: Bot) -> None:
        bot.time.patient = True
        await bot.discord.down("rest")
        bot.begin()
        await bot.state("degraded")
        assert bot.channel.status().next_at == pytest.approx(bot.time.now() + 1, abs=0.5)

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    async def test_a_broken_server_at_login_is_asked_once_for_each_try(self, bot: Bot, status: int) -> None:
        bot.discord.fault("GET", LOGIN, status=status)
        bot.begin()
        assert str(status) in await bot.state("degraded")
        await bot.state("ready")
        assert logins(bot) == 2, "the library's own retries are off"
        assert bot.time.waits == [1]

    async def test_an_address_that_is_held_back_waits_for_minutes(self, bot: Bot) -> None:
        bot.discord.fault("GET", LOGIN, status=429, via=False)
        bot.begin()
        assert "429" in await bot.state("degraded")
        await bot.state("ready")
        assert bot.time.waits == [300]

    async def test_a_page_of_a_firewall_is_no_refusal_of_discord(self, bot: Bot) -> None:
        bot.discord.fault("GET", LOGIN, status=403, body="<html>blocked</html>")
        bot.begin()
        assert "403" in await bot.state("degraded")
        await bot.state("ready")

    async def test_an_answer_of_the_wrong_type_at_login(self, bot: Bot) -> None:
        bot.discord.fault("GET", LOGIN, status=200, body="hello")
        bot.begin()
        assert "not as expected" in await bot.state("degraded")
        await bot.state("ready")


class TestResumed:
    """A connection lost, its session kept: nothing is missed and no new session is spent."""

    @pytest.mark.parametrize("code", [4000, 4001, 4002, 4003, 4005, 4008])
    async def test_closed_with_a_code(self, bot: Bot, code: int) -> None:
        await bot.connect()
        bot.discord.close("webster", code)
        await bot.ear.until(lambda: bot.ear.connections == [True, False])
        assert (bot.identifies, bot.discord.view.bot("webster")["resumes"]) == (1, 1)
        assert [state for state, _ in bot.states] == ["connecting", "ready", "resuming", "ready"]

    async def test_asked_to_reconnect(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.reconnect("webster")
        await bot.ear.until(lambda: bot.ear.connections == [True, False])
        assert bot.identifies == 1

    async def test_an_invalid_session_that_can_be_resumed(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.invalidate("webster", resumable=True)
        await bot.ear.until(lambda: bot.ear.connections == [True, False])
        assert bot.identifies == 1

    async def test_a_cable_pulled(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.drop("webster")
        await bot.ear.until(lambda: bot.ear.connections == [True, False])
        assert bot.identifies == 1

    async def test_what_is_said_meanwhile_is_heard(self, bot: Bot) -> None:
        await bot.connect()
        bot.time.patient = True
        await bot.discord.down("gateway")
        await bot.ear.until(lambda: bot.channel.status().next_at is not None)
        status = bot.channel.status()
        assert status.state == "resuming"
        assert "lost" in status.detail
        assert bot.channel.ready, "REST is up: it can speak all the same"
        said = bot.discord.say("webster", "antoine", "are you there?")
        await bot.discord.up("gateway")
        bot.time.advance(10)
        await bot.ear.until(lambda: [m.id for m in bot.ear.messages] == [said])
        assert bot.identifies == 1

    async def test_what_discord_repeats_is_handed_on_again(self, bot: Bot) -> None:
        await bot.connect()
        said = bot.discord.say("webster", "antoine", "once")
        await bot.ear.until(lambda: bot.ear.messages)
        bot.discord.repeat_on_resume("webster", 1)
        bot.discord.close("webster", 4000)
        await bot.ear.until(lambda: [m.id for m in bot.ear.messages] == [said, said])

    async def test_heartbeats_without_answers(self, bot: Bot) -> None:
        bot.limits = Limits(silence=1.0, ready=5.0, guilds=0.1, call=2.0)
        bot.channel = bot.new_channel()
        bot.discord.set_heartbeat(0.2)
        await bot.connect()
        bot.discord.withhold_acks("webster")
        await bot.state("resuming")
        bot.discord.withhold_acks("webster", on=False)
        await bot.state("ready")
        assert bot.identifies == 1

    async def test_a_gateway_that_stays_away_gets_a_new_client(self, bot: Bot) -> None:
        await bot.connect()
        await bot.discord.down("gateway")
        await bot.state("degraded")
        assert not bot.channel.ready
        await bot.discord.up("gateway")
        await bot.state("ready")
        assert bot.identifies == 2
        assert bot.ear.connections == [True, True]


class TestLostSession:
    """A new session: what was said in between is not replayed, and the listener is told so."""

    @pytest.mark.parametrize("code", [1000, 4007, 4009])
    async def test_closed_with_a_code_that_ends_the_session(self, bot: Bot, code: int) -> None:
        await bot.connect()
        bot.discord.close("webster", code)
        await bot.ear.until(lambda: bot.ear.connections == [True, True])
        assert bot.identifies == 2
        await bot.state("ready")

    async def test_an_invalid_session(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.invalidate("webster")
        await bot.ear.until(lambda: bot.ear.connections == [True, True])
        assert bot.identifies == 2
        assert bot.time.waits[-1] == 5.0, "Discord asks for one to five seconds before the new session"

    async def test_a_session_that_discord_forgot(self, bot: Bot) -> None:
        await bot.connect()
        await bot.discord.down("gateway")
        bot.discord.forget_sessions("webster")
        await bot.discord.up("gateway")
        await bot.ear.until(lambda: bot.ear.connections == [True, True])
        assert bot.identifies == 2


class TestMalformed:
    async def test_an_event_that_cannot_be_read_is_passed_over(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.dispatch("webster", "CHANNEL_UPDATE", MALFORMED)
        said = bot.discord.say("webster", "antoine", "still there?")
        await bot.ear.until(lambda: [m.id for m in bot.ear.messages] == [said])
        assert (bot.identifies, bot.channel.status().state) == (1, "ready")
        assert bot.ear.connections == [True]

    async def test_a_message_that_cannot_be_read_is_to_be_read_up_on(self, bot: Bot) -> None:
        await bot.connect()
        bot.discord.dispatch("webster", "MESSAGE_CREATE", MALFORMED)
        await bot.ear.until(lambda: bot.ear.connections == [True, True])
        assert bot.identifies == 1

    async def test_messages_that_cannot_be_read_cut_off_nobody_however_many(self, bot: Bot) -> None:
        """Anybody can write one, if there is a kind of message that the library does not know."""
        await bot.connect()
        for _ in range(5):
            bot.discord.dispatch("webster", "MESSAGE_CREATE", MALFORMED)
            bot.discord.dispatch("webster", "MESSAGE_UPDATE", MALFORMED)
        said = bot.discord.say("webster", "antoine", "still there?")
        await bot.ear.until(lambda: [m.id for m in bot.ear.messages] == [said])
        assert (bot.identifies, bot.channel.status().state) == (1, "ready")
        assert 2 <= len(bot.ear.connections) <= 4

    async def test_the_event_is_named_in_the_log(self, bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
        await bot.connect()
        bot.discord.dispatch("webster", "MESSAGE_CREATE", MALFORMED)
        await bot.ear.until(lambda: len(bot.ear.connections) == 2)
        assert "malformed MESSAGE_CREATE" in caplog.text

    async def test_too_many_of_them_replace_the_client(self, bot: Bot) -> None:
        await bot.connect()
        for _ in range(4):
            bot.discord.dispatch("webster", "CHANNEL_UPDATE", MALFORMED)
        detail = await bot.state("degraded")
        assert "CHANNEL_UPDATE" in detail
        await bot.state("ready")
        assert bot.identifies == 2


class MuteGateway:
    """A gateway that says hello and nothing more, and does not answer a goodbye."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        self.connected.set()
        await socket.send_str(json.dumps({"op": 10, "d": {"heartbeat_interval": 45000}}))
        await asyncio.sleep(3600)
        return socket


@pytest.fixture
async def mute() -> AsyncIterator[MuteGateway]:
    gateway = MuteGateway()
    app = web.Application()
    app.router.add_get("/gw", gateway.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/gw"
    yield gateway
    await runner.cleanup()


class TestHung:
    async def test_a_gateway_that_never_gets_ready(self, bot: Bot, mute: MuteGateway) -> None:
        bot.limits = Limits(silence=10.0, ready=0.3, guilds=0.1, call=2.0)
        bot.channel = bot.new_channel()
        bot.begin(gateway_url=mute.url)
        assert "did not get ready" in await bot.state("degraded")
        bot.channel.configure(bot.token, bot.settings())
        await bot.state("ready")

    async def test_stopping_does_not_wait_for_a_peer_that_is_gone(self, bot: Bot, mute: MuteGateway) -> None:
        bot.begin(gateway_url=mute.url)
        async with asyncio.timeout(10):
            await mute.connected.wait()
        began = time.monotonic()
        await bot.end()
        assert time.monotonic() - began < 4
