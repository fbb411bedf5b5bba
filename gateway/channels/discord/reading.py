"""The library's objects as the records of the channel port."""

from __future__ import annotations

import re
from typing import Any

import discord

from gateway.channels.channel import Attachment, Author, Heard, Place
from protocols.targets import Target

SAID = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""Messages that somebody wrote; the others tell of joins, pins, threads and the like."""
_MENTION = re.compile(r"<(@!?|@&|#)([0-9]{15,21})>")

AnyChannel = Any
"""A channel, a thread, or what the library makes of one it does not know."""


def channel_target(ident: int | str) -> Target:
    return Target("discord", "channel", str(ident))


def user_target(ident: int | str) -> Target:
    return Target("discord", "user", str(ident))


def author_of(user: discord.abc.User, webhook: int | None = None) -> Author:
    return Author(target=user_target(user.id), name=user.display_name, bot=user.bot or webhook is not None)


def place_of(channel: AnyChannel, person: str = "", me: discord.abc.User | None = None) -> Place:
    """`person`: whom a direct channel is with, whose recipient the library often does not know."""
    target = channel_target(channel.id)
    if isinstance(channel, (discord.DMChannel, discord.GroupChannel)):
        return Place(target=target, kind="direct", name=person)
    guild = str(channel.guild_id if isinstance(channel, discord.PartialMessageable) else channel.guild.id)
    if isinstance(channel, discord.Thread):
        # The thread of a message has its id; one in a forum begins with a message of its own.
        own_start = channel.type is discord.ChannelType.private_thread or isinstance(
            channel.parent, discord.ForumChannel
        )
        return Place(
            target=target,
            kind="thread",
            name=channel.name,
            guild=guild,
            parent=channel_target(channel.parent_id),
            started_from=None if own_start else str(channel.id),
            ours=me is not None and channel.owner_id == me.id,
        )
    return Place(target=target, kind="channel", name=getattr(channel, "name", ""), guild=guild)


def heard(message: discord.Message, me: discord.ClientUser, place: Place | None = None) -> Heard:
    """One message. `place`, where the message's own channel does not say enough."""
    own = message.author.id == me.id
    reference = message.reference
    replied = reference.resolved if reference is not None else None
    reply_to = (
        str(reference.message_id)
        if reference is not None and reference.message_id and reference.type is discord.MessageReferenceType.reply
        else None
    )
    replies_to_me = isinstance(replied, discord.Message) and replied.author.id == me.id and reply_to is not None
    mentions_me = not own and (replies_to_me or mentions(message, me))
    files = [*message.attachments, *(file for shot in message.message_snapshots for file in shot.attachments)]
    return Heard(
        id=str(message.id),
        place=place or place_of(message.channel, "" if own else message.author.display_name, me),
        author=author_of(message.author, message.webhook_id),
        text=text_of(message, me, raw=own),
        at=message.created_at.timestamp(),
        own=own,
        mentions_me=mentions_me,
        to_others=not mentions_me and bool(message.mentions or message.role_mentions),
        reply_to=reply_to,
        attachments=[
            Attachment(
                id=str(file.id),
                name=file.filename,
                size=file.size,
                content_type=(file.content_type or "").partition(";")[0].strip().lower(),
                url=file.url,
            )
            for file in files
        ],
        forwarded="\n".join(shot.content for shot in message.message_snapshots if shot.content),
        nonce=None if message.nonce is None else str(message.nonce),
    )


def mentions(message: discord.Message, me: discord.ClientUser) -> bool:
    """By name, or by the role that Discord made for the bot, which people pick by mistake."""
    return any(user.id == me.id for user in message.mentions) or any(
        _is_ours(role, me) for role in message.role_mentions
    )


def _is_ours(role: discord.Role, me: discord.ClientUser) -> bool:
    return role.tags is not None and role.tags.bot_id == me.id


def text_of(message: discord.Message, me: discord.ClientUser, *, raw: bool = False) -> str:
    """What was written: mentions of this bot taken out, others by name as people see them. `raw`: as it is."""
    text = message.content
    if raw:
        return text
    names = {f"@{user.id}": f"@{user.display_name}" for user in message.mentions}
    names |= {f"&{role.id}": f"@{role.name}" for role in message.role_mentions}
    names |= {f"#{channel.id}": f"#{channel.name}" for channel in message.channel_mentions}
    ours = {f"@{me.id}"} | {f"&{role.id}" for role in message.role_mentions if _is_ours(role, me)}

    def name(found: re.Match[str]) -> str:
        key = {"#": "#", "@&": "&"}.get(found[1], "@") + found[2]
        return "" if key in ours else names.get(key, found[0])

    text = _MENTION.sub(name, text).strip()
    stickers = [f"[sticker: {sticker.name}]" for sticker in message.stickers]
    return "\n".join([*([text] if text else []), *stickers])
