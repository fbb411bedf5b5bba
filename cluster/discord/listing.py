"""The channels of a server, as the configuration wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import discord
import msgspec

from cluster.discord.bot import PORTAL, SECONDS, Bot, Trouble, explain
from cluster.discord.permits import Channel
from runtime.discord_token import clean_token


class ListedChannel(msgspec.Struct, kw_only=True):
    id: str
    name: str
    category: str
    """Empty: in none."""
    kind: str
    """`text`, `news`, `voice`, `forum` and the like, as the library calls them."""


class Listing(msgspec.Struct, kw_only=True):
    guild: str
    name: str
    channels: list[ListedChannel]
    """In the order of Discord's own list."""


async def list_channels(api_base: str, tokens: Sequence[tuple[str, str]], guild: str | None) -> Listing:
    """The server's channels, as the first bot that can sees them. `tokens`: (agent, token). `guild`: an id, or None for
    the only one there is. Raises Trouble with the reason of the last bot that could not."""
    trouble = Trouble(
        "no_token", "no agent has a bot yet", f"make one at {PORTAL}, then: atomizer secrets set AGENT discord"
    )
    for agent, token in tokens:
        async with Bot(api_base) as bot:
            try:
                async with asyncio.timeout(SECONDS):
                    await bot.login(clean_token(token))
                    return await _list(bot, guild)
            except Exception as error:  # the edge of one bot: the next one may do
                trouble = explain(error, agent)
    raise trouble


async def _list(bot: Bot, ident: str | None) -> Listing:
    if ident is None:
        there = [guild async for guild in bot.fetch_guilds(limit=20)]
        if len(there) != 1:
            known = ", ".join(f"{guild.id} ({guild.name})" for guild in there) or "none yet: invite it"
            mend = f"write guild = ... under [discord] in cluster.toml, or give --guild; {bot.me.name} is in {known}"
            raise Trouble("no_guild", "which server is not said", mend)
        ident = str(there[0].id)
    try:
        guild = await bot.fetch_guild(int(ident), with_counts=False)
    except (discord.NotFound, discord.Forbidden):
        mend = "atomizer discord check shows the invite link"
        raise Trouble("not_member", f"{bot.me.name} is not in the server {ident}", mend) from None
    channels = await guild.fetch_channels()
    categories = {channel.id: channel for channel in channels if isinstance(channel, discord.CategoryChannel)}

    def order(channel: Channel) -> tuple[int, int, int]:
        above = categories.get(channel.category_id or 0)
        return (above.position if above else -1, channel.position, channel.id)

    rows = sorted((channel for channel in channels if channel.id not in categories), key=order)
    return Listing(
        guild=ident,
        name=guild.name,
        channels=[
            ListedChannel(
                id=str(channel.id),
                name=channel.name,
                category=categories[channel.category_id].name if channel.category_id in categories else "",
                kind=str(channel.type),
            )
            for channel in rows
        ],
    )
