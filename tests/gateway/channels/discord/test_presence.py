"""The presence: given with the connection, changed at most once in fifteen seconds, the newest wins."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.channels.channel import NotConnected
from gateway.channels.discord.presence import Presence, Shown
from tests.gateway.channels.discord.conftest import Bot, Time


def texts(bot: Bot) -> list[tuple[str, Any]]:
    """(status, text) of each presence that Discord was told."""
    rows = bot.discord.view.bot("webster")["presences"]
    return [(row["status"], _text(row.get("activities") or row.get("game"))) for row in rows]


def _text(shown: Any) -> Any:
    one = shown[0] if isinstance(shown, list) and shown else shown
    return one.get("state") if one else None


async def test_it_comes_with_the_connection_and_is_not_sent_again(bot: Bot) -> None:
    await bot.channel.show("working", "reading drawings")
    await bot.connect()
    await bot.channel.show("working", "reading drawings")
    await asyncio.sleep(0.2)
    assert texts(bot) == [("online", "reading drawings")]


async def test_a_change_is_sent(bot: Bot) -> None:
    await bot.connect()
    await bot.channel.show("waiting", "for an approval")
    await bot.discord.wait_for(lambda view: len(texts(bot)) == 2)
    assert texts(bot)[-1] == ("idle", "for an approval")


async def test_a_new_session_keeps_the_newest(bot: Bot) -> None:
    await bot.connect()
    await bot.channel.show("paused", "out of money")
    await bot.discord.wait_for(lambda view: len(texts(bot)) == 2)
    bot.discord.invalidate("webster")
    await bot.discord.wait_for(lambda view: len(texts(bot)) == 3)
    assert texts(bot)[-1] == ("dnd", "out of money")


class TestThrottle:
    async def test_the_newest_of_many_after_fifteen_seconds(self) -> None:
        sent: list[Shown] = []
        arrived = asyncio.Event()
        time = Time()
        time.patient = True

        async def send(shown: Shown) -> None:
            sent.append(shown)
            arrived.set()

        presence = Presence(send, clock=time.now, sleep=time.sleep)
        presence.for_identify()
        serving = asyncio.create_task(presence.serve())
        for number in range(20):
            presence.show("working", f"step {number}")
        await asyncio.sleep(0.05)
        assert sent == []
        time.advance(14)
        await asyncio.sleep(0.05)
        assert sent == []
        time.advance(1.1)
        await asyncio.wait_for(arrived.wait(), 5)
        assert sent == [Shown("working", "step 19")]
        serving.cancel()

    async def test_what_changed_back_is_not_sent(self) -> None:
        sent: list[Shown] = []
        time = Time()

        async def send(shown: Shown) -> None:
            sent.append(shown)

        presence = Presence(send, clock=time.now, sleep=time.sleep)
        serving = asyncio.create_task(presence.serve())
        presence.show("working", "on it")
        presence.show("idle", "")
        await asyncio.sleep(0.1)
        assert sent == []
        serving.cancel()

    async def test_without_a_connection_it_waits_for_the_next(self) -> None:
        async def send(shown: Shown) -> None:
            raise NotConnected("away")

        time = Time()
        presence = Presence(send, clock=time.now, sleep=time.sleep)
        serving = asyncio.create_task(presence.serve())
        presence.show("working", "on it")
        await asyncio.sleep(0.1)
        assert not serving.done()
        assert presence.for_identify() == Shown("working", "on it")
        serving.cancel()
