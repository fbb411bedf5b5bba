"""What people do: say, edit, delete, react, type, open threads."""

from __future__ import annotations

import base64
import mimetypes
from typing import Any

from tests.standins.discord import permissions
from tests.standins.discord.actions import Actions, action
from tests.standins.discord.model import Attachment, Channel


class Humans(Actions):
    @action
    def say(
        self,
        channel: str,
        user: str,
        text: str,
        reply_to: str | None = None,
        attachments: dict[str, str] | None = None,
        mentions: list[str] | None = None,
        ping: bool = True,
    ) -> str:
        """A message by `user` (a bot too, for a stranger's bot); answers its id.

        attachments: file name -> content; a value that starts with `base64:` is bytes. mentions: put before the text.
        ping: whether a reply mentions the one replied to, as it does unless the human switches it off.
        """
        where, who = self.find_channel(channel), self.find_user(user)
        return self._say(where, who.id, text, reply_to, attachments, mentions, ping)

    @action
    def dm(
        self,
        user: str,
        bot: str,
        text: str,
        reply_to: str | None = None,
        attachments: dict[str, str] | None = None,
    ) -> str:
        """A direct message from a person to a bot; answers its id."""
        where = self.state.dm_between(self.find_user(user).id, self.find_bot(bot).user_id)
        return self._say(where, self.find_user(user).id, text, reply_to, attachments, None, True)

    @action
    def dm_channel(self, user: str, bot: str) -> str:
        """The id of their DM channel."""
        return self.state.dm_between(self.find_user(user).id, self.find_bot(bot).user_id).id

    def _say(
        self,
        where: Channel,
        who: str,
        text: str,
        reply_to: str | None,
        attachments: dict[str, str] | None,
        mentions: list[str] | None,
        ping: bool,
    ) -> str:
        need = "send_messages" if where.parent_id is None or where.type < 10 else "send_messages_in_threads"
        if not permissions.has(self.state.may(who, where), need):
            raise LookupError(f"{self.state.users[who].username} may not write in {where.name or where.id}")
        files = [self._file(where.id, name, data) for name, data in (attachments or {}).items()]
        words = " ".join([*(f"<@{self.find_user(one).id}>" for one in mentions or []), text])
        reference: dict[str, Any] | None = None
        if reply_to is not None:
            assert self.state.message(where.id, reply_to), f"no message {reply_to} in this channel"
            reference = {"type": 0, "channel_id": where.id, "message_id": str(reply_to)}
            reference |= {"guild_id": where.guild_id} if where.guild_id else {}
        allowed = None if ping else {"parse": ["users", "roles", "everyone"], "replied_user": False}
        return self.changes.send(where, who, words, files=files, reference=reference, allowed=allowed).id

    def _file(self, channel: str, name: str, data: str) -> Attachment:
        content = base64.b64decode(data[7:]) if data.startswith("base64:") else data.encode()
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        return Attachment(self.state.snowflake(), channel, name, kind, content)

    @action
    def webhook_say(self, channel: str, name: str, text: str) -> str:
        """A message that some integration posts under this name; answers its id."""
        where = self.find_channel(channel)
        author = next((u for u in self.state.users.values() if u.username == name), None)
        author = author or self.state.new_user(name, bot=True)
        return self.changes.send(where, author.id, text, webhook=author.id).id

    @action
    def edit(self, message: str, text: str) -> None:
        self.changes.edit(self.find_message(message), {"content": text}, [])

    @action
    def delete(self, message: str, by: str | None = None) -> None:
        """By its author unless `by` names somebody."""
        found = self.find_message(message)
        self.changes.delete(found, self.find_user(by).id if by else found.author_id)

    @action
    def react(self, message: str, user: str, emoji: str) -> None:
        self.changes.react(self.find_message(message), self.find_user(user).id, emoji, True)

    @action
    def unreact(self, message: str, user: str, emoji: str) -> None:
        self.changes.react(self.find_message(message), self.find_user(user).id, emoji, False)

    @action
    def type(self, channel: str, user: str) -> None:
        self.changes.typing(self.find_channel(channel), self.find_user(user).id)

    @action
    def start_thread(self, user: str, name: str, channel: str | None = None, on: str | None = None) -> str:
        """In a channel, or on a message; answers the thread's id."""
        message = self.find_message(on) if on is not None else None
        assert message is not None or channel is not None, "a channel or a message is needed"
        parent = self.find_channel(message.channel_id if message is not None else str(channel))
        return self.changes.start_thread(parent, self.find_user(user).id, name, on=message).id
