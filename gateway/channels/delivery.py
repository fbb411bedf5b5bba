"""Delivering an answer to people: message by message, each once, drafts turned into the final text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from gateway.channels.channel import Channel, ChannelError, Refusal, Unreachable, Upload
from gateway.channels.outbox import FateUnknown, PermanentRefusal
from gateway.channels.posting import Poster
from gateway.channels.routing import is_target
from gateway.ledger.records import Effect, NewEffect, Origin
from protocols.targets import Target, parse_target

log = logging.getLogger("delivery")

SEEN, DONE, FAILED, STOPPED = "\N{EYES}", "\N{WHITE HEAVY CHECK MARK}", "\N{CROSS MARK}", "\N{BLACK SQUARE FOR STOP}"
"""Reactions to the message that a run answers."""
_MARKS = {"done": DONE, "failed": FAILED, "stopped": STOPPED}

_WITH_FILES = 100
"""Added to the index of a message with a file: an edit adds none to a draft, so it is a message of its own."""


class Part(msgspec.Struct, frozen=True):
    """One message of an answer."""

    text: str
    files: Sequence[Upload] = ()


class Delivery:
    """The outbox's handler of what goes to people through one channel."""

    def __init__(
        self,
        channel: Channel,
        poster: Poster,
        *,
        parts_of: Callable[[str], list[Part]],
        uploads: Callable[[list[str]], Awaitable[list[Upload]]],
        close_draft: Callable[[str], Awaitable[None]],
        marked: Callable[[str], Awaitable[None]],
        retarget: Callable[[int, str], Awaitable[None]],
        add: Callable[[str, NewEffect], Awaitable[None]],
        home: Callable[[], str | None],
        reactions: Callable[[], bool],
    ) -> None:
        """`uploads(names)`: files of the agent's; PermanentRefusal if one cannot be had. `close_draft(run id)` returns
        when nothing but us touches the run's messages any more; `marked(run id)`, the reactions to what it answers."""
        self._channel = channel
        self._poster = poster
        self._parts_of = parts_of
        self._uploads = uploads
        self._close_draft = close_draft
        self._marked = marked
        self._retarget = retarget
        self._add = add
        self._home = home
        self._reactions = reactions
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of each target to which something goes out at this moment."""

    async def __call__(self, effect: Effect) -> str:
        """Carries one effect out; what was done in words."""
        if effect.kind == "deliver":  # what a run says by the way leaves the draft of its answer alone
            await self._close_draft(effect.run_id)
        payload: Mapping[str, Any] = effect.payload
        try:
            detail = await self._to_its_target(effect, payload)
        except (PermanentRefusal, FateUnknown):
            await self._mark(effect, failed=True)
            raise
        await self._mark(effect)
        return detail

    async def _to_its_target(self, effect: Effect, payload: Mapping[str, Any]) -> str:
        target = await self._target(effect)
        try:
            async with self._turns.setdefault(str(target), asyncio.Lock()):
                return await self._deliver(effect, target, payload)
        except Refusal as error:
            await self._refused(effect, target, error)
            raise PermanentRefusal(str(error)) from None

    async def _target(self, effect: Effect) -> Target:
        """Typed already, or resolved now, once, and written down."""
        text = effect.target or ""
        if is_target(text):
            return parse_target(text)
        try:
            target = await self._channel.resolve(text)
        except Refusal as error:
            raise PermanentRefusal(f"{text!r} cannot be resolved: {error}") from None
        await self._retarget(effect.id, str(target))
        return target

    async def _deliver(self, effect: Effect, target: Target, payload: Mapping[str, Any]) -> str:
        text = str(payload.get("text", ""))
        parts = self._parts_of(text)
        if names := payload.get("files"):
            files = await self._uploads(list(names))
            parts[-1:] = [Part(part.text, [*part.files, *files]) for part in parts[-1:] or [Part("")]]
        origin = _origin(payload)
        rows = {row.index: row for row in await self._poster.of(effect.key)}
        if not parts and not rows:
            return "nothing to say"
        wanted = {_WITH_FILES + index if part.files else index: part for index, part in enumerate(parts)}
        for index, part in wanted.items():
            reply_to = origin.message_id if origin and part is parts[0] and payload.get("to") == str(target) else None
            await self._poster.put(
                effect.key,
                index,
                target,
                part.text,
                row=rows.get(index),
                final=True,
                reply_to=reply_to,
                files=part.files,
            )
        for index, row in rows.items():
            if index not in wanted:
                await self._poster.drop(row, target)
        log.info("delivered to %s: %d message(s)", target, len(parts))
        return f"{len(parts)} message{'s' if len(parts) > 1 else ''}" if parts else "nothing left to say"

    async def _refused(self, effect: Effect, target: Target, error: Refusal) -> None:
        """A person who takes no direct messages: say so where others of the cluster read, without the text."""
        home = self._home()
        if error.reason != "direct_refused" or home in (None, str(target)):
            return
        notice = (
            f"I have an answer for <@{target.id}> and may not send it: they take no direct messages from me. It is kept"
            f" as dead letter {effect.id}."
        )
        await self._add(
            effect.run_id,
            NewEffect(key=f"{effect.key}/refused", kind="message", payload={"text": notice}, target=home),
        )

    async def _mark(self, effect: Effect, *, failed: bool = False) -> None:
        """The reaction that says how it ended; one that fails is no failure of the delivery.

        `failed`: the answer did not get there, or nobody can tell.
        """
        payload: Mapping[str, Any] = effect.payload
        emoji, origin = _MARKS.get(str(payload.get("mark"))), _origin(payload)
        if emoji is None or origin is None or not self._reactions():
            return
        await self._marked(effect.run_id)
        place = parse_target(origin.place)
        try:
            await self._channel.react(place, origin.message_id, FAILED if failed else emoji)
            await self._channel.unreact(place, origin.message_id, SEEN)
            if payload.get("again") and not failed and emoji != FAILED:
                await self._channel.unreact(place, origin.message_id, FAILED)
        except ChannelError as error:
            level = logging.INFO if isinstance(error, Unreachable) else logging.DEBUG
            log.log(level, "no reaction to %s: %s", origin.message_id, error)


def _origin(payload: Mapping[str, Any]) -> Origin | None:
    origin = payload.get("origin")
    return None if origin is None else msgspec.convert(origin, Origin)
