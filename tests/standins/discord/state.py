"""Everything this Discord holds, and the lookups with the refusals that Discord gives. Changing it is `changes.py`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

from tests.standins.discord import permissions
from tests.standins.discord.model import (
    DISCORD_EPOCH_MS,
    DM,
    THREADS,
    Application,
    Attachment,
    Channel,
    Clock,
    Guild,
    Interaction,
    Member,
    Message,
    Refused,
    Role,
    User,
)

NONCE_SECONDS = 300.0
"""How long a nonce is remembered: Discord says "the past few minutes"."""


class State:
    """One Discord. Not for several threads: everything happens on the server's loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.users: dict[str, User] = {}
        self.guilds: dict[str, Guild] = {}
        self.channels: dict[str, Channel] = {}
        """All of them: of guilds, threads and DMs."""
        self.applications: dict[str, Application] = {}
        self.interactions: dict[str, Interaction] = {}
        self.files: dict[str, bytes] = {}
        """What the CDN serves beyond attachments, by path."""
        self.uploads: dict[str, Attachment] = {}
        self.nonces: dict[tuple[str, str], tuple[float, str, str]] = {}
        """(author, nonce) -> when, channel id, message id."""
        self.nonce_seconds = NONCE_SECONDS
        self.events: list[dict[str, Any]] = []
        """What happened, in order; see `record`."""
        self.requests: list[dict[str, Any]] = []
        self.rows: dict[str, tuple[Any, dict[str, Any]]] = {}
        """Messages as a View shows them, by id; `view.py` keeps them here."""
        self.cdn = ""
        self.version = 0
        self._changed = asyncio.Event()
        self._last_id = 0

    # --- what a test watches

    def record(self, kind: str, author: str | None = None, **more: Any) -> None:
        """Note that something happened; `author` is a user id."""
        name = self.users[author].username if author in self.users else None
        row = {"kind": kind, "time": self.clock.now(), "author_id": author, "author": name, **more}
        self.events.append({key: value for key, value in row.items() if value is not None})
        self.changed()

    def changed(self) -> None:
        """Wake those that wait for a change."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_change(self, after: int) -> None:
        """Until `version` is beyond `after`."""
        while self.version <= after:
            await self._changed.wait()

    # --- ids and lookups

    def snowflake(self) -> str:
        """A new id: of now, and above every earlier one."""
        at = (int(self.clock.now() * 1000) - DISCORD_EPOCH_MS) << 22
        self._last_id = max(at, self._last_id + 1)
        return str(self._last_id)

    def application(self, id: str) -> Application:
        return self.applications[id]

    def by_token(self, token: str) -> Application | None:
        """The bot of this token, if it is valid."""
        found = [app for app in self.applications.values() if app.token == token and not app.revoked]
        return found[0] if found else None

    def guilds_of(self, user: str) -> list[Guild]:
        return [guild for guild in self.guilds.values() if user in guild.members]

    def message(self, channel: str, id: str) -> Message | None:
        """A message that is not deleted."""
        where = self.channels.get(str(channel))
        found = where.messages.get(str(id)) if where else None
        return found if found and found.deleted is None else None

    def user(self, id: str) -> User:
        if id not in self.users:
            raise Refused(404, 10013, "Unknown User")
        return self.users[id]

    # --- permissions

    def may(self, user: str, channel: Channel) -> int:
        """What `user` may in `channel`, as bits."""
        if channel.guild_id is None:
            return permissions.ALL if user in channel.recipients else 0
        return permissions.in_channel(self.guilds[channel.guild_id], channel, user)

    def seen_channel(self, id: str, user: str) -> Channel:
        """The channel, or 404 10003, or 403 50001."""
        found = self.channels.get(id)
        if found is None:
            raise Refused(404, 10003, "Unknown Channel")
        if not self.may(user, found):
            raise Refused(403, 50001, "Missing Access")
        return found

    def allowed_channel(self, id: str, user: str, *needs: str) -> Channel:
        """The channel in which `user` has all of `needs`, or 403 50013."""
        found = self.seen_channel(id, user)
        value = self.may(user, found)
        for name in needs:
            if name == "send_messages" and found.type in THREADS:
                name = "send_messages_in_threads"
            if not permissions.has(value, name):
                raise Refused(403, 50013, "Missing Permissions")
        return found

    def seen_message(self, channel: Channel, id: str, user: str) -> Message:
        """The message, or 404 10008, or 403 50013 without the permission to read the history."""
        if not permissions.has(self.may(user, channel), "read_message_history"):
            raise Refused(403, 50013, "Missing Permissions")
        found = self.message(channel.id, id)
        if found is None:
            raise Refused(404, 10008, "Unknown Message")
        return found

    def member_guild(self, id: str, user: str) -> Guild:
        if id not in self.guilds:
            raise Refused(404, 10004, "Unknown Guild")
        if user not in self.guilds[id].members:
            raise Refused(403, 50001, "Missing Access")
        return self.guilds[id]

    # --- furniture, without checks: a test sets up what it likes

    def new_user(self, name: str, id: str | None = None, bot: bool = False) -> User:
        made = User(id or self.snowflake(), name, bot, None if bot else name.title())
        self.users[made.id] = made
        return made

    def new_guild(self, name: str, owner: User, id: str | None = None) -> Guild:
        made = Guild(id or self.snowflake(), name, owner.id)
        made.roles[made.id] = Role(made.id, "@everyone", permissions.EVERYONE)
        self.guilds[made.id] = made
        self.join(made, owner)
        return made

    def join(self, guild: Guild, user: User, roles: list[str] | None = None) -> Member:
        guild.members[user.id] = Member(user.id, self.clock.now(), list(roles or []))
        return guild.members[user.id]

    def new_channel(
        self, guild: Guild, name: str, type: int, parent: str | None = None, id: str | None = None
    ) -> Channel:
        made = Channel(id or self.snowflake(), type, name, guild.id, parent, position=len(guild.channels))
        self.channels[made.id] = guild.channels[made.id] = made
        return made

    def new_application(self, name: str, owner: User, token: str | None = None, id: str | None = None) -> Application:
        user = self.new_user(name, id, bot=True)
        secret = hashlib.sha256(f"{name}{user.id}".encode()).hexdigest()
        head = base64.urlsafe_b64encode(user.id.encode()).decode().rstrip("=")
        made = Application(user.id, name, token or f"{head}.{secret[:6]}.{secret[6:44]}", user.id, owner.id)
        self.applications[made.id] = made
        return made

    def dm_between(self, one: str, other: str) -> Channel:
        """Their DM channel; made if there is none."""
        for channel in self.channels.values():
            if channel.type == DM and set(channel.recipients) == {one, other}:
                return channel
        made = Channel(self.snowflake(), DM, recipients=[one, other])
        self.channels[made.id] = made
        return made
