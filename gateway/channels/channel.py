"""The channel port: what a gateway asks of a place where people talk, and what it hears from there.

The agent core knows nothing of Discord or Slack, only this page. An adapter turns its library's objects into the
records below and its library's errors into the four kinds of `ChannelError`; everything durable (what was heard, what
was posted) is kept by the parts above it, in the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import msgspec

from protocols.errors import AtomizerError
from protocols.status import ChannelStatus
from protocols.targets import Target

ChannelState = Literal["off", "connecting", "ready", "resuming", "degraded", "auth_failed", "intents_refused"]
"""`degraded`: the connection is lost and tried again; the last two wait for a person."""
Activity = Literal["idle", "working", "waiting", "paused"]
"""What an agent's presence shows."""


# -- what is heard ---------------------------------------------------------------------------------------------------


class Author(msgspec.Struct, frozen=True):
    """Who wrote: `target` is a person's address (`discord:user:<id>`)."""

    target: Target
    name: str
    """As people see it; text from outside, never trusted."""
    bot: bool = False
    """A bot or a webhook."""


class Place(msgspec.Struct, frozen=True):
    """Where it was written: `target` is always a channel (a direct message and a thread are channels of their own)."""

    target: Target
    kind: Literal["direct", "channel", "thread"]
    name: str = ""
    guild: str | None = None
    parent: Target | None = None
    """A thread's channel."""
    started_from: str | None = None
    """The id of the message a thread was made from, where there is one."""
    ours: bool = False
    """A thread that this bot made."""


class Attachment(msgspec.Struct, frozen=True):
    """A file that came with a message; its bytes are fetched only after size and type were looked at."""

    id: str
    name: str
    size: int
    """Bytes, as the provider says."""
    content_type: str
    url: str


class Heard(msgspec.Struct, frozen=True):
    """One message as it was heard, now or in the history."""

    id: str
    """The provider's id. Ids of one channel grow with time."""
    place: Place
    author: Author
    text: str
    """Plain text as written, mentions of this bot taken out."""
    at: float
    """Unix seconds."""
    own: bool = False
    """Written by this bot."""
    mentions_me: bool = False
    """By name, or as a reply to a message of this bot."""
    to_others: bool = False
    """It mentions somebody, and not this bot."""
    reply_to: str | None = None
    """The id of the message it answers."""
    attachments: list[Attachment] = []
    forwarded: str = ""
    """What others wrote elsewhere and its author passes on: no words of theirs."""
    nonce: str | None = None


class Command(msgspec.Struct, frozen=True):
    """A slash command or a pressed button, already acknowledged to the provider.

    `arguments` holds a slash command's options; a button's command is `button` with its `id` as the one argument.
    """

    name: str
    arguments: dict[str, str]
    author: Author
    place: Place
    reply: Callable[[str], Awaitable[None]]
    """Shows text to the asker alone. May be called more than once, for a quarter of an hour."""


class CommandOption(msgspec.Struct, frozen=True):
    """A value that comes with a slash command: text, or one of `choices`."""

    name: str
    description: str
    required: bool = False
    choices: tuple[str, ...] = ()


class CommandSpec(msgspec.Struct, frozen=True):
    """A slash command as it is offered to people."""

    name: str
    description: str
    """At most 100 characters."""
    options: tuple[CommandOption, ...] = ()


class Listener(Protocol):
    """What hears a channel. No method may take long or raise: each hands its work on."""

    def heard(self, message: Heard) -> None: ...

    def edited(self, place: Target, message_id: str, text: str) -> None: ...

    def deleted(self, place: Target, message_id: str) -> None: ...

    def commanded(self, command: Command) -> None: ...

    def connected(self, gap: bool) -> None:
        """The connection stands (again). `gap`: what was said meanwhile was not replayed and must be read up on."""
        ...


# -- what is said ----------------------------------------------------------------------------------------------------


MAX_UPLOAD = 8_000_000
"""Bytes of all files of one message; Discord takes ten million from a bot."""


class Upload(msgspec.Struct, frozen=True):
    """A file that goes out."""

    name: str
    data: bytes


class Button(msgspec.Struct, frozen=True):
    """`id` comes back when it is pressed: at most 100 characters."""

    id: str
    label: str
    style: Literal["good", "bad", "plain"] = "plain"


class Post(msgspec.Struct, frozen=True):
    """One message: at most `Channel.limit` characters."""

    text: str
    nonce: str | None = None
    """At most 25 characters. A repeat within a few minutes gets the first message back and posts nothing."""
    reply_to: str | None = None
    """Id of a message in the same channel; if that is gone, the post simply answers nothing."""
    files: Sequence[Upload] = ()
    buttons: Sequence[Button] = ()


class Posted(msgspec.Struct, frozen=True):
    """Where a post stands: `place` is a channel (for a person, that of the direct messages)."""

    place: Target
    message_id: str


class ChannelError(AtomizerError):
    """A call to the provider that did not work; one of the four below."""


class Unreachable(ChannelError):
    """Nothing was done: no connection, a limit, a broken server. Worth trying again, after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Uncertain(ChannelError):
    """The request went out and no answer came: it may have been done."""


class Refusal(ChannelError):
    """It will never work as it stands. `reason` says what to do next."""

    def __init__(
        self,
        reason: Literal["no_access", "direct_refused", "unknown_target", "unknown_message", "too_old", "other"],
        message: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason


class NotConnected(Unreachable):
    """The channel is not connected."""


class Channel(Protocol):
    """One bot on one provider."""

    provider: str
    limit: int
    """Characters one message may have."""

    @property
    def ready(self) -> bool:
        """Can it speak now?"""
        ...

    def status(self) -> ChannelStatus: ...

    async def serve(self) -> None:
        """Keep the connection, until cancelled. Never raises for what the provider does."""
        ...

    async def resolve(self, text: str) -> Target:
        """A typed target, or a bare id in the order of docs/discord.md; raises ChannelError."""
        ...

    async def send(self, to: Target, post: Post) -> Posted: ...

    async def edit(self, posted: Posted, text: str, buttons: Sequence[Button] = ()) -> None: ...

    async def delete(self, posted: Posted) -> None:
        """One that is gone already is no error."""
        ...

    async def react(self, place: Target, message_id: str, emoji: str) -> None: ...

    async def unreact(self, place: Target, message_id: str, emoji: str) -> None: ...

    async def typing(self, to: Target) -> None:
        """Shows for ten seconds."""
        ...

    async def start_thread(self, place: Target, message_id: str | None, name: str) -> Target:
        """A thread on a message, or the one it has; without a message, one of its own. Raises ChannelError.

        Where it is known that nothing could be written in it, none is made: `Refusal` "no_access".
        """
        ...

    async def end_thread(self, thread: Target) -> None:
        """Remove a thread that this bot made, or put it out of sight where removing is not permitted."""
        ...

    async def history(
        self, place: Target, *, after: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Heard]:
        """The newest messages, or the first after an id or a time (unix seconds); oldest first.

        `place` may be a person: then it is the direct messages with them. Own messages keep their text as it is.
        Raises ChannelError.
        """
        ...

    async def fetch(self, attachment: Attachment, most: int) -> bytes:
        """At most so many bytes; raises ChannelError (`Refusal` if it is larger)."""
        ...

    async def show(self, activity: Activity, text: str) -> None:
        """The agent's presence; throttled by the adapter, the newest wins."""
        ...

    async def sync(self, commands: Sequence[CommandSpec]) -> None:
        """These are the slash commands: registered with this and every later connection, where they changed."""
        ...
