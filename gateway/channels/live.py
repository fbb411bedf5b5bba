"""What people see of an answer before it is there: that the message was seen, that somebody types, and a draft.

All of it is a courtesy that may fail without harm. The draft's messages are posts like any other, written down before
they are sent, so that the delivery of the final text finds and finishes them, whatever died in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from gateway.channels.channel import Channel, ChannelError, Refusal
from gateway.channels.delivery import SEEN
from gateway.channels.posting import Poster
from gateway.ledger.posts import StoredPost
from gateway.ledger.records import ClaimedRun, Origin
from protocols.targets import Target, parse_target
from runtime.config_discord import InstanceDiscordTable

if TYPE_CHECKING:
    from gateway.channels.editor import Editor

log = logging.getLogger("live")

TYPING_SECONDS = 8.0
"""Discord shows it for ten."""
TYPING_AT_MOST = 600.0
"""After so long nobody believes it any more."""


class Live:
    """The answers of one agent that are being written for somebody on a channel."""

    def __init__(
        self,
        channel: Channel,
        poster: Poster,
        *,
        divide: Callable[[str], list[str]],
        table: Callable[[], InstanceDiscordTable],
        preview: Callable[[str], str],
        waiting: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`preview`: of a text that still grows, what may be shown already; `divide`: that in the parts that the final
        one has too; `waiting(run id)`: does it wait for something?"""
        self._channel = channel
        self._poster = poster
        self._divide = divide
        self._table = table
        self._preview = preview
        self._waiting = waiting
        self._clock = clock
        self._sleep = sleep
        self._answers: dict[str, _Answer] = {}
        self._marking: dict[str, asyncio.Task[None]] = {}

    def seen(self, run_id: str, origin: Origin) -> None:
        """Mark a message that became a run."""
        if not self._table().reactions or run_id in self._marking:
            return
        self._marking[run_id] = task = asyncio.create_task(self._mark(origin), name=f"seen-{run_id}")
        task.add_done_callback(lambda _: self._marking.pop(run_id, None))

    async def marked(self, run_id: str) -> None:
        """Returns when its message is not about to be marked: a mark that came later would never be taken away."""
        if (task := self._marking.get(run_id)) is not None:
            await asyncio.wait({task})

    def began(self, run: ClaimedRun) -> None:
        """Work on it begins, or goes on after a restart. Runs that nobody on a channel asked for show nothing."""
        origin, to = run.options.origin, run.options.to
        if origin is None or to is None or run.run_id in self._answers:
            return
        answer = _Answer(run.run_id, parse_target(to), origin)
        self._answers[run.run_id] = answer
        answer.task = asyncio.create_task(self._show(answer), name=f"live-{run.run_id}")
        answer.task.add_done_callback(lambda _: self._answers.pop(run.run_id, None))

    def delta(self, run_id: str, text: str, reset: bool) -> None:
        """More of an answer; `reset`: it begins anew."""
        answer = self._answers.get(run_id)
        if answer is None:
            return
        answer.text = text if reset else answer.text + text
        if answer.editor is not None:
            answer.editor.push(answer.text)

    def end(self, run_id: str) -> None:
        """It is not worked on any more: nothing more is shown of it, but for a call that is under way."""
        if (answer := self._answers.get(run_id)) is not None:
            answer.over.set()

    async def close(self, run_id: str) -> None:
        """Show nothing more of it; returns when no call is under way."""
        self.end(run_id)
        answer = self._answers.get(run_id)
        if answer is not None and answer.task is not None:
            await asyncio.wait({answer.task})

    async def stop(self) -> None:
        """Of all."""
        for task in list(self._marking.values()):
            task.cancel()
        for run_id in list(self._answers):
            await self.close(run_id)

    # -- one answer --------------------------------------------------------------------------------------------

    async def _show(self, answer: _Answer) -> None:
        """Until it is over; a fault in it is no fault of the answer's."""
        typing = asyncio.create_task(self._type(answer), name=f"typing-{answer.run_id}")
        try:
            if self._table().stream:
                await self._draft(answer)
            else:
                await answer.over.wait()
        except Exception:
            log.exception("no draft of %s is shown", answer.run_id)
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    async def _draft(self, answer: _Answer) -> None:
        from gateway.channels.editor import Editor  # with the first answer, not with the process

        async def put(index: int, text: str) -> int:
            rows: dict[int, StoredPost] = {row.index: row for row in await self._poster.of(answer.key)}
            await self._poster.put(
                answer.key,
                index,
                answer.to,
                text,
                row=rows.get(index),
                final=False,
                reply_to=answer.origin.message_id if index == 0 else None,
            )
            answer.shown = True
            return index

        async def edit(index: int, text: str) -> None:
            await put(index, text)

        def parts(text: str) -> list[str]:
            return self._divide(self._preview(text))

        editor = Editor(put, edit, clock=self._clock, sleep=self._sleep, divide=parts, on_problem=answer.problem)
        async with editor:
            answer.editor = editor
            editor.push(answer.text)
            await answer.over.wait()
            answer.editor = None
            await editor.stop()

    async def _type(self, answer: _Answer) -> None:
        """While it is worked on and nothing is shown of it, until the channel refuses to show it."""
        began = self._clock()
        while self._clock() - began < TYPING_AT_MOST:
            pause = TYPING_SECONDS
            if not answer.shown and not self._waiting(answer.run_id):
                try:
                    await self._channel.typing(parse_target(answer.origin.place))
                except Refusal as error:  # it never will: each such call counts against the address of this host
                    log.debug("no typing for %s: %s", answer.run_id, error)
                    return
                except ChannelError as error:
                    log.debug("no typing: %s", error)
                    pause = max(TYPING_SECONDS, getattr(error, "retry_after", None) or 0.0)
            await self._sleep(pause)

    async def _mark(self, origin: Origin) -> None:
        with _harmless("reaction"):
            await self._channel.react(parse_target(origin.place), origin.message_id, SEEN)


class _Answer:
    """One run's."""

    def __init__(self, run_id: str, to: Target, origin: Origin) -> None:
        self.run_id = run_id
        self.key = f"{run_id}/deliver"
        self.to = to
        self.origin = origin
        self.text = ""
        self.shown = False
        self.over = asyncio.Event()
        self.editor: Editor[int] | None = None
        self.task: asyncio.Task[None] | None = None

    def problem(self, error: Exception) -> None:
        log.debug("the draft of %s: %s", self.run_id, error)


@contextlib.contextmanager
def _harmless(what: str) -> Iterator[None]:
    try:
        yield
    except ChannelError as error:
        log.debug("no %s: %s", what, error)
