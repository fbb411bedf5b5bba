"""What a bare id is: looked up once, at the edge, in the order of docs/discord.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import discord

from gateway.channels.channel import Refusal
from gateway.channels.discord.errors import Asking
from gateway.channels.discord.reading import channel_target, user_target
from protocols.targets import Target

if TYPE_CHECKING:
    from gateway.channels.discord.client import BotClient


async def resolve(client: BotClient, text: str, known: Callable[[str], Target | None]) -> Target:
    """What the bare id `text` (digits) is; raises ChannelError.

    `known(id)`: what our own records say. They come first, because Discord's ids do not tell: a server has the id of
    its role @everyone, a thread that of its first message. No access to a channel is an answer too, and ends the
    search: it is never looked for among the people.
    """
    target = channel_target(text)
    if (found := known(text)) is not None:
        return found
    ident = int(text)
    if client.get_guild(ident) is not None:
        raise Refusal("unknown_target", f"{text} is the id of a server, not of a channel in it")
    if (cached := client.get_channel(ident)) is not None:
        return _speakable(cached, target)
    try:
        async with Asking(f"looking for channel {text}", client.limits.call):
            return _speakable(await client.fetch_channel(ident), target)
    except Refusal as refusal:
        if refusal.reason != "unknown_target":
            raise
    try:
        async with Asking(f"looking for a person with id {text}", client.limits.call):
            user = await client.fetch_user(ident)
    except Refusal as refusal:
        if refusal.reason != "unknown_target":
            raise
        raise Refusal("unknown_target", f"Discord knows neither a channel nor a person with the id {text}") from refusal
    async with Asking(f"opening direct messages with {text}", client.limits.call):
        await client.create_dm(user)
    return user_target(ident)


def _speakable(channel: object, target: Target) -> Target:
    if isinstance(channel, (discord.CategoryChannel, discord.ForumChannel)):
        raise Refusal("unknown_target", f"{target.id} is a {channel.type}, in which nobody can write")
    return channel_target(target.id)
