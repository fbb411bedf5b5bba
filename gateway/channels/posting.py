"""Putting one message on a channel, once: over lost answers, restarts and days.

Before a message is sent, its row is written with a nonce; after it, the id it was given. A row without an id is a
message whose fate is not known. For some minutes the provider answers the nonce with the message it made the first
time; later its history is read; and if that cannot be read either, the message is `unknown` and no second one is sent.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from gateway.channels.channel import Button, Channel, NotConnected, Post, Posted, Refusal, Unreachable, Upload
from gateway.channels.outbox import FateUnknown
from gateway.ledger.posts import PostStore, StoredPost
from protocols.targets import Target, parse_target

NONCE_SECONDS = 90.0
"""So long a nonce is relied on. Discord says "a few minutes" without a number."""
_SKEW_SECONDS = 60.0
"""By which our clock and the provider's may differ."""
_PAGE = 100
_PAGES = 20
"""Messages of the history that are looked through for one of ours, in pages."""


class Poster:
    """Posts, changes and removes the messages of answers; `key` names an answer, `index` a message of it."""

    def __init__(
        self,
        channel: Channel,
        store: PostStore,
        known: Callable[[list[str]], Collection[str]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`known(message ids)`: those that are posts of ours with an id."""
        self._channel = channel
        self._store = store
        self._known = known
        self._clock = clock

    async def of(self, key: str) -> list[StoredPost]:
        """What was posted or begun of an answer."""
        return await self._store.of(key)

    async def put(
        self,
        key: str,
        index: int,
        to: Target,
        text: str,
        *,
        row: StoredPost | None,
        final: bool,
        reply_to: str | None = None,
        files: Sequence[Upload] = (),
        buttons: Sequence[Button] = (),
    ) -> Posted:
        """See that this message stands there with this text; `row` is what `of` said of it, if anything.

        Raises Unreachable or Uncertain (worth another try), Refusal, or FateUnknown.
        """
        if not self._channel.ready:
            raise NotConnected(f"{self._channel.provider} is not connected")
        post = Post(text, nonce_of(key, index, to), reply_to, files, buttons)
        if row is not None and row.message_id is None:
            row = await self._trace(row, to, post)
        if row is not None and row.message_id is not None:
            posted = await self._change(row, post, final)
            if posted is not None:
                return posted
            # With the nonce of the one that is gone, that one would be given for an answer.
            post = msgspec.structs.replace(post, nonce=nonce_of(key, index, to, instead_of=row.message_id))
        return await self._send(key, index, to, post, final, instead_of=row)

    async def drop(self, row: StoredPost, to: Target) -> None:
        """Take a message away that is not wanted any more; raises as `put`."""
        if row.message_id is None:
            row = await self._found(row, to) or row
        if row.message_id is not None and row.place is not None:
            await self._channel.delete(Posted(parse_target(row.place), row.message_id))
        await self._store.forget(row.key, row.index)

    # -- one message -------------------------------------------------------------------------------------------

    async def _send(
        self, key: str, index: int, to: Target, post: Post, final: bool, instead_of: StoredPost | None
    ) -> Posted:
        await self._store.trying(key, index, str(to), post.nonce or "", post.text)
        try:
            posted = await self._channel.send(to, post)
        except (Unreachable, Refusal):  # nothing was done
            gone = instead_of
            if gone is not None and gone.place is not None and gone.message_id is not None:
                await self._store.posted(key, index, gone.place, gone.message_id, gone.text, final=False)
            else:
                await self._store.forget(key, index)
            raise
        await self._store.posted(key, index, str(posted.place), posted.message_id, post.text, final=final)
        return posted

    async def _trace(self, row: StoredPost, to: Target, post: Post) -> StoredPost | None:
        """What became of a message whose answer was lost; None if it is not there."""
        if self._clock() - row.tried_at < NONCE_SECONDS:
            again = Post(row.text, row.nonce, post.reply_to, post.files, post.buttons)
            posted = await self._channel.send(to, again)
            return await self._adopt(row, str(posted.place), posted.message_id)
        found = await self._found(row, to)
        if found is None:
            await self._store.forget(row.key, row.index)
        return found

    async def _found(self, row: StoredPost, to: Target) -> StoredPost | None:
        """Look for it in the channel's history; None if it is not there, FateUnknown if that cannot be told."""
        after: str | None = None
        for _ in range(_PAGES):
            try:
                page = await self._channel.history(
                    to, after=after, since=row.tried_at - _SKEW_SECONDS if after is None else None, limit=_PAGE
                )
            except Refusal as error:
                raise FateUnknown(f"it may stand in {to} already, and the history cannot be read: {error}") from None
            ours = [heard for heard in page if heard.own]
            taken = set(self._known([heard.id for heard in ours])) if ours else set()
            for heard in ours:
                if heard.id not in taken and (heard.nonce == row.nonce or heard.text.strip() == row.text.strip()):
                    return await self._adopt(row, str(heard.place.target), heard.id)
            if len(page) < _PAGE:
                if not page and after is None:
                    await self._readable(to)
                return None
            after = page[-1].id
        raise FateUnknown(f"it may stand in {to} already; {_PAGES * _PAGE} messages since then do not hold it")

    async def _readable(self, to: Target) -> None:
        """Nothing since then may also mean that nothing may be read: Discord shows an empty history then."""
        if not await self._channel.history(to, limit=1):
            raise FateUnknown(f"it may stand in {to} already, of which no history is shown")

    async def _adopt(self, row: StoredPost, place: str, message_id: str) -> StoredPost:
        await self._store.posted(row.key, row.index, place, message_id, row.text, final=False)
        return StoredPost(row.key, row.index, row.target, row.nonce, row.text, row.tried_at, place, message_id)

    async def _change(self, row: StoredPost, post: Post, final: bool) -> Posted | None:
        """Bring it to its text; None if it has to be posted anew."""
        assert row.message_id is not None
        assert row.place is not None
        posted = Posted(parse_target(row.place), row.message_id)
        if row.final and final and row.text == post.text:
            return posted
        try:
            await self._channel.edit(posted, post.text, post.buttons)
        except Refusal as error:
            if error.reason == "unknown_message" and row.final:
                return posted  # somebody has deleted it
            if error.reason not in ("unknown_message", "too_old"):
                raise
            if error.reason == "too_old":
                await self._channel.delete(posted)
            return None
        if final:
            await self._store.posted(row.key, row.index, row.place, row.message_id, post.text, final=True)
        return posted


def nonce_of(key: str, index: int, to: Target, *, instead_of: str = "") -> str:
    """24 characters (Discord takes 25), the same for the same message of the same answer to the same place.

    `instead_of`: the id of a message that is gone.
    """
    digest = hashlib.blake2b(f"{key}\n{index}\n{to}\n{instead_of}".encode(), digest_size=15).digest()
    return base64.b32encode(digest).decode().lower()
