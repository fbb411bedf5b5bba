"""Schedules: work an agent gives itself at its time, as `GET /schedules` shows it and `POST /schedules` takes it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocols.hooks import Key, Wire

ScheduleKind = Literal["at", "every", "cron"]
Missed = Literal["once", "skip"]


class Schedule(Wire, kw_only=True):
    """One schedule as it stands."""

    id: str
    name: str
    kind: ScheduleKind
    spec: str
    """An ISO time (`at`), a duration (`every`) or five cron fields."""
    tz: str
    message: str
    session_key: str
    """The conversation its runs belong to; `cron:<id>` unless given."""
    to: str | None = None
    """Target of the answers."""
    missed: Missed
    """What was due while the gateway was down: run `once`, or `skip`."""
    enabled: bool
    created_by: str
    created_at: float
    next_at: float | None = None
    """Unix seconds; null when nothing comes any more."""
    last_at: float | None = None
    """The due time that was last dealt with."""
    last_run_id: str | None = None
    """The last run it made; null if none yet."""


class NewSchedule(Wire):
    """Body of `POST /schedules`: exactly one of `at`, `every` and `cron`."""

    message: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000, pattern=r"\S")]
    name: Annotated[str, msgspec.Meta(max_length=80)] = ""
    at: str | None = None
    """An ISO time, `2026-12-01T09:00`; without an offset it is meant in `tz`."""
    every: str | None = None
    """A duration, `30m`; at least a minute."""
    cron: str | None = None
    """Five fields: minute, hour, day of month, month, day of week."""
    tz: str | None = None
    """`Europe/Berlin`; default `[schedule] tz`."""
    session_key: Key | None = None
    to: str | None = None
    missed: Missed | None = None
    """Default `[schedule] missed`."""
    idempotency_key: Key | None = None
    """A repeat with the same key answers with the first schedule."""


class ScheduleChange(Wire):
    """Body of `PUT /schedules/{id}`."""

    enabled: bool


class ScheduleList(Wire):
    schedules: list[Schedule]
