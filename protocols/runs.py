"""Runs: one accepted piece of work for one agent, as `GET /hooks/runs/{id}` shows it."""

from __future__ import annotations

import random
import time
from enum import StrEnum
from typing import Any

import msgspec

from protocols.hooks import Wire


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        return self in _ENDED


_ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.LOST})


class RunSource(StrEnum):
    """Where a run came from; also its place in the queue, first is soonest."""

    HOOK = "hook"
    CHAT = "chat"
    SCHEDULE = "schedule"
    HEARTBEAT = "heartbeat"


class Usage(Wire):
    """Tokens. `input_tokens` counts everything sent, cached or not."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )


class Step(Wire):
    """One model answer or one tool call."""

    index: int
    kind: str
    """`model` or `tool`."""
    state: str
    """`started`, `done`, `failed` or `interrupted`."""
    name: str
    """The model's id, or the tool's name."""
    input: Any = None
    """A tool's arguments."""
    output: str | None = None
    """The text answered, or the tool's result (cut to 4,000 characters here)."""
    started_at: float = 0.0
    finished_at: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None


class Delivery(Wire):
    """What became of the answer once the run had ended: a fact apart from the run's own state."""

    status: str
    """`pending`, `delivered`, `skipped`, `dead` (a dead letter) or `unknown`."""
    detail: str = ""
    target: str | None = None
    attempts: int = 0


class ChildRun(Wire):
    """A delegation made by this run."""

    run_id: str
    agent: str
    task: str
    state: str
    text: str = ""
    error: str | None = None
    status_url: str = ""


class RunError(Wire):
    code: str
    message: str


class RunSummary(Wire, kw_only=True):
    """A run in a list or an event: everything but its steps and full text."""

    run_id: str
    agent: str
    state: RunState
    reason: str = ""
    """Why it waits, failed or was cancelled, in one line."""
    source: RunSource
    name: str
    caller: str = msgspec.field(name="from")
    """`operator`, or an agent's name."""
    session_key: str
    task: str
    """The message's beginning, one line of at most 200 characters."""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    model: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_usd: float | None = None
    """US dollars; null where the price is unknown, never a guess."""
    parent_run_id: str | None = None
    depth: int = 0
    delivery: Delivery | None = None
    preview: str = ""
    """The answer's beginning, one line of at most 200 characters."""


class Run(RunSummary, kw_only=True):
    """A run in full."""

    message: str
    text: str = ""
    error: RunError | None = None
    steps: list[Step] = msgspec.field(default_factory=list)
    children: list[ChildRun] = msgspec.field(default_factory=list)
    attempts: int = 0
    """How often it was started; above 1 after a restart."""
    idempotency_key: str | None = None
    deadline: float | None = None
    facts: dict[str, bool | None] = msgspec.field(default_factory=dict)
    """`accepted`, `run`, `delivered`, `verified`: four separate facts; null where nobody has looked."""


class RunList(Wire):
    runs: list[RunSummary]
    total: int


def one_line(text: str, limit: int = 200) -> str:
    """`text` on one line, cut with an ellipsis at `limit` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def new_run_id() -> str:
    """A fresh id: `run-`, 11 hex digits of milliseconds, 10 random ones; an id of a later millisecond sorts later."""
    return f"run-{int(time.time() * 1000):011x}{random.getrandbits(40):010x}"
