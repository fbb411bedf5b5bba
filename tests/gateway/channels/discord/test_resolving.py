"""A bare id, in the order in which it is looked up; each test counts what Discord was asked."""

from __future__ import annotations

import pytest

from gateway.channels.channel import NotConnected, Refusal, Unreachable
from protocols.targets import Target
from tests.gateway.channels.discord.conftest import Bot

NOBODY = "123456789012345678"


@pytest.fixture
async def on(bot: Bot) -> Bot:
    await bot.connect()
    return bot


def asked(bot: Bot) -> list[str]:
    """What Discord was asked since the login, without ids."""
    rows = bot.discord.view.requests()[2:]
    return [f"{row['method']} {'/'.join(p for p in row['path'].split('/') if not p.isdigit())}" for row in rows]


async def test_a_typed_target_is_taken_as_it_is(on: Bot) -> None:
    assert await on.channel.resolve(f"discord:user:{NOBODY}") == Target("discord", "user", NOBODY)
    assert asked(on) == []


async def test_our_own_records_come_first_and_need_no_connection(bot: Bot) -> None:
    bot.known[NOBODY] = Target("discord", "user", NOBODY)
    assert await bot.channel.resolve(NOBODY) == bot.known[NOBODY]
    with pytest.raises(NotConnected):
        await bot.channel.resolve("123456789012345679")


async def test_a_channel_that_is_known_is_not_asked_for(on: Bot) -> None:
    assert await on.channel.resolve(on.place("webster").id) == on.place("webster")
    assert asked(on) == []


async def test_a_thread_is_a_channel(on: Bot) -> None:
    thread = on.discord.start_thread("antoine", "talk", channel="webster")
    on.discord.archive(thread)  # so that it is not among those that are known
    said = on.discord.say("webster", "antoine", "now")
    await on.ear.until(lambda: [m for m in on.ear.messages if m.id == said])
    assert await on.channel.resolve(thread) == Target("discord", "channel", thread)
    assert asked(on) == ["GET /channels"]


async def test_a_channel_that_may_not_be_seen_ends_the_search(on: Bot) -> None:
    other = on.discord.add_guild("Elsewhere")
    hidden = on.discord.add_channel("secret", guild=other)
    with pytest.raises(Refusal) as refused:
        await on.channel.resolve(hidden)
    assert refused.value.reason == "no_access"
    assert asked(on) == ["GET /channels"], "it is not looked for among the people"


async def test_a_person(on: Bot) -> None:
    assert await on.channel.resolve(on.person().id) == on.person()
    assert asked(on) == ["GET /channels", "GET /users", "POST /users/@me/channels"]


async def test_nobody(on: Bot) -> None:
    with pytest.raises(Refusal, match="neither a channel nor a person") as refused:
        await on.channel.resolve(NOBODY)
    assert refused.value.reason == "unknown_target"
    assert asked(on) == ["GET /channels", "GET /users"]


async def test_a_server_is_no_channel(on: Bot) -> None:
    with pytest.raises(Refusal, match="server"):
        await on.channel.resolve(on.world["guild"])
    assert asked(on) == []


async def test_a_message_is_no_channel(on: Bot) -> None:
    said = on.discord.say("webster", "antoine", "hello")
    with pytest.raises(Refusal) as refused:
        await on.channel.resolve(said)
    assert refused.value.reason == "unknown_target"


async def test_a_category_is_no_place_to_write_in(on: Bot) -> None:
    category = next(row["id"] for row in on.discord.view.channels() if row["type"] == 4)
    with pytest.raises(Refusal, match="nobody can write"):
        await on.channel.resolve(category)


@pytest.mark.parametrize("text", ["", "general", "12", "discord:channel:1", "slack:channel:C12345", "discord:role:1"])
async def test_what_is_no_target(on: Bot, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        await on.channel.resolve(text)
    assert refused.value.reason == "unknown_target"
    assert asked(on) == []


async def test_a_server_that_breaks_answers_nothing(on: Bot) -> None:
    on.discord.fault("GET", "/channels/*", status=502)
    with pytest.raises(Unreachable):
        await on.channel.resolve(on.person().id)
    assert asked(on) == ["GET /channels"], "who is asked next would depend on chance"
