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

from gateway.channels.channel import Channel, ChannelError
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
        redact: Callable[[str], str],
        waiting: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`divide`: a text in the parts that the final one has too; `waiting(run id)`: does it wait for something?"""
        self._channel = channel
        self._poster = poster
        self._divide = divide
        self._table = table
        self._redact = redact
        self._waiting = waiting
        self._clock = clock
        self._sleep = sleep
        self._answers: dict[str, _Answer] = {}

    async def seen(self, origin: Origin) -> None:
        """Mark a message that became a run."""
        if not self._table().reactions:
            return
        with _harmless("reaction"):
            await self._channel.react(parse_target(origin.place), origin.message_id, SEEN)

    def began(self, run: ClaimedRun) -> None:
        """Work on it begins, or goes on after a restart. Runs that nobody on a channel asked for show nothing."""
        origin, to = run.options.origin, run.options.to
        if origin is None or to is None or run.run_id in self._answers:
            return
        answer = _Answer(run.run_id, parse_target(to), origin)
        self._answers[run.run_id] = answer
        answer.task = asyncio.create_task(self._show(answer), name=f"live-{run.run_id}")

    def delta(self, run_id: str, text: str, reset: bool) -> None:
        """More of an answer; `reset`: it begins anew."""
        answer = self._answers.get(run_id)
        if answer is None:
            return
        answer.text = text if reset else answer.text + text
        if answer.editor is not None:
            answer.editor.push(self._shown(answer.text))

    async def close(self, run_id: str) -> None:
        """Show nothing more of it; returns when no call is under way."""
        answer = self._answers.pop(run_id, None)
        if answer is None or answer.task is None:
            return
        answer.over.set()
        await asyncio.wait({answer.task})

    async def stop(self) -> None:
        """Of all."""
        for run_id in list(self._answers):
            await self.close(run_id)

    # -- one answer --------------------------------------------------------------------------------------------

    async def _show(self, answer: _Answer) -> None:
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

        editor = Editor(put, edit, clock=self._clock, sleep=self._sleep, divide=self._divide, on_problem=answer.problem)
        async with editor:
            answer.editor = editor
            editor.push(self._shown(answer.text))
            await answer.over.wait()
            answer.editor = None
            await editor.stop()

    async def _type(self, answer: _Answer) -> None:
        """While it is worked on and nothing is shown of it."""
        began = self._clock()
        while self._clock() - began < TYPING_AT_MOST:
            if not answer.shown and not self._waiting(answer.run_id):
                with _harmless("typing"):
                    await self._channel.typing(parse_target(answer.origin.place))
            await self._sleep(TYPING_SECONDS)

    def _shown(self, text: str) -> str:
        """Up to the last white space: half a secret would not be known as one."""
        cut = max(text.rfind(" "), text.rfind("\n"))
        return self._redact(text[: cut + 1]) if cut >= 0 else ""


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
