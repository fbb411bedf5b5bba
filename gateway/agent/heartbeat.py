"""The heartbeat: a periodic, cheap self-check turn. Every gate is passed before a token is spent; it re-arms always."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.agent.changes import fingerprint
from gateway.agent.inside import read_inside
from gateway.agent.prompt import FILE_LIMIT
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewRun, RunOptions
from gateway.ledger.watching import BeatReader
from protocols.runs import RunSource, RunState, RunSummary, new_run_id
from protocols.status import HeartbeatStatus
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("heartbeat")

PAUSE_AFTER = 3
"""Failures in a row after which beats stop until a person asks for one."""
_PAUSING = ("model_auth", "model_quota")
"""Error codes that stop beats at once: money and keys."""
_NO_MONEY = "budget"
"""The error code of a run that the budget refused: no failure of the heartbeat's."""
MAX_SECONDS = 600.0
"""A beat may take so long, or as long as until the next."""
REPEAT_SECONDS = 24 * 3600.0
"""An alert in the same words is told once in so long."""
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
    """Where an alert goes: a target, or `last`; None: it is only logged."""
    only_if_changed: bool = True
    isolated: bool = True
    """A conversation of its own for each beat; else the main session."""
    model: str | None = None


async def _no_limit() -> str:
    return ""


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
        shared: Path | None = None,
        busy: Callable[[], bool],
        draining: Callable[[], bool] = lambda: False,
        route: Callable[[str | None], tuple[str | None, str]] = lambda target: (target, ""),
        money: Callable[[], Awaitable[str]] = _no_limit,
        wake_runner: Callable[[], None],
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`route(target)` is (where an alert goes, why it cannot); `money()` why there is none for a model call."""
        self._agent = agent
        self._shared = shared or workspace
        self._route = route
        self._money = money
        self._look = BeatReader(ledger.path)
        self._config = config
        self._workspace = workspace
        self._ledger = ledger
        self._reader = reader
        self._busy = busy
        self._draining = draining
        self._wake_runner = wake_runner
        self._on_change = on_change
        self._clock = clock
        self._poke = asyncio.Event()
        self._asked = self._asked_meanwhile = False
        self._run_id: str | None = None
        self._seen: dict[str, str] = {}
        self._failures = 0
        self._paused = ""
        last = reader.last_beat()
        self._last_at: float | None = last[0] if last else None
        self._last_outcome = last[1] if last else ""
        last_run = self._look.last_run()
        self._last_run: RunSummary | None = reader.summary(last_run) if last_run else None
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
            **self._last_used(),
        )

    def repeats(self, run: ClaimedRun, text: str) -> bool:
        """Is `text` an alert that a beat has already told within the last day, in the same words?"""
        if run.source is not RunSource.HEARTBEAT or not text.strip():
            return False
        told = self._look.alerts(self._clock() - REPEAT_SECONDS, but=run.run_id)
        return _words(text) in {_words(other) for other in told}

    def beat_now(self) -> str:
        """A person asks for a beat: quiet hours, `off` and a pause do not hold it up. What happens next, in words."""
        if self._run_id is not None:
            return f"already beating ({self._run_id})"
        if self._draining():
            return f"{self._agent} is draining: no beat begins until it is restarted"
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
        if self._asked_meanwhile:
            self._asked_meanwhile = False
            self.note_added()
        seen = self._seen.pop(run.run_id, "")
        code = ending.error.code if ending.error else ""
        if ending.state is RunState.SUCCEEDED:
            self._failures = 0
            outcome = "ok" if ok else "duplicate" if self.repeats(run, ending.text) else "alert"
        elif code == _NO_MONEY:
            outcome = f"skipped: budget ({ending.reason})"
        elif ending.state is RunState.CANCELLED:
            outcome = f"cancelled: {ending.reason}"
        else:
            self._failures += 1
            outcome = f"failed: {ending.reason or ending.state.value}"
            if code in _PAUSING:
                self._paused = f"paused: {ending.reason}; ask for a beat when it is mended"
            elif self._failures >= PAUSE_AFTER:
                self._paused = f"paused after {self._failures} failures: {ending.reason}"
            if self._paused:
                log.error("heartbeat %s", self._paused)
        self._last_run = self._reader.summary(run.run_id)
        await self._record(outcome, run.run_id, seen)

    async def _until_due(self) -> None:
        timeout = max(0.0, self._next_at - self._clock()) if self.on and not self._paused else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._poke.wait()

    async def _beat(self, asked: bool) -> None:
        if self._run_id is not None and asked:
            self._asked_meanwhile = True  # the beat under way was made before: another follows it
            return
        seen = await asyncio.to_thread(self._fingerprint)
        gate = "draining" if self._draining() else None if asked else await self._closed_gate(seen)
        if gate is not None:
            await self._ledger.beats.release_held()
            self._wake_runner()
            await self._record(f"skipped: {gate}", None)
            return
        run_id = await self._ledger.beats.accept(self._make)
        self._run_id = run_id
        self._seen[run_id] = seen
        self._wake_runner()
        self._on_change()

    async def _closed_gate(self, seen: str) -> str | None:
        """The first gate that a scheduled beat does not pass; none of them asks a model."""
        if self._quiet_now():
            return "quiet hours"
        if self._busy():
            return "busy"
        if self._run_id is not None:
            return "the last beat is still under way"
        if self._nothing_to_check():
            return "HEARTBEAT.md is empty"
        if self._config.only_if_changed and await asyncio.to_thread(self._nothing_new, seen):
            return "nothing has changed since the last beat"
        _, problem = self._route(self._config.target)
        if problem:
            return f"no route ({problem})"
        no_money = await self._money()
        return f"budget ({no_money})" if no_money else None

    def _fingerprint(self) -> str:
        return fingerprint(self._look.facts(), self._workspace, self._shared)

    def _nothing_new(self, seen: str) -> bool:
        return seen == self._look.last_fingerprint() and not self._look.notes_waiting()

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
            raw = read_inside(self._workspace / "HEARTBEAT.md", (self._workspace, self._shared), FILE_LIMIT)
        except OSError:
            return False
        return not re.search(r"^(?!\s*#)(?!\s*$).+", raw.decode(errors="replace"), re.MULTILINE)

    def _make(self, notes: list[tuple[str, str, float]]) -> NewRun:
        run_id = new_run_id()
        config = self._config
        target, _ = self._route(config.target)
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
            session_key=f"heartbeat:{run_id}" if config.isolated else f"agent:{self._agent}:main",
            message="\n".join(lines),
            options=RunOptions(
                deliver=target is not None,
                to=target,
                model=config.model,
                timeout_seconds=min(config.every, MAX_SECONDS) if config.every > 0 else MAX_SECONDS,
            ),
        )

    async def _record(self, outcome: str, run_id: str | None, seen: str = "") -> None:
        self._last_at, self._last_outcome = self._clock(), outcome
        await self._ledger.beats.save(outcome, run_id, seen)
        self._on_change()

    def _last_used(self) -> dict[str, Any]:
        """What the last beat that asked a model used."""
        run = self._last_run
        return (
            {} if run is None else {"last_run_id": run.run_id, "last_usage": run.usage, "last_cost_usd": run.cost_usd}
        )

    def _first(self) -> float:
        now = self._clock()
        due = (self._last_at or now) + self._config.every
        return max(due, now + min(_FIRST_SECONDS, max(1.0, self._config.every)))


def _words(text: str) -> str:
    """An alert's words, whatever their spacing and case."""
    return " ".join(text.split()).casefold()
