"""Slash commands and buttons: registered when they changed, acknowledged at once, handed on with a way to answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import discord

from gateway.channels.channel import ChannelError, Command, CommandSpec, Listener
from gateway.channels.discord import reading
from gateway.channels.discord.errors import Asking

if TYPE_CHECKING:
    from gateway.channels.discord.client import BotClient

log = logging.getLogger(__name__)

ACK_SECONDS = 3.0
"""Discord's: who has not acknowledged by then has failed."""
REPLY_SECONDS = 15.0
REPLY_LIMIT = 2000
STRING = 3
"""The type of a text option."""

NOT_OURS = "I do not take commands from this server. Ask the person who runs me to add it to `guilds`."


class Interactions:
    """Of one bot, over all its connections."""

    def __init__(self, listener: Listener, guilds: Callable[[], frozenset[str]]) -> None:
        self._listener = listener
        self._guilds = guilds
        self._tasks: set[asyncio.Task[None]] = set()

    def interacted(self, interaction: discord.Interaction[Any]) -> None:
        """Called for each; a task of its own, since the three seconds run whatever else goes on."""
        task = asyncio.create_task(self._take(interaction), name="a Discord command")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a Discord command was lost", exc_info=error)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, interaction: discord.Interaction[Any]) -> None:
        pressed = interaction.type is discord.InteractionType.component
        if not pressed and interaction.type is not discord.InteractionType.application_command:
            return
        try:
            async with Asking("acknowledging a command", ACK_SECONDS):
                await (interaction.response.defer() if pressed else interaction.response.defer(ephemeral=True))
            guilds = self._guilds()
            if interaction.guild_id is not None and guilds and str(interaction.guild_id) not in guilds:
                await _answer(interaction, NOT_OURS)
                return
        except ChannelError as error:
            log.warning("a Discord command was not taken: %s", error)
            return
        self._listener.commanded(_command(interaction, pressed))


def _command(interaction: discord.Interaction[Any], pressed: bool) -> Command:
    data: Any = interaction.data or {}
    if pressed:
        name, arguments = "button", {"id": str(data.get("custom_id", ""))}
    else:
        name = str(data.get("name", ""))
        arguments = {str(o["name"]): str(o["value"]) for o in data.get("options", ()) if "value" in o}
    channel: Any = interaction.channel
    if channel is None:
        channel = discord.PartialMessageable(
            state=interaction._state, id=interaction.channel_id or 0, guild_id=interaction.guild_id
        )
    author = reading.author_of(interaction.user)

    async def reply(text: str) -> None:
        await _answer(interaction, text)

    return Command(name, arguments, author, reading.place_of(channel, author.name), reply)


async def _answer(interaction: discord.Interaction[Any], text: str) -> None:
    """To the asker alone; raises ChannelError."""
    for start in range(0, max(1, len(text)), REPLY_LIMIT):
        async with Asking("answering a command", REPLY_SECONDS, once=True):
            await interaction.followup.send(text[start : start + REPLY_LIMIT] or "(nothing)", ephemeral=True)


async def sync(
    client: BotClient,
    commands: Sequence[CommandSpec],
    guilds: frozenset[str],
    recall: Callable[[str], str | None],
    remember: Callable[[str, str], Awaitable[None]],
) -> list[str]:
    """Register the commands in each of the bot's servers where they are not yet; what did not work, in sentences.

    Discord takes two hundred new commands a day, so a hash of what was registered is kept.
    """
    payload = [_described(spec) for spec in commands]
    digest = hashlib.sha256(json.dumps([client.application_id, payload]).encode()).hexdigest()[:32]
    failed: list[str] = []
    for guild in sorted(client.guilds, key=lambda guild: guild.id):
        name = f"discord:commands:{guild.id}"
        if (guilds and str(guild.id) not in guilds) or recall(name) == digest:
            continue
        try:
            async with Asking(f"registering the commands in {guild.name or guild.id}", 2 * client.limits.call):
                assert client.application_id is not None, "known since the login"
                await client.http.bulk_upsert_guild_commands(client.application_id, guild.id, payload)
        except ChannelError as error:
            failed.append(str(error))
        else:
            await remember(name, digest)
    return failed


def _described(spec: CommandSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description[:100],
        "type": 1,
        "options": [
            {
                "type": STRING,
                "name": option.name,
                "description": option.description[:100],
                "required": option.required,
                **({"choices": [{"name": c, "value": c} for c in option.choices]} if option.choices else {}),
            }
            for option in spec.options
        ],
    }
