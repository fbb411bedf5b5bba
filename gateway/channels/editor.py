"""Showing a text while it grows, by edits: the newest wins, one call at a time, and never faster than a channel bears.

What is shown is a draft, and may stop at any point. The final text is the outbox's to deliver: it turns the draft's
messages into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from gateway.channels.channel import Refusal, Uncertain, Unreachable
from gateway.channels.splitting import split
from protocols.errors import AtomizerError

H = TypeVar("H")

INTERVAL = 1.1
"""Seconds between the starts of two calls: Discord takes five edits in five seconds, and bunches what is faster."""
FIRST_CHARACTERS = 24
FIRST_SECONDS = 0.7
"""The first message waits for so many characters, or so long if there is anything at all."""
BACKOFF_CAP = 30.0
"""Seconds: the longest pause after failures in a row."""
_POST_ANEW = ("unknown_message", "too_old")


class Shown(NamedTuple, Generic[H]):
    """A message as it was last known to stand there. `text` is None if what it says is not known."""

    handle: H
    text: str | None


class Draft(NamedTuple, Generic[H]):
    """What an editor left behind."""

    messages: list[Shown[H]]
    """In the order of their parts; ends before the first part that has no message."""
    abandoned: list[H]
    """Messages with a text that is out of date and that no edit will change: gone, too old, or one too many."""


class _Slot(Generic[H]):
    """The message of one part."""

    def __init__(self) -> None:
        self.shown: Shown[H] | None = None
        self.tried: str | None = None
        """The text of a `send` that may have been done: its nonce brings that message back, text and all."""


class Editor(Generic[H]):
    """One answer while it is made. `async with` it: leaving ends its one task, whatever that is doing.

    `push` takes the whole text so far, not what is new of it. It gives up for no failure, only for a refusal.
    """

    def __init__(
        self,
        send: Callable[[int, str], Awaitable[H]],
        edit: Callable[[H, str], Awaitable[None]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        divide: Callable[[str], list[str]] = split,
        interval: float = INTERVAL,
        first_characters: int = FIRST_CHARACTERS,
        first_seconds: float = FIRST_SECONDS,
        on_problem: Callable[[Exception], None] | None = None,
    ) -> None:
        """`send(index, text)` posts the message of part `index` and gives its handle; `edit` changes one.

        `divide` makes the parts and is to be the same as for the final text. Both calls may raise:
        `Unreachable`, `Uncertain`, OSError or TimeoutError: tried again with the newest text, after `retry_after` or a
        pause that grows; a `send` is repeated with the same index, so that its nonce can be the same;
        `Refusal` "unknown_message" or "too_old" of an edit: the text goes into a new message;
        any other `Refusal` or AtomizerError: nothing more is shown.
        Each is told to `on_problem` as well. `clock` gives seconds that only grow.
        """
        self._send, self._edit = send, edit
        self._clock, self._sleep = clock, sleep
        self._divide = divide
        self._interval = interval
        self._first_characters, self._first_seconds = first_characters, first_seconds
        self._on_problem = on_problem
        self._latest = ""
        self._pushed_at: float | None = None
        self._slots: list[_Slot[H]] = []
        self._abandoned: list[H] = []
        self._not_before = float("-inf")
        self._failures = 0
        self._refused = False
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        """Set by `stop`."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._serve(), name="editor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def push(self, text: str) -> None:
        """The text as it is now; shown when its turn comes, unless a newer one is there by then."""
        if self._end.is_set():
            return
        self._latest = text
        if self._pushed_at is None and text.strip():
            self._pushed_at = self._clock()
        self._news.set()

    async def stop(self) -> Draft[H]:
        """Show nothing more. A call on its way is awaited, so that its message is among those returned."""
        if self._task is None:
            raise RuntimeError("an Editor works only inside of its `async with`")
        self._end.set()
        self._news.set()
        await asyncio.wait({self._task})
        self._task.result()
        return self.draft()

    def draft(self) -> Draft[H]:
        """What stands there now."""
        messages: list[Shown[H]] = []
        for slot in self._slots:
            if slot.shown is None:
                break
            messages.append(slot.shown)
        later = [slot.shown.handle for slot in self._slots[len(messages) :] if slot.shown is not None]
        return Draft(messages, [*self._abandoned, *later])

    # -- the task ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._something_to_show()
        while not self._end.is_set() and not self._refused:
            self._news.clear()
            if self._next() is None:
                await self._news.wait()
            elif (pause := self._not_before - self._clock()) > 0:
                await self._either(self._end, pause)
            elif (step := self._next()) is not None:
                await self._call(*step)

    async def _something_to_show(self) -> None:
        while not self._end.is_set() and len(self._latest.strip()) < self._first_characters:
            self._news.clear()
            if self._pushed_at is None:
                await self._news.wait()
            elif (left := self._pushed_at + self._first_seconds - self._clock()) > 0:
                await self._either(self._news, left)
            else:
                return

    async def _either(self, event: asyncio.Event, seconds: float) -> None:
        tasks = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._sleep(seconds))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self) -> tuple[int, str] | None:
        """The first part that does not stand there as it should."""
        for index, part in enumerate(self._divide(self._latest)):
            if index == len(self._slots):
                self._slots.append(_Slot())
            shown = self._slots[index].shown
            if shown is None or shown.text != part:
                return index, part
        return None

    async def _call(self, index: int, text: str) -> None:
        slot = self._slots[index]
        shown = slot.shown
        self._not_before = self._clock() + self._interval
        try:
            if shown is None:
                handle = await self._send(index, text)
                slot.shown = Shown(handle, text if slot.tried in (None, text) else None)
                slot.tried = None
            else:
                slot.shown = Shown(shown.handle, None)
                await self._edit(shown.handle, text)
                slot.shown = Shown(shown.handle, text)
        except (Unreachable, Uncertain, OSError, TimeoutError) as error:
            self._failed(error)
            if shown is None and slot.tried is None and not isinstance(error, Unreachable):
                slot.tried = text
            retry_after = error.retry_after if isinstance(error, Unreachable) else None
            backoff = min(BACKOFF_CAP, self._interval * 2 ** min(self._failures, 10))
            self._not_before = self._clock() + max(self._interval, backoff if retry_after is None else retry_after)
        except AtomizerError as error:
            self._failed(error)
            if shown is not None and isinstance(error, Refusal) and error.reason in _POST_ANEW:
                self._abandoned.append(shown.handle)
                slot.shown = None
            else:
                self._refused = True
        else:
            self._failures = 0

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._on_problem is not None:
            self._on_problem(error)
