"""A bare discord.py client against the stand-in, as the product would set it up, that remembers what came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import discord
import pytest
import yarl

from tests.standins.discord import DiscordServer

READS = discord.Intents(
    guilds=True,
    guild_messages=True,
    dm_messages=True,
    guild_reactions=True,
    dm_reactions=True,
    message_content=True,
)
BLIND = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)


class Bot(discord.Client):
    def __init__(self, intents: discord.Intents = READS, **options: Any) -> None:
        super().__init__(
            intents=intents,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_mentions=discord.AllowedMentions.none(),
            guild_ready_timeout=0.2,
            **options,
        )
        self.heard: list[discord.Message] = []
        self.reactions: list[discord.RawReactionActionEvent] = []
        self.interactions: list[discord.Interaction] = []
        self.resumed = 0
        self.connects = 0
        self.changed = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    async def on_message(self, message: discord.Message) -> None:
        self.heard.append(message)
        self.changed.set()

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        self.reactions.append(event)
        self.changed.set()

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.append(interaction)
        self.changed.set()

    async def on_connect(self) -> None:
        self.connects += 1
        self.changed.set()

    async def on_resumed(self) -> None:
        self.resumed += 1
        self.changed.set()

    async def until(self, holds: Callable[[], Any], seconds: float = 10.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := holds()):
                self.changed.clear()
                await self.changed.wait()
        return found

    async def ended(self, seconds: float = 10.0) -> BaseException | None:
        """What `start` ended with."""
        assert self.running is not None
        await asyncio.wait([self.running], timeout=seconds)
        assert self.running.done(), "the client goes on"
        return self.running.exception()

    @property
    def texts(self) -> list[str]:
        return [message.content for message in self.heard]


@contextlib.asynccontextmanager
async def starting(token: str, bot: Bot | None = None) -> AsyncIterator[Bot]:
    """A client that logs in and connects; it may fail to."""
    client = bot or Bot()
    async with client:
        client.running = asyncio.create_task(client.start(token))
        yield client
    if not client.running.done():
        client.running.cancel()
    await asyncio.wait([client.running], timeout=10)


@contextlib.asynccontextmanager
async def connected(token: str, bot: Bot | None = None) -> AsyncIterator[Bot]:
    """A client that is ready."""
    async with starting(token, bot) as client:
        assert client.running is not None
        ready = asyncio.create_task(client.wait_until_ready())
        await asyncio.wait([ready, client.running], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), f"not ready: {client.running}"
        yield client


def point_at(server: DiscordServer, patch: pytest.MonkeyPatch) -> None:
    """Have discord.py of this process speak to the stand-in."""
    patch.setattr(discord.http.Route, "BASE", server.api_base)
    patch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(server.gateway_url))
    patch.setattr(discord.Asset, "BASE", server.cdn)
