"""What changes messages and threads, whoever asks (a bot over REST or a human in a test), and tells the gateway."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.standins.discord import permissions, wire
from tests.standins.discord.model import (
    EPHEMERAL,
    HAS_THREAD,
    LOADING,
    PRIVATE_THREAD,
    PUBLIC_THREAD,
    THREADS,
    Application,
    Attachment,
    Channel,
    Message,
    Refused,
    invalid,
)
from tests.standins.discord.state import State

CONTENT_LIMIT = 2000
NONCE_LIMIT = 25
EMOJIS_PER_MESSAGE = 20
SYSTEM = (18, 21)
"""Messages that Discord makes itself: a thread was created, what a thread begins with."""
GUILDS = 1 << 0
MESSAGES, REACTIONS, TYPING = (1 << 9, 1 << 12), (1 << 10, 1 << 13), (1 << 11, 1 << 14)
"""The intents that bring these events: (in guilds, in DMs)."""

Build = Callable[[Application, bool], dict[str, Any]]
"""The payload for one bot; the flag says whether it may read contents."""
Publish = Callable[[str, Channel, tuple[int, int], Build], None]


class Changes:
    def __init__(self, state: State) -> None:
        self.state = state
        self.publish: Publish = lambda event, channel, intents, build: None
        """Set by the gateway."""

    # --- messages

    def send(
        self,
        channel: Channel,
        author: str,
        content: str = "",
        *,
        files: list[Attachment] | None = None,
        embeds: list[dict[str, Any]] | None = None,
        components: list[dict[str, Any]] | None = None,
        reference: dict[str, Any] | None = None,
        nonce: str | None = None,
        enforce_nonce: bool = False,
        allowed: dict[str, Any] | None = None,
        flags: int = 0,
        interaction: dict[str, Any] | None = None,
        webhook: str | None = None,
        type: int | None = None,
    ) -> Message:
        """Store and announce a message. With a nonce that this author used lately, the first message is given."""
        state = self.state
        now = state.clock.now()
        if nonce is not None and len(nonce) > NONCE_LIMIT:
            raise invalid("nonce", "BASE_TYPE_MAX_LENGTH", f"Must be {NONCE_LIMIT} or fewer in length.")
        if nonce is not None and enforce_nonce:
            at, where, known = state.nonces.get((author, nonce), (float("-inf"), "", ""))
            if now - at < state.nonce_seconds:
                state.record("nonce_repeated", author, channel=where, message=known, nonce=nonce)
                if known in state.channels[where].messages:
                    return state.channels[where].messages[known]
                return Message(known, where, author, "", now, nonce=nonce)  # the message that is gone
        self._check_content(content, files, embeds, components, system=type in SYSTEM or bool(flags & LOADING))
        if channel.type in THREADS and channel.archived and type not in SYSTEM:
            if channel.locked:
                raise Refused(400, 50083, "Thread is archived")
            self.archive(channel, False)
        made = Message(state.snowflake(), channel.id, author, content, now, flags=flags, nonce=nonce)
        made.type = type if type is not None else 19 if reference is not None else 0
        made.attachments, made.embeds, made.components = files or [], embeds or [], components or []
        made.reference, made.interaction, made.webhook_id, made.allowed_mentions = (
            reference,
            interaction,
            webhook,
            allowed,
        )
        self._mention(made, channel)
        channel.messages[made.id] = made
        state.uploads |= {file.id: file for file in made.attachments}
        if nonce is not None:
            state.nonces[author, nonce] = (now, channel.id, made.id)
        if not flags & EPHEMERAL:
            self._publish_message("MESSAGE_CREATE", channel, made)
        state.record("sent", author, channel=channel.id, message=made.id, content=content, nonce=nonce)
        return made

    def edit(self, message: Message, changes: dict[str, Any], files: list[Attachment]) -> Message:
        """Of `content`, `embeds`, `components`, `attachments` (those kept), what is given is replaced."""
        state = self.state
        channel = state.channels[message.channel_id]
        if channel.archived:
            raise Refused(400, 50083, "Thread is archived")
        content = message.content if "content" not in changes else changes["content"] or ""
        kept = message.attachments
        if changes.get("attachments") is not None:
            wanted = {str(row["id"]) for row in changes["attachments"]}
            kept = [a for a in kept if a.id in wanted]
        embeds = message.embeds if "embeds" not in changes else changes["embeds"] or []
        components = message.components if "components" not in changes else changes["components"] or []
        self._check_content(content, [*kept, *files], embeds, components)
        message.content, message.embeds, message.components = content, embeds, components
        message.attachments = [*kept, *files]
        state.uploads |= {file.id: file for file in files}
        if "flags" in changes:
            message.flags = message.flags & (EPHEMERAL | HAS_THREAD) | (changes["flags"] or 0)
        message.edited = state.clock.now()
        message.edits.append((message.edited, content))
        if not message.flags & EPHEMERAL:
            self._publish_message("MESSAGE_UPDATE", channel, message)
        state.record("edited", message.author_id, channel=channel.id, message=message.id, content=content)
        return message

    def delete(self, message: Message, by: str) -> None:
        channel = self.state.channels[message.channel_id]
        message.deleted = self.state.clock.now()
        body = {"id": message.id, "channel_id": channel.id} | _guild(channel)
        if not message.flags & EPHEMERAL:
            self.publish("MESSAGE_DELETE", channel, MESSAGES, lambda app, reads: body)
        self.state.record("deleted", by, channel=channel.id, message=message.id)

    def react(self, message: Message, user: str, emoji: str, add: bool) -> None:
        """Put or take back one reaction; nothing happens where it is so already."""
        channel = self.state.channels[message.channel_id]
        if channel.archived:
            raise Refused(400, 50083, "Thread is archived")
        if emoji.isascii() and not re.fullmatch(r"\w+:\d+", emoji):
            raise Refused(400, 10014, "Unknown Emoji")
        who = message.reactions.get(emoji, [])
        if add == (user in who):
            return
        if add:
            if not who:
                if len(message.reactions) >= EMOJIS_PER_MESSAGE:
                    raise Refused(403, 30010, f"Maximum number of reactions reached ({EMOJIS_PER_MESSAGE})")
                self.state.allowed_channel(channel.id, user, "add_reactions")
            message.reactions.setdefault(emoji, []).append(user)
        else:
            who.remove(user)
            if not who:
                del message.reactions[emoji]
        body = {
            "user_id": user,
            "channel_id": channel.id,
            "message_id": message.id,
            "emoji": wire.emoji(emoji),
            "type": 0,
            "burst": False,
        } | _guild(channel)
        if add:
            body["message_author_id"] = message.author_id
            if channel.guild_id is not None and user in (members := self.state.guilds[channel.guild_id].members):
                body["member"] = wire.member(self.state, members[user])
        name = "MESSAGE_REACTION_ADD" if add else "MESSAGE_REACTION_REMOVE"
        self.publish(name, channel, REACTIONS, lambda app, reads: body)
        kind = "reacted" if add else "unreacted"
        self.state.record(kind, user, channel=channel.id, message=message.id, emoji=emoji)

    def typing(self, channel: Channel, user: str) -> None:
        body = {"channel_id": channel.id, "user_id": user, "timestamp": int(self.state.clock.now())} | _guild(channel)
        if channel.guild_id is not None and user in (members := self.state.guilds[channel.guild_id].members):
            body["member"] = wire.member(self.state, members[user])
        self.publish("TYPING_START", channel, TYPING, lambda app, reads: body)
        self.state.record("typed", user, channel=channel.id)

    # --- threads

    def start_thread(
        self,
        parent: Channel,
        owner: str,
        name: str,
        *,
        on: Message | None = None,
        type: int = PUBLIC_THREAD,
        minutes: int = 1440,
    ) -> Channel:
        """A thread made from a message has its id."""
        state = self.state
        if not 1 <= len(name) <= 100:
            raise invalid("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
        if on is not None and on.id in state.channels:
            raise Refused(400, 160004, "A thread has already been created for this message")
        assert parent.guild_id is not None
        thread = state.new_channel(
            state.guilds[parent.guild_id], name, type, parent.id, on.id if on is not None else None
        )
        thread.owner_id, thread.auto_archive_duration = owner, minutes
        thread.archive_changed = state.clock.now()
        thread.thread_members[owner] = thread.archive_changed
        self.announce_channel("THREAD_CREATE", thread, newly_created=True)
        state.record("thread", owner, channel=parent.id, thread=thread.id, name=name, message=on.id if on else None)
        pointer = {"type": 0, "guild_id": parent.guild_id, "channel_id": parent.id}
        if on is not None:
            on.flags |= HAS_THREAD
            self._publish_message("MESSAGE_UPDATE", parent, on)
            self.send(thread, owner, type=21, reference=pointer | {"message_id": on.id})
        elif type != PRIVATE_THREAD:
            self.send(parent, owner, name, type=18, reference=pointer | {"channel_id": thread.id})
        return thread

    def archive(self, thread: Channel, archived: bool, locked: bool | None = None) -> None:
        thread.archived = archived
        thread.locked = thread.locked if locked is None else locked
        thread.archive_changed = self.state.clock.now()
        self.announce_channel("THREAD_UPDATE", thread)

    def announce_channel(self, event: str, channel: Channel, **more: Any) -> None:
        state = self.state
        self.publish(event, channel, (GUILDS, 0), lambda app, reads: wire.channel(state, channel, app.user_id) | more)
        state.changed()

    # --- inside

    def _publish_message(self, event: str, channel: Channel, message: Message) -> None:
        self.publish(event, channel, MESSAGES, lambda app, reads: wire.message_event(self.state, message, app, reads))

    def _check_content(self, content: str, files: Any, embeds: Any, components: Any, system: bool = False) -> None:
        if len(content) > CONTENT_LIMIT:
            raise invalid("content", "BASE_TYPE_MAX_LENGTH", f"Must be {CONTENT_LIMIT} or fewer in length.")
        if not system and not content.strip() and not files and not embeds and not components:
            raise Refused(400, 50006, "Cannot send an empty message")

    def _mention(self, message: Message, channel: Channel) -> None:
        """Who is pinged: what the content names, as far as allowed_mentions lets it, and the one replied to."""
        allowed = message.allowed_mentions
        parse = set((allowed or {}).get("parse", ["users", "roles", "everyone"] if allowed is None else []))
        named = {str(id) for id in (allowed or {}).get("users", [])}
        found = dict.fromkeys(re.findall(r"<@!?(\d+)>", message.content))
        message.mentions = [id for id in found if id in self.state.users and ("users" in parse or id in named)]
        if message.type == 19 and message.reference is not None:
            source = self.state.message(message.reference["channel_id"], message.reference["message_id"])
            pings = (allowed or {}).get("replied_user", allowed is None)
            if source is not None and pings and source.author_id not in message.mentions:
                message.mentions.append(source.author_id)
        if channel.guild_id is None:
            return
        guild = self.state.guilds[channel.guild_id]
        roles = [id for id in re.findall(r"<@&(\d+)>", message.content) if id in guild.roles]
        message.mention_roles = roles if "roles" in parse else []
        everyone = permissions.has(self.state.may(message.author_id, channel), "mention_everyone")
        asks = re.search(r"@(everyone|here)\b", message.content) is not None
        message.mention_everyone = everyone and asks and "everyone" in parse


def _guild(channel: Channel) -> dict[str, Any]:
    return {"guild_id": channel.guild_id} if channel.guild_id is not None else {}
