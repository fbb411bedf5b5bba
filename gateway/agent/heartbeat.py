"""The heartbeat: a periodic, cheap self-check turn. Every gate is passed before a token is spent; it re-arms always."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewRun, RunOptions
from protocols.runs import RunSource, RunState, new_run_id
from protocols.status import HeartbeatStatus
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("heartbeat")

PAUSE_AFTER = 3
"""Failures in a row after which beats stop until a person asks for one."""
_PAUSING = ("model_auth", "model_quota")
"""Error codes that stop beats at once: money and keys."""
_FIRST_SECONDS = 60.0
_GRACE_SECONDS = 60.0


class BeatConfig(msgspec.Struct, frozen=True):
    enabled: bool
    every: float
    """Seconds between beats; 0 is off."""
    quiet: tuple[int, int] | None
    """Minutes of the day (start, end) without beats."""
    tz: str
    target: str | None = None


class Heartbeat:
    """Beats at its time, and on request."""

    def __init__(
        self,
        agent: str,
        config: BeatConfig,
        workspace: Path,
        ledger: Ledger,
        reader: Reader,
        *,
        busy: Callable[[], bool],
        wake_runner: Callable[[], None],
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._agent = agent
        self._config = config
        self._workspace = workspace
        self._ledger = ledger
        self._reader = reader
        self._busy = busy
        self._wake_runner = wake_runner
        self._on_change = on_change
        self._clock = clock
        self._poke = asyncio.Event()
        self._asked = False
        self._run_id: str | None = None
        self._failures = 0
        self._paused = ""
        last = reader.last_beat()
        self._last_at: float | None = last[0] if last else None
        self._last_outcome = last[1] if last else ""
        self._next_at = self._first()

    def configure(self, config: BeatConfig) -> None:
        self._config = config
        self._next_at = max(self._clock() + 1.0, (self._last_at or self._clock()) + config.every)
        self._poke.set()
        self._on_change()

    @property
    def config(self) -> BeatConfig:
        return self._config

    @property
    def on(self) -> bool:
        return self._config.enabled and self._config.every > 0

    def status(self) -> HeartbeatStatus:
        now = self._clock()
        overdue = self.on and not self._paused and now > self._next_at + _GRACE_SECONDS
        state = (
            "beating"
            if self._run_id
            else "off"
            if not self.on
            else "paused"
            if self._paused
            else "overdue"
            if overdue
            else "scheduled"
        )
        return HeartbeatStatus(
            enabled=self.on,
            every_seconds=self._config.every,
            state=state,
            last_at=self._last_at,
            last_outcome=self._last_outcome,
            next_at=self._next_at if self.on and not self._paused else None,
            failures=self._failures,
            reason=self._paused,
        )

    def beat_now(self) -> str:
        """A person asks for a beat: quiet hours, `off` and a pause do not hold it up. What happens next, in words."""
        if self._run_id is not None:
            return f"already beating ({self._run_id})"
        self._paused, self._failures = "", 0
        self._asked = True
        self._poke.set()
        return "beating"

    def note_added(self) -> None:
        """A wake asks for attention now."""
        self._asked = True
        self._poke.set()

    async def serve(self) -> None:
        """Until cancelled. Whatever one beat does, the next is armed."""
        while True:
            self._poke.clear()
            if not self._asked:
                await self._until_due()
            if not self._asked and (not self.on or self._paused or self._clock() < self._next_at):
                continue
            asked, self._asked = self._asked, False
            try:
                await self._beat(asked)
            except (DiskFull, OSError) as error:
                log.error("no beat: %s", error)
                self._last_outcome = f"failed: {error}"
            finally:
                self._next_at = self._clock() + max(1.0, self._config.every)
                self._on_change()

    async def ended(self, run: ClaimedRun, ending: Ending, ok: bool) -> None:
        """A beat's run has ended; `ok`: it said that nothing needs attention."""
        if run.run_id == self._run_id:
            self._run_id = None
        if ending.state is RunState.SUCCEEDED:
            self._failures, outcome = 0, "ok" if ok else "alert"
        else:
            self._failures += 1
            outcome = f"failed: {ending.reason or ending.state.value}"
            code = ending.error.code if ending.error else ""
            if code in _PAUSING:
                self._paused = f"paused: {ending.reason}; ask for a beat when it is mended"
            elif self._failures >= PAUSE_AFTER:
                self._paused = f"paused after {self._failures} failures: {ending.reason}"
            if self._paused:
                log.error("heartbeat %s", self._paused)
        await self._record(outcome, run.run_id)

    async def _until_due(self) -> None:
        timeout = max(0.0, self._next_at - self._clock()) if self.on and not self._paused else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._poke.wait()

    async def _beat(self, asked: bool) -> None:
        gate = None if asked else self._closed_gate()
        if gate is not None:
            await self._ledger.beats.release_held()
            self._wake_runner()
            await self._record(f"skipped: {gate}", None)
            return
        if self._run_id is not None:
            return
        self._run_id = await self._ledger.beats.accept(self._make)
        self._wake_runner()
        self._on_change()

    def _closed_gate(self) -> str | None:
        """The first gate that a scheduled beat does not pass."""
        if self._quiet_now():
            return "quiet hours"
        if self._busy():
            return "busy"
        if self._run_id is not None:
            return "the last beat is still under way"
        return "HEARTBEAT.md is empty" if self._nothing_to_check() else None

    def _quiet_now(self) -> bool:
        if self._config.quiet is None:
            return False
        from zoneinfo import ZoneInfo

        local = dt.datetime.fromtimestamp(self._clock(), ZoneInfo(self._config.tz))
        minute = local.hour * 60 + local.minute
        start, end = self._config.quiet
        return start <= minute < end if start <= end else minute >= start or minute < end

    def _nothing_to_check(self) -> bool:
        """HEARTBEAT.md holds nothing but blank lines and headings. A missing one still beats: it may be a mistake."""
        try:
            text = (self._workspace / "HEARTBEAT.md").read_text(errors="replace")
        except OSError:
            return False
        return not re.search(r"^(?!\s*#)(?!\s*$).+", text, re.MULTILINE)

    def _make(self, notes: list[tuple[str, str, float]]) -> NewRun:
        run_id = new_run_id()
        lines = ["Heartbeat: go through HEARTBEAT.md. If nothing needs attention, answer HEARTBEAT_OK."]
        if notes:
            lines.append("Notes since the last beat (data, with their sender):")
            lines += [f"- {time.strftime('%H:%M', time.gmtime(at))} {sender}: {text}" for text, sender, at in notes]
        return NewRun(
            run_id=run_id,
            source=RunSource.HEARTBEAT,
            name="Heartbeat",
            caller=self._agent,
            people=False,
            session_key=f"heartbeat:{run_id}",
            message="\n".join(lines),
            options=RunOptions(to=self._config.target),
        )

    async def _record(self, outcome: str, run_id: str | None) -> None:
        self._last_at, self._last_outcome = self._clock(), outcome
        await self._ledger.beats.save(outcome, run_id)
        self._on_change()

    def _first(self) -> float:
        now = self._clock()
        due = (self._last_at or now) + self._config.every
        return max(due, now + min(_FIRST_SECONDS, max(1.0, self._config.every)))
