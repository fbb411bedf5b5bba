"""`GET /events`: server-sent events, resumable by `Last-Event-ID`.

Each event's `data` is one JSON object whose `type` is also the SSE event's name. Ids are `<instance>-<sequence>`.
"""

from __future__ import annotations

import msgspec

from protocols.approvals import Approval
from protocols.runs import RunSummary
from protocols.status import AgentStatus, HeartbeatStatus, ModelStatus


class _Event(msgspec.Struct, tag_field="type", rename="camel", kw_only=True):
    at: float
    """Unix seconds."""
    agent: str


class HelloEvent(_Event, tag="hello"):
    """First on every connection."""

    instance: str
    version: str


class RunEvent(_Event, tag="run"):
    run: RunSummary


class LogEvent(_Event, tag="log"):
    level: str
    """`debug`, `info`, `warning` or `error`."""
    logger: str
    message: str
    run_id: str | None = None


class HeartbeatEvent(_Event, tag="heartbeat"):
    heartbeat: HeartbeatStatus


class ModelEvent(_Event, tag="model"):
    model: ModelStatus


class ApprovalEvent(_Event, tag="approval"):
    approval: Approval


class DeltaEvent(_Event, tag="delta"):
    """Text of a run as it streams. `reset` true: forget what was shown before, the step began anew."""

    run_id: str
    text: str
    reset: bool = False


class StepEvent(_Event, tag="step"):
    """Steps of a run were written since the last of these; the run itself says which."""

    run_id: str


class StatusEvent(_Event, tag="status"):
    """The whole of `/status`, at most once a second and only when something changed."""

    status: AgentStatus


class GapEvent(_Event, tag="gap"):
    """`missed` events were dropped because the reader was slow or came back late."""

    missed: int


Event = (
    HelloEvent
    | RunEvent
    | LogEvent
    | HeartbeatEvent
    | ModelEvent
    | ApprovalEvent
    | DeltaEvent
    | StepEvent
    | StatusEvent
    | GapEvent
)
