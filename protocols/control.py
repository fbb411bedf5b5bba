"""What the operator may change on a running gateway, and the records it reads back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from protocols.events import LogEvent
from protocols.hooks import Wire


class ModelChange(Wire):
    """Body of `PUT /control/model`. Null goes back to the configured model."""

    model: str | None


class ModelChanged(Wire):
    ok: bool
    model: str
    previous: str
    """What was active before."""
    undo: str | None
    """The value of `model` that would undo this: the override before, or null."""


class HeartbeatChange(Wire):
    """Body of `PUT /control/heartbeat`; an absent field stays as it is."""

    enabled: bool | None = None
    every_seconds: Annotated[float, msgspec.Meta(ge=1, le=7 * 86400)] | None = None


class Acted(Wire):
    """A control call that was carried out."""

    ok: bool
    outcome: str


class SessionSummary(Wire):
    key: str
    created_at: float
    updated_at: float
    messages: int
    route: str | None = None
    """The target a human last wrote from, if any."""


class SessionList(Wire):
    sessions: list[SessionSummary]


class TranscriptMessage(Wire):
    role: str
    content: Any
    run_id: str
    at: float
    seq: int = 0
    """Its place in the session: rising, with gaps."""


class Transcript(Wire):
    """A page of a session, oldest first."""

    key: str
    messages: list[TranscriptMessage]
    before: int | None = None
    """Asked for as `before`, the page before this one; null: there is none."""


class LogList(Wire):
    lines: list[LogEvent]
