"""The schedule: work that begins at its time. Each due time becomes one run, over any number of restarts."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import logging
import random
import time
from collections.abc import Callable

import msgspec

from gateway.agent.timing import TimingError, first_due, next_due, zone
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun, RunOptions
from protocols.errors import AtomizerError
from protocols.runs import RunSource, new_run_id, one_line
from protocols.schedules import Missed, NewSchedule, Schedule, ScheduleKind
from protocols.targets import TargetError, parse_target
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("schedule")

GRACE_SECONDS = 60.0
"""A due time that is dealt with later than this was missed."""
MAX_SCHEDULES = 50
_LOOK_SECONDS = 60.0
"""The clock is looked at so often at least: it may have been set, or the machine have slept."""
_RETRY_SECONDS = 5.0


class ScheduleRefused(AtomizerError):
    """A schedule that cannot be kept; the message says why."""


class ScheduleConfig(msgspec.Struct, frozen=True):
    tz: str
    missed: Missed


class Scheduler:
    """Keeps the schedules of one agent and makes their runs."""

    def __init__(
        self,
        agent: str,
        config: ScheduleConfig,
        ledger: Ledger,
        reader: Reader,
        *,
        on_accept: Callable[[NewRun], None],
        on_change: Callable[[], None],
        redact: Callable[[str], str],
        draining: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_accept` after a run was queued; `on_change` after anything that `/status` shows."""
        self._agent = agent
        self._config = config
        self._ledger = ledger
        self._reader = reader
        self._on_accept = on_accept
        self._on_change = on_change
        self._redact = redact
        self._draining = draining
        self._clock = clock
        self._wake = asyncio.Event()

    def configure(self, config: ScheduleConfig) -> None:
        """For schedules made from now on; those there are keep what they were made with."""
        self._config = config

    async def add(self, asked: NewSchedule, *, by: str) -> Schedule:
        """Keep a schedule; with a key that was used before, the first one. Raises ScheduleRefused or TimingError."""
        kind, spec = _kind_of(asked)
        tz = asked.tz or self._config.tz
        zone(tz)
        if asked.to is not None:
            try:
                parse_target(asked.to)
            except TargetError as error:
                raise ScheduleRefused(f"to: {error}") from None
        ident = _ident(by, asked.idempotency_key)
        found = self._reader.schedules.find(ident)
        if found is not None:
            return found
        now = self._clock()
        schedule = Schedule(
            id=ident,
            name=asked.name or one_line(asked.message, 60),
            kind=kind,
            spec=spec,
            tz=tz,
            message=self._redact(asked.message),
            session_key=asked.session_key or f"cron:{ident}",
            to=asked.to,
            missed=asked.missed or self._config.missed,
            enabled=True,
            created_by=by,
            created_at=now,
            next_at=first_due(kind, spec, tz, now),
        )
        kept = await self._ledger.schedules.add(schedule, MAX_SCHEDULES)
        if kept is None:
            raise ScheduleRefused(f"{self._agent} has {MAX_SCHEDULES} schedules, as many as it may; remove one first")
        log.info("schedule %s (%s %s, %s): next %s", kept.id, kind, spec, tz, when_text(kept.next_at, tz))
        self._changed()
        return kept

    async def remove(self, schedule_id: str) -> bool:
        """False if there is none of that id. Its runs stay."""
        removed = await self._ledger.schedules.remove(schedule_id)
        if removed:
            self._changed()
        return removed

    async def enable(self, schedule_id: str, enabled: bool) -> Schedule | None:
        """Switch on or off; None if there is none. What was due while it was off is not made up for."""
        found = self._reader.schedules.find(schedule_id)
        if found is None:
            return None
        next_at = found.next_at
        if enabled and not found.enabled:
            next_at = next_due(
                found.kind, found.spec, found.tz, anchor=found.last_at or found.created_at, after=self._clock()
            )
            if next_at is None:
                raise ScheduleRefused(f"{schedule_id} ({found.kind} {found.spec}) has nothing to come; add a new one")
        changed = await self._ledger.schedules.enable(schedule_id, enabled, next_at)
        self._changed()
        return changed

    async def serve(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            if self._draining():  # what falls due is for the next process, which knows it as late
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            try:
                for due in self._reader.schedules.due(self._clock()):
                    await self._deal_with(due)
            except (DiskFull, OSError) as error:
                log.error("the schedule waits %.0f s: %s", _RETRY_SECONDS, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            at = self._reader.schedules.next_at()
            timeout = None if at is None else min(_LOOK_SECONDS, max(0.0, at - self._clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wake.wait()

    async def _deal_with(self, due: Schedule) -> None:
        """One due time: its run and the next time, in one transaction."""
        now = self._clock()
        assert due.next_at is not None
        try:
            following = next_due(due.kind, due.spec, due.tz, anchor=due.next_at, after=max(now, due.next_at))
        except TimingError as error:
            log.error("schedule %s is switched off: %s", due.id, error)
            await self._ledger.schedules.disable(due.id)
            self._on_change()
            return
        late = now - due.next_at
        skip = due.missed == "skip" and late > GRACE_SECONDS
        run = None if skip else self._make(due, late)
        accepted = await self._ledger.schedules.move_on(due, following, run)
        if accepted and run is not None:
            self._on_accept(run)
        else:
            why = "missed" if skip else "its last run is still under way, or it was changed"
            log.warning("schedule %s passes over %s: %s", due.id, when_text(due.next_at, due.tz), why)
        self._on_change()

    def _make(self, due: Schedule, late: float) -> NewRun:
        assert due.next_at is not None
        message = due.message
        if late > GRACE_SECONDS:
            was = when_text(due.next_at, due.tz)
            message += f"\n\n[This was due {was} and begins {late / 60:.0f} min late: the gateway was down then.]"
        return NewRun(
            run_id=new_run_id(),
            source=RunSource.SCHEDULE,
            name=due.name,
            caller=self._agent,
            people=False,
            session_key=due.session_key,
            message=message,
            options=RunOptions(to=due.to),
            idempotency_key=f"schedule:{due.id}:{due.next_at:.3f}",
        )

    def _changed(self) -> None:
        self._wake.set()
        self._on_change()


def when_text(at: float | None, tz: str) -> str:
    """A due time as people read it."""
    if at is None:
        return "never"
    return f"{dt.datetime.fromtimestamp(at, zone(tz)):%Y-%m-%d %H:%M} {tz}"


def _kind_of(asked: NewSchedule) -> tuple[ScheduleKind, str]:
    given: list[tuple[ScheduleKind, str | None]] = [("at", asked.at), ("every", asked.every), ("cron", asked.cron)]
    chosen = [(kind, spec) for kind, spec in given if spec is not None]
    if len(chosen) != 1:
        raise ScheduleRefused("give exactly one of `at` (an ISO time), `every` (a duration) and `cron` (five fields)")
    return chosen[0]


def _ident(by: str, key: str | None) -> str:
    """A schedule's id: the same for the same caller and key."""
    if key is None:
        return f"sch-{random.getrandbits(40):010x}"
    return f"sch-{hashlib.sha256(f'{by}/{key}'.encode()).hexdigest()[:10]}"
