"""A channel held in memory: the port as its adapters promise it, with nonces that are forgotten and faults to order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from gateway.channels.channel import (
    Activity,
    Attachment,
    Author,
    Button,
    Heard,
    NotConnected,
    Place,
    Post,
    Posted,
    Refusal,
)
from protocols.status import ChannelStatus
from protocols.targets import Target, TargetError, parse_target

NONCE_SECONDS = 180.0
BOT = "900000000000000001"

Fault = tuple[Literal["before", "after"], BaseException]
"""When a call fails: before anything was done, or after it was done and its answer was lost."""


class Message(msgspec.Struct):
    """A message as it stands in a channel."""

    id: str
    place: Target
    author: Target
    text: str
    at: float
    nonce: str | None = None
    reply_to: str | None = None
    files: list[str] = []
    buttons: list[Button] = []
    reactions: list[str] = []
    edits: int = 0


class MemoryChannel:
    """One bot among people; `messages` is everything that was posted and not deleted, oldest first."""

    provider = "discord"
    limit = 2000

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.messages: list[Message] = []
        self.deleted: list[Message] = []
        self.calls: list[str] = []
        self.typed: list[Target] = []
        self.shown: list[tuple[str, str]] = []
        self.threads: list[Target] = []
        self.is_ready = True
        self.refuses_direct: set[Target] = set()
        self.blind = False
        """The bot may not read a history, and is shown an empty one."""
        self.hidden: set[Target] = set()
        """Channels the bot may not see or write."""
        self._faults: dict[str, list[Fault]] = {}
        self._next_id = 1_400_000_000_000_000_000
        self._changed = asyncio.Event()

    # -- what a test does --------------------------------------------------------------------------------------

    def fail(self, call: str, error: BaseException, *, when: Literal["before", "after"] = "before") -> None:
        """The next `send`, `edit`, `history`, ... fails so; each order is used once."""
        self._faults.setdefault(call, []).append((when, error))

    def say(self, place: Target, author: Target, text: str, *, reply_to: str | None = None) -> Message:
        """A person writes."""
        return self._add(Message(self._id(), place, author, text, self.clock(), reply_to=reply_to))

    def moderate(self) -> None:
        """Somebody deletes everything; a nonce still means the message it meant."""
        self.deleted += self.messages
        self.messages.clear()

    def heard(self, message: Message, *, name: str = "Ann", **values: object) -> Heard:
        """The message as an adapter would hand it on."""
        direct = message.place.id.startswith("8")
        place = Place(message.place, "direct" if direct else "channel", guild=None if direct else "700000000000000001")
        base = Heard(
            id=message.id,
            place=place,
            author=Author(message.author, name),
            text=message.text,
            at=message.at,
            own=message.author.id == BOT,
            reply_to=message.reply_to,
            nonce=message.nonce,
        )
        return msgspec.structs.replace(base, **values)

    def texts(self, place: Target) -> list[str]:
        """What the bot's messages there say now, oldest first."""
        return [m.text for m in self.messages if m.place == place and m.author.id == BOT]

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    # -- the port ----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.is_ready

    def status(self) -> ChannelStatus:
        return ChannelStatus(provider=self.provider, state="ready" if self.is_ready else "degraded")

    async def serve(self) -> None:
        await asyncio.Event().wait()

    async def resolve(self, text: str) -> Target:
        try:
            return parse_target(text)
        except TargetError:
            return Target(self.provider, "channel", text)

    async def send(self, to: Target, post: Post) -> Posted:
        fault = self._begin("send")
        place = self._place(to)
        if len(post.text) > self.limit:
            raise Refusal("other", "the text is too long")
        known = [m for m in [*self.deleted, *self.messages] if post.nonce and m.nonce == post.nonce]
        if known and self.clock() - known[-1].at < NONCE_SECONDS:
            message = known[-1]
        else:
            message = Message(
                self._id(),
                place,
                Target(self.provider, "user", BOT),
                post.text,
                self.clock(),
                nonce=post.nonce,
                reply_to=post.reply_to,
                files=[f.name for f in post.files],
                buttons=list(post.buttons),
            )
            self._add(message)
        self._end(fault)
        return Posted(place, message.id)

    async def edit(self, posted: Posted, text: str, buttons: Sequence[Button] = ()) -> None:
        fault = self._begin("edit")
        message = self._find(posted.message_id)
        message.text, message.buttons, message.edits = text, list(buttons), message.edits + 1
        self._changed.set()
        self._end(fault)

    async def delete(self, posted: Posted) -> None:
        fault = self._begin("delete")
        gone = [m for m in self.messages if m.id == posted.message_id]
        self.messages = [m for m in self.messages if m.id != posted.message_id]
        self.deleted += gone
        self._changed.set()
        self._end(fault)

    async def react(self, place: Target, message_id: str, emoji: str) -> None:
        self._begin("react")
        self._find(message_id).reactions.append(emoji)
        self._changed.set()

    async def unreact(self, place: Target, message_id: str, emoji: str) -> None:
        self._begin("unreact")
        message = self._find(message_id)
        message.reactions = [e for e in message.reactions if e != emoji]
        self._changed.set()

    async def typing(self, to: Target) -> None:
        self._begin("typing")
        self.typed.append(to)
        self._changed.set()

    async def start_thread(self, place: Target, message_id: str | None, name: str) -> Target:
        self._begin("start_thread")
        made = Target(self.provider, "channel", message_id or self._id())
        self.threads.append(made)
        return made

    async def end_thread(self, thread: Target) -> None:
        self._begin("end_thread")
        self.threads.remove(thread)

    async def history(
        self, place: Target, *, after: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Heard]:
        self._begin("history")
        if place in self.hidden:
            raise Refusal("no_access", f"{place} cannot be read")
        there = [m for m in self.messages if m.place == self._place(place) and not self.blind]
        there = [m for m in there if (after is None or int(m.id) > int(after)) and (since is None or m.at > since)]
        return [self.heard(m) for m in (there[-limit:] if after is None and since is None else there[:limit])]

    async def fetch(self, attachment: Attachment, most: int) -> bytes:
        self._begin("fetch")
        if attachment.size > most:
            raise Refusal("other", f"{attachment.name} is larger than {most} bytes")
        return b"x" * attachment.size

    async def show(self, activity: Activity, text: str) -> None:
        self.shown.append((activity, text))
        self._changed.set()

    def _begin(self, call: str) -> Fault | None:
        self.calls.append(call)
        self._changed.set()
        if not self.is_ready:
            raise NotConnected("discord is not connected")
        waiting = self._faults.get(call)
        fault = waiting.pop(0) if waiting else None
        if fault is not None and fault[0] == "before":
            raise fault[1]
        return fault

    def _end(self, fault: Fault | None) -> None:
        if fault is not None:
            raise fault[1]

    def _place(self, to: Target) -> Target:
        if to in self.refuses_direct:
            raise Refusal("direct_refused", f"{to} takes no direct messages")
        if to in self.hidden:
            raise Refusal("no_access", f"the bot may not write to {to}")
        return Target(self.provider, "channel", f"8{to.id[1:]}") if to.kind == "user" else to

    def _find(self, message_id: str) -> Message:
        for message in self.messages:
            if message.id == message_id:
                return message
        raise Refusal("unknown_message", f"there is no message {message_id}")

    def _add(self, message: Message) -> Message:
        self.messages.append(message)
        self._changed.set()
        return message

    def _id(self) -> str:
        """Ids grow, and say when they were made, as snowflakes do."""
        self._next_id += 1
        return str(self._next_id)
