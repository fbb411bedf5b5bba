"""What runs next: places for runs, one run at a time per session, cancel, park and drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from gateway.agent.failure import RunFailure
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewEffect
from gateway.models.provider import ProviderError
from protocols.errors import AtomizerError, StorageFull
from protocols.runs import RunError, RunState, one_line
from runtime.logs import logging_run
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("runner")

_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


class Working(Protocol):
    """Carries out a run: its answer's text."""

    async def __call__(
        self, run: ClaimedRun, park: Callable[[str], contextlib.AbstractAsyncContextManager[None]]
    ) -> str: ...


EffectsOf = Callable[[ClaimedRun, RunState, str, str, ClaimedRun | None], list[NewEffect]]
"""(run, state, text, reason, the run it was taken into, if any) -> what leaves the process when it ends so."""


class _Place:
    """A run under way."""

    __slots__ = ("cancel_reason", "left", "limit", "parked", "run", "task", "waiting", "working")

    def __init__(self, run: ClaimedRun) -> None:
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.working = False
        """Its work has begun and not ended: only meanwhile may the task be cancelled, for the rest is bookkeeping."""
        self.waiting = 0
        """Its calls that wait for somebody else, at this moment."""
        self.parked = False
        """It waits and has given its place to others."""
        self.cancel_reason: str | None = None
        self.limit: asyncio.Timeout | None = None
        self.left: float | None = None
        """Seconds that the run had left when it began to wait; None: no clock was stopped."""

    def interrupt(self) -> None:
        if self.working and self.task is not None:
            self.task.cancel()


class Runner:
    """Gives the places of one agent to its queued runs, by priority, and sees each to its end."""

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        *,
        work: Working,
        effects_of: EffectsOf,
        on_change: Callable[[str], None],
        on_end: Callable[[ClaimedRun, Ending], Awaitable[None]],
        places: int,
        run_timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change(run_id)` after each change of state; `on_end` once the ending is on disk."""
        self._ledger = ledger
        self._reader = reader
        self._work = work
        self._effects_of = effects_of
        self._on_change = on_change
        self._on_end = on_end
        self._limit = places
        self._run_timeout = run_timeout
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._returning: list[tuple[_Place, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._draining = False
        self._deadlines = reader.next_deadline() is not None

    @property
    def busy(self) -> bool:
        """Does a run work now? One that waits for somebody, perhaps for days, does not."""
        return any(not place.parked for place in self._places.values())

    @property
    def occupied(self) -> bool:
        """Is a run under way, working or waiting?"""
        return bool(self._places)

    @property
    def draining(self) -> bool:
        return self._draining

    def configure(self, *, places: int, run_timeout: float) -> None:
        self._limit, self._run_timeout = places, run_timeout
        self.wake()

    def wake(self) -> None:
        """Look at the queue again: something ended, was parked or released."""
        self._wake.set()

    def accepted(self, *, held: bool, deadline: float | None) -> None:
        """A run was accepted; one that is held and has no deadline can wait to be looked at."""
        self._deadlines = self._deadlines or deadline is not None
        if not held or deadline is not None:
            self._wake.set()

    async def serve(self) -> None:
        """Start queued runs until cancelled. Errors of the disk are waited out; nothing is forgotten."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                await self._expire()
                if not self._draining:
                    await self._fill()
                failures = 0
            except (DiskFull, OSError) as error:
                pause = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.error("the queue waits %.0f s: %s", pause, error)
                await asyncio.sleep(pause)
                continue
            deadline = self._reader.next_deadline() if self._deadlines else None
            timeout = None if deadline is None else max(0.01, deadline - self._clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def cancel(self, run_id: str, reason: str) -> RunState | None:
        """Cancel a run; its state before, or None if there is none. What it delegated is the caller's to cancel."""
        run = self._reader.claimed(run_id)
        if run is None:
            return None
        ending = self._ending(run, RunState.CANCELLED, reason=reason)
        before, ended = await self._ledger.request_cancel(run_id, ending)
        if ended:
            await self._tell_end(run, ending)
        elif not before.ended and (place := self._places.get(run_id)) is not None:
            place.cancel_reason = reason
            place.interrupt()
        return before

    def start_no_more(self) -> None:
        """From now on; only another process starts runs again."""
        self._draining = True

    async def drain(self, seconds: float) -> None:
        """Start nothing more; let runs end for at most `seconds`, then put the rest back into the queue.

        Those that wait for somebody are put back as soon as no other is at work.
        """
        self.start_no_more()
        waited = [p.task for p in self._places.values() if p.task is not None and not p.parked]
        if waited and seconds > 0:
            await asyncio.wait(waited, timeout=seconds)
        rest = [p.task for p in self._places.values() if p.task is not None]
        for place in self._places.values():
            place.interrupt()
        if rest:
            await asyncio.wait(rest, timeout=5)

    async def _expire(self) -> None:
        for run_id in self._reader.expired(self._clock()) if self._deadlines else ():
            await self.cancel(run_id, "its deadline passed before it could start")

    async def _fill(self) -> None:
        """Claim as many runs as there are places. Parked runs that want to go on come first."""
        active = [p for p in self._places.values() if not p.parked]
        free = self._limit - len(active)
        while free > 0 and self._returning:
            place, future = self._returning.pop(0)
            if not future.done():
                place.parked = False
                future.set_result(None)
                free -= 1
        if free <= 0:
            return
        if not self._reader.has_ready():
            return  # a look costs far less than the writer's thread
        kept = 1 if self._limit > 1 else 0
        others = self._limit - kept - sum(1 for p in active if not p.run.people)
        claimed = await self._ledger.claim(free, max(0, others))
        for run in claimed:
            place = _Place(run)
            self._places[run.run_id] = place
            place.task = asyncio.create_task(self._carry_out(place), name=run.run_id)
        if len(claimed) == free:
            self.wake()

    async def _carry_out(self, place: _Place) -> None:
        run = place.run
        try:
            with logging_run(run.run_id):
                self._on_change(run.run_id)
                log.info("started%s: %s", _again(run), one_line(run.message, 120))
                ending = await self._attempt(place)
                if ending is None:
                    await self._put_back(run)
                else:
                    await self._end(run, ending)
        except Exception:
            log.exception("run %s: its end could not be written; it goes on after a restart", run.run_id)
        finally:
            self._places.pop(run.run_id, None)
            self.wake()

    async def _attempt(self, place: _Place) -> Ending | None:
        """Work on the run; how it ended, or None if the process stops and it is to go on later."""
        run = place.run
        if place.cancel_reason is not None:  # before the first step was made
            return self._ending(run, RunState.CANCELLED, reason=place.cancel_reason)
        if self._draining:
            return None
        place.working = True
        try:
            return await self._work_on(place)
        finally:
            place.working = False

    async def _work_on(self, place: _Place) -> Ending | None:
        run = place.run
        seconds = run.options.timeout_seconds or self._run_timeout
        if run.deadline is not None:
            seconds = min(seconds, run.deadline - self._clock())
        try:
            async with asyncio.timeout(max(0.0, seconds)) as place.limit:
                text = await self._work(run, lambda reason: self._parked(place, reason))
            return self._ending(run, RunState.SUCCEEDED, text=text)
        except asyncio.CancelledError:
            if place.cancel_reason is not None:
                return self._ending(run, RunState.CANCELLED, reason=place.cancel_reason)
            if self._draining:
                return None
            raise
        except TimeoutError as error:
            if place.limit is None or not place.limit.expired():
                return self._broke(run, error)
            return self._failed(run, "timeout", f"not done within {seconds:.0f} s")
        except ProviderError as error:
            return self._failed(run, f"model_{error.kind.value}", str(error))
        except StorageFull as error:
            return self._failed(run, "storage_full", str(error))
        except RunFailure as error:
            return self._failed(run, error.code, str(error))
        except AtomizerError as error:
            return self._failed(run, "failed", str(error))
        except Exception as error:
            return self._broke(run, error)

    def _broke(self, run: ClaimedRun, error: Exception) -> Ending:
        log.exception("the turn failed")
        return self._failed(run, "internal", f"{type(error).__name__}: {error}")

    def _failed(self, run: ClaimedRun, code: str, message: str) -> Ending:
        return self._ending(run, RunState.FAILED, reason=message, error=RunError(code=code, message=message))

    def _ending(
        self, run: ClaimedRun, state: RunState, *, text: str = "", reason: str = "", error: RunError | None = None
    ) -> Ending:
        merged = self._reader.merged(run.run_id) if state is RunState.SUCCEEDED else []
        return Ending(
            state=state,
            text=text,
            reason=one_line(reason, 500),
            error=error,
            effects=self._effects_of(run, state, text, reason, None),
            merged={other.run_id: self._effects_of(other, state, text, reason, run) for other in merged},
        )

    async def _end(self, run: ClaimedRun, ending: Ending) -> None:
        """Write the end, however long the disk refuses."""
        failures = 0
        while True:
            try:
                await self._ledger.finish(run.run_id, ending)
                break
            except DiskFull as error:
                pause = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.error("the run's end waits %.0f s: %s", pause, error)
                await asyncio.sleep(pause)
        level = logging.INFO if ending.state in (RunState.SUCCEEDED, RunState.CANCELLED) else logging.ERROR
        log.log(level, "%s%s", ending.state.value, f": {ending.reason}" if ending.reason else "")
        await self._tell_end(run, ending)

    async def _tell_end(self, run: ClaimedRun, ending: Ending) -> None:
        self._on_change(run.run_id)
        await self._on_end(run, ending)

    async def _put_back(self, run: ClaimedRun) -> None:
        await self._ledger.requeue(run.run_id)
        log.info("put back into the queue; it goes on after the restart")
        self._on_change(run.run_id)

    @contextlib.asynccontextmanager
    async def _parked(self, place: _Place, reason: str) -> AsyncIterator[None]:
        """The run is `waiting` and its place free while the block lasts, or several of them side by side."""
        run_id = place.run.run_id
        place.waiting += 1
        if place.waiting == 1:
            place.left = self._stop_clock(place)
        try:
            if not place.parked:
                place.parked = True
                await self._ledger.set_waiting(run_id, reason)
                self._on_change(run_id)
                self.wake()
            yield
        finally:
            place.waiting -= 1
            if not place.waiting:
                self._start_clock(place)
                await self._go_on(place)

    async def _go_on(self, place: _Place) -> None:
        """Nothing of the run waits any more: it takes a place again, unless it only has to end."""
        expired = place.limit is not None and place.limit.expired()
        if place.cancel_reason is None and not expired and not self._draining:
            await self._take_place_again(place)
        if place.waiting:  # another of its calls began to wait meanwhile
            place.parked = True
            self.wake()
            return
        place.parked = False
        await self._ledger.set_running(place.run.run_id)
        self._on_change(place.run.run_id)

    def _stop_clock(self, place: _Place) -> float | None:
        """Waiting does not use up the run's time, only its deadline. The seconds it had left."""
        if place.limit is None or (when := place.limit.when()) is None:
            return None
        now = asyncio.get_running_loop().time()
        deadline = place.run.deadline
        place.limit.reschedule(None if deadline is None else now + max(0.0, deadline - self._clock()))
        return when - now

    def _start_clock(self, place: _Place) -> None:
        left, place.left = place.left, None
        if place.limit is None or left is None or place.limit.expired():
            return
        if place.run.deadline is not None:
            left = min(left, place.run.deadline - self._clock())
        place.limit.reschedule(asyncio.get_running_loop().time() + max(0.0, left))

    async def _take_place_again(self, place: _Place) -> None:
        asked = place, asyncio.get_running_loop().create_future()
        self._returning.append(asked)
        self.wake()
        try:
            await asked[1]
        finally:
            with contextlib.suppress(ValueError):
                self._returning.remove(asked)


def _again(run: ClaimedRun) -> str:
    return f" again (attempt {run.attempts})" if run.attempts > 1 else ""
