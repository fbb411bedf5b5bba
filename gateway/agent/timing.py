"""When a schedule is due: `at`, `every` and `cron`, in a time zone, over changes of daylight saving time.

Cron follows Debian's: a fixed time that a change skips comes right after it, one that a change repeats comes once, and
expressions with a wildcard hour follow the clock's minutes.
"""

from __future__ import annotations

import datetime as dt
import re

from protocols.errors import AtomizerError
from protocols.schedules import ScheduleKind
from runtime.config import parse_duration

MIN_EVERY = 60.0
"""Seconds: shorter spans burn money faster than anybody looks."""
MAX_EVERY = 366 * 86400.0
LAST = 7258118400.0
"""2200-01-01: nobody means a later time."""
_FORM = "write five fields: minute hour day-of-month month day-of-week, for example `0 9 * * mon-fri`"


class TimingError(AtomizerError):
    """A time that cannot be understood or never comes; the message shows the form."""


def zone(name: str) -> dt.tzinfo:
    """The time zone `name`; raises TimingError."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # most gateways have no schedule

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TimingError(f"{name!r} is not a time zone of this machine; write one like Europe/Berlin or UTC") from None


def first_due(kind: ScheduleKind, spec: str, tz: str, now: float) -> float:
    """When a new schedule is due first, unix seconds; raises TimingError, also for an `at` in the past."""
    if kind == "at":
        due = _at(spec, tz)
        if due <= now:
            raise TimingError(f"at {spec!r} ({tz}) has passed; give a time to come")
        return due
    due_next = next_due(kind, spec, tz, anchor=now, after=now)
    if due_next is None:
        raise TimingError(f"cron {spec!r} never comes")
    return due_next


def next_due(kind: ScheduleKind, spec: str, tz: str, *, anchor: float, after: float) -> float | None:
    """The first due time later than `after`, or None; `anchor` is one earlier due time (or the start) of `every`."""
    if kind == "at":
        due = _at(spec, tz)
        return due if due > after else None
    if kind == "every":
        span = _every(spec)
        return anchor + span * (max(0, int((after - anchor) // span)) + 1)
    return _cron(spec, tz, after)


def _at(spec: str, tz: str) -> float:
    try:
        when = dt.datetime.fromisoformat(spec.strip())
    except ValueError:
        raise TimingError(f"{spec!r} is not an ISO time: write for example 2026-12-01T09:00") from None
    local = when if when.tzinfo is not None else when.replace(tzinfo=zone(tz))
    try:
        due = local.timestamp()
    except (OverflowError, ValueError, OSError):
        due = LAST
    if not 0 < due < LAST:  # a year 10000 in another time zone could be kept and never shown again
        raise TimingError(f"{spec!r} lies outside the years that are kept here, up to 2199")
    return due


def _every(spec: str) -> float:
    try:
        span = parse_duration(spec)
    except ValueError as error:
        raise TimingError(str(error)) from None
    if not MIN_EVERY <= span <= MAX_EVERY:
        raise TimingError(f"every {spec!r}: from {MIN_EVERY:.0f} s to {MAX_EVERY / 86400:.0f} days")
    return span


def _cron(spec: str, tz: str, after: float) -> float | None:
    from cronsim import CronSim, CronSimError  # only a gateway with a cron schedule needs it

    if len(re.split(r"\s+", spec.strip())) != 5:
        raise TimingError(f"cron {spec!r}: {_FORM}")
    try:
        times = CronSim(spec.strip(), dt.datetime.fromtimestamp(after, zone(tz)))
        for when in times:
            if when.timestamp() > after:  # inside a repeated hour the library may begin one fold too early
                return float(when.timestamp())
    except CronSimError as error:
        raise TimingError(f"cron {spec!r}: {str(error).lower()}; {_FORM}") from None
    return None
