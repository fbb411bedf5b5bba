"""Up to where each channel was heard: what was said after that is read up on when a connection was lost.

Written at most once a second and at the end. That is enough: a message that was taken in twice is one run, by its key;
these marks only keep old messages, whose runs may have been removed, from being answered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from gateway.channels.channel import Author, Place
from gateway.channels.recent import order
from gateway.ledger.posts import PostReader, PostStore
from protocols.errors import StorageFull
from protocols.targets import Target

PAUSE = 1.0
"""Seconds between two writings of one channel's mark, at least."""


class Mark(msgspec.Struct, frozen=True):
    """The newest message of a channel that is settled, and all that is needed to hear it again."""

    id: str
    place: Place
    at: float
    person: Target | None = None
    """With whom these direct messages are."""


_decode = msgspec.json.Decoder(Mark).decode
_encode = msgspec.json.Encoder().encode


class LastHeard:
    """The marks of one provider's channels, in memory and on disk."""

    def __init__(self, posts: PostStore, reader: PostReader, provider: str, clock: Callable[[], float]) -> None:
        self._posts = posts
        self._prefix = f"heard/{provider}/"
        self._clock = clock
        self._marks = {id: _decode(value) for id, value in reader.marks(self._prefix).items()}
        self._unwritten: set[str] = set()
        self._written = set(self._marks)
        self._wake = asyncio.Event()

    def get(self, channel_id: str) -> Mark | None:
        return self._marks.get(channel_id)

    def all(self) -> list[Mark]:
        return list(self._marks.values())

    def advance(self, place: Place, message_id: str, author: Author | None = None) -> None:
        """Everything up to this message is settled; its author, where that is a person who may be alone with us."""
        known = self._marks.get(place.target.id)
        if known is None or order(message_id) > order(known.id):
            person = known.person if known is not None else None
            if place.kind == "direct" and author is not None:
                person = author.target
            self._marks[place.target.id] = Mark(message_id, place, self._clock(), person)
            self._unwritten.add(place.target.id)
            self._wake.set()

    async def written(self, channel_id: str) -> None:
        """Once the channel has a mark on disk, however old: then nothing later can be missed."""
        if channel_id not in self._written:
            await self._write(channel_id)

    async def serve(self) -> None:
        """Write what changed, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.flush()
            except StorageFull:
                self._wake.set()  # said by those who lose more by it
            await asyncio.sleep(PAUSE)
            await self._wake.wait()

    async def flush(self) -> None:
        """Write what changed; raises StorageFull."""
        await asyncio.gather(*(self._write(channel_id) for channel_id in list(self._unwritten)))

    async def forget(self, channel_id: str) -> None:
        """As if nothing was ever heard there; raises StorageFull."""
        if self._marks.pop(channel_id, None) is not None:
            self._unwritten.discard(channel_id)
            self._written.discard(channel_id)
            await self._posts.unmark(self._prefix + channel_id)

    async def _write(self, channel_id: str) -> None:
        mark = self._marks[channel_id]
        await self._posts.mark(self._prefix + channel_id, _encode(mark).decode())
        self._written.add(channel_id)
        if self._marks.get(channel_id) == mark:
            self._unwritten.discard(channel_id)
