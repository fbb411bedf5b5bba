"""The outbox: effects written with a run's end are carried out here, each once, over any number of restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from gateway.channels.channel import NotConnected, Unreachable
from gateway.channels.routing import Destination
from gateway.ledger.effects import answer_of, report_of
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Effect, NewEffect
from protocols.errors import AtomizerError
from protocols.runs import RunSource, RunState, one_line
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("outbox")

BACKOFF_BASE = 1.0
BACKOFF_CAP = 60.0
"""Seconds between attempts: full jitter under base * 2^n, capped."""
RETRY_AFTER_CAP = 900.0
"""A provider that asks for more patience is asked again after so long."""
AWAY_SECONDS = 300.0
"""Until an effect is tried again whose channel is not connected; the connection makes it due (`EffectStore.hurry`)."""
GIVE_UP_SECONDS = 24 * 3600.0
"""An effect that could not be carried out for so long becomes a dead letter."""
GRACE_SECONDS = 900.0
"""A process tries for so long before it gives anything up: what is a day old may have waited for its start."""
_LOOK_SECONDS = 0.05
AT_ONCE = 64
"""Effects of one kind under way; those of another kind never wait for them."""
HEARTBEAT_OK = "HEARTBEAT_OK"
OK_REST = 300
"""Characters that may stand beside HEARTBEAT_OK and still be swallowed with it."""


class PermanentRefusal(AtomizerError):
    """It will never work as it stands: a dead letter."""


class FateUnknown(AtomizerError):
    """It may have been done, and nobody can tell any more: shown as `unknown`, and never repeated by itself."""


class Skip(AtomizerError):
    """There is nothing to do after all; the message says why."""


Handler = Callable[[Effect], Awaitable[str]]
"""Carries one effect out and says what was done. Raises PermanentRefusal, FateUnknown or Skip; others are retried."""


class Outbox:
    """Carries out the effects that are due."""

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        handlers: Mapping[str, Handler],
        *,
        on_change: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._handlers = handlers
        self._on_change = on_change
        self._clock = clock
        self._uniform = uniform
        self._wake = asyncio.Event()
        self._began = clock()
        self._under_way: dict[int, tuple[str, asyncio.Task[None]]] = {}
        """Effect's id -> its kind and what carries it out."""
        self._watched: dict[str, asyncio.Event] = {}

    def wake(self) -> None:
        self._wake.set()

    async def send(self, run_id: str, effect: NewEffect, seconds: float) -> None:
        """Write an effect, once for its key, and see it settled; at most `seconds`."""
        await self._ledger.effects.add(run_id, effect)
        await self.settled(effect.key, seconds)

    async def settled(self, key: str, seconds: float) -> None:
        """Until the effect was carried out or refused, or at most `seconds`."""
        watched = self._watched.setdefault(key, asyncio.Event())
        self.wake()
        try:
            letter = self._reader.letters.by_key(key)
            if letter is not None and letter.state == "pending":
                async with asyncio.timeout(seconds):
                    await watched.wait()
        except TimeoutError:
            return
        finally:
            self._watched.pop(key, None)

    async def emptied(self, seconds: float) -> None:
        """Until nothing is due any more; at most `seconds`."""
        with contextlib.suppress(DiskFull, TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._ledger.effects.due(limit=1):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)

    async def serve(self) -> None:
        """Until cancelled."""
        self._began = self._clock()
        try:
            while True:
                self._wake.clear()
                now = self._clock()
                try:
                    await self._begin_due(now)
                except DiskFull as error:
                    log.error("the outbox waits: %s", error)
                    await asyncio.sleep(BACKOFF_BASE * 5)
                    continue
                at = self._reader.next_effect_at(now)
                timeout = None if at is None else max(0.05, at - self._clock())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
        finally:
            tasks = [task for _, task in self._under_way.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin_due(self, now: float) -> None:
        """Begin what is due and not under way, of each kind as much as may be."""
        while True:
            kinds = Counter(kind for kind, _ in self._under_way.values())
            full = [kind for kind, count in kinds.items() if count >= AT_ONCE]
            due = await self._ledger.effects.due(now, but=list(self._under_way), kinds_but=full)
            if not due:
                return
            for effect in due:
                if kinds[effect.kind] < AT_ONCE:
                    kinds[effect.kind] += 1
                    task = asyncio.create_task(self._see_through(effect), name=effect.key)
                    self._under_way[effect.id] = effect.kind, task

    async def _see_through(self, effect: Effect) -> None:
        """To its end, before it is looked at again: what is on its way must not be sent twice."""
        try:
            await self._carry_out(effect)
        except DiskFull as error:
            log.error("%s of %s waits: %s", effect.kind, effect.run_id, error)
            await asyncio.sleep(BACKOFF_BASE * 5)
        finally:
            del self._under_way[effect.id]
            self._wake.set()

    async def _carry_out(self, effect: Effect) -> None:
        handler = self._handlers.get(effect.kind)
        try:
            if handler is None:
                raise PermanentRefusal(f"nothing here carries out {effect.kind!r}")
            detail = await handler(effect)
        except Skip as reason:
            await self._ledger.effects.settle(effect.id, "skipped", str(reason))
        except PermanentRefusal as error:
            log.error("%s of %s is a dead letter: %s", effect.kind, effect.run_id, error)
            await self._ledger.effects.settle(effect.id, "dead", str(error))
        except FateUnknown as error:
            log.error("%s of %s: nobody can tell whether it was delivered: %s", effect.kind, effect.run_id, error)
            await self._ledger.effects.settle(effect.id, "unknown", str(error))
        except DiskFull:
            raise
        except (AtomizerError, OSError, TimeoutError) as error:
            await self._again(effect, str(error) or type(error).__name__, self._patience(error))
        except Exception as error:  # a fault of ours in one effect must not stop the others
            log.exception("%s of %s broke", effect.kind, effect.run_id)
            await self._again(effect, f"{type(error).__name__}: {error}")
        else:
            await self._ledger.effects.settle(effect.id, "done", detail)
        if effect.key in self._watched:
            self._watched[effect.key].set()
        if effect.kind == "deliver":
            self._on_change(effect.run_id)

    def _patience(self, error: Exception) -> float:
        """Seconds that must pass before another try."""
        if isinstance(error, NotConnected):
            return self._uniform(AWAY_SECONDS / 2, AWAY_SECONDS)
        after = error.retry_after if isinstance(error, Unreachable) else None
        return min(after or 0.0, RETRY_AFTER_CAP)

    async def _again(self, effect: Effect, problem: str, patience: float = 0.0) -> None:
        now = self._clock()
        if now - effect.created_at > GIVE_UP_SECONDS and now - self._began > GRACE_SECONDS:
            await self._ledger.effects.settle(effect.id, "dead", f"given up after a day: {problem}")
            return
        ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(effect.attempts, 10))
        pause = patience + self._uniform(0.05, ceiling)
        log.warning("%s of %s: %s; again in %.1f s", effect.kind, effect.run_id, problem, pause)
        await self._ledger.effects.retry(effect.id, now + pause, problem)


def effects_of(
    run: ClaimedRun,
    state: RunState,
    text: str,
    reason: str,
    way: Destination,
    *,
    repeated: bool = False,
    answered_with: ClaimedRun | None = None,
) -> list[NewEffect]:
    """What leaves the process when `run` ends so: the log's line, the report to the delegator, the answer.

    `way` is where its answer goes; `repeated`: a heartbeat's alert that was told in these words before;
    `answered_with`: the run of the same conversation that this one was taken into.
    """
    effects: list[NewEffect] = []
    if run.source in (RunSource.HOOK, RunSource.SCHEDULE):
        outcome = one_line(text if state is RunState.SUCCEEDED else reason, 200)
        line = f"{state.value}: {one_line(run.message, 160)} -> {outcome or '(no text)'} (from {run.caller})"
        effects.append(NewEffect(key=f"{run.run_id}/log", kind="log", payload={"text": line}))
    if run.parent_run_id is not None and not run.people:
        effects.append(report_of(run.run_id, run.parent_run_id, run.caller, state, text, reason))
    if run.options.origin is not None:
        told = answer_of(run.run_id, run.options, state, "" if answered_with else text, reason)
        effects.append(msgspec.structs.replace(told, target=way.target, state=way.state, detail=way.detail))
    else:
        effects.append(_delivery(run, state, text, way, repeated))
    return effects


def _delivery(run: ClaimedRun, state: RunState, text: str, way: Destination, repeated: bool) -> NewEffect:
    """An answer that nobody on a channel asked for: of a hook, a schedule, a heartbeat."""
    if run.options.deliver:
        if state is not RunState.SUCCEEDED:
            way = Destination("skipped", way.target, f"the run {state.value}")
        elif run.source is RunSource.HEARTBEAT and swallowed(text):
            way = Destination("skipped", way.target, HEARTBEAT_OK)
        elif repeated:
            way = Destination("skipped", way.target, "told in the same words within the last day")
    return NewEffect(
        key=f"{run.run_id}/deliver",
        kind="deliver",
        payload={} if way.state == "skipped" else {"text": text},
        target=way.target,
        state=way.state,
        detail=way.detail,
    )


def swallowed(text: str) -> bool:
    """Is this a heartbeat's all-clear: HEARTBEAT_OK at its start or end, and little else?"""
    plain = text.removeprefix("[offline]").strip()
    if plain.startswith(HEARTBEAT_OK):
        rest = plain.removeprefix(HEARTBEAT_OK)
    elif plain.endswith(HEARTBEAT_OK):
        rest = plain.removesuffix(HEARTBEAT_OK)
    else:
        return False
    return len(rest.strip()) <= OK_REST
