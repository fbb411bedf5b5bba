"""What goes into the ledger and comes out of it, as types."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from protocols.hooks import Thinking
from protocols.runs import RunError, RunSource, RunState, RunSummary, Usage, one_line


class Origin(msgspec.Struct, frozen=True):
    """The message on a channel that a run answers."""

    place: str
    """Target of the channel it stands in: also for a direct message, whose answer's target is the person."""
    message_id: str
    author: str
    """Target of who wrote it."""
    name: str = ""
    """How people see them."""


class Picture(msgspec.Struct, frozen=True):
    """An image that came with a message: where it lies, and what it was then."""

    path: str
    """In the agent's workspace."""
    media_type: str
    sha256: str


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run was asked to be carried out, and what came with its message."""

    deliver: bool = True
    channel: str | None = None
    to: str | None = None
    model: str | None = None
    thinking: Thinking | None = None
    timeout_seconds: float | None = None
    origin: Origin | None = None
    context: str = ""
    """What its model reads before the message: who wrote it, and what was said and sent around it, marked as data."""
    pictures: list[Picture] = []


class NewRun(msgspec.Struct, frozen=True):
    """A run that is about to be accepted."""

    run_id: str
    source: RunSource
    name: str
    caller: str
    people: bool
    """A person asked for it: it may take the place kept for people."""
    session_key: str
    message: str
    options: RunOptions = RunOptions()
    held: bool = False
    """Stays queued until the next heartbeat."""
    idempotency_key: str | None = None
    parent_run_id: str | None = None
    depth: int = 0
    deadline: float | None = None

    @property
    def route(self) -> str | None:
        """Where the session answers from now on: to whom a person wrote from there.

        Only a person's own message says so. Hooks, schedules and heartbeats never move a session, whatever they carry.
        """
        return self.options.to if self.source is RunSource.CHAT and self.people else None

    def summary(self, agent: str, at: float) -> RunSummary:
        """The run as it stands when it has just been queued."""
        return RunSummary(
            run_id=self.run_id,
            agent=agent,
            state=RunState.QUEUED,
            source=self.source,
            name=self.name,
            caller=self.caller,
            session_key=self.session_key,
            task=one_line(self.message),
            created_at=at,
            parent_run_id=self.parent_run_id,
            depth=self.depth,
        )


class ClaimedRun(msgspec.Struct, frozen=True):
    """A run that was given a place: everything its turn needs to begin or go on."""

    run_id: str
    source: RunSource
    name: str
    caller: str
    people: bool
    session_key: str
    message: str
    options: RunOptions
    parent_run_id: str | None
    depth: int
    deadline: float | None
    attempts: int
    started_at: float


class PromptUsed(msgspec.Struct, frozen=True):
    """The system prompt that an answer was given to; the stable part is stored once for its hash."""

    stable: str
    volatile: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.stable.encode()).hexdigest()[:32]


class StoredStep(msgspec.Struct, frozen=True):
    """A tool call as journalled."""

    index: int
    state: str
    call_id: str
    """`<answer>.<call>`; of a call made by a call, that and `/<number>`."""
    name: str
    input: str
    """The arguments as JSON."""
    output: str
    is_error: bool


class StoredMessage(msgspec.Struct, frozen=True):
    """A message of a session as it stands in the ledger; `content` is its blocks as JSON."""

    seq: int
    role: str
    content: str
    run_id: str

    @property
    def has_results(self) -> bool:
        """Does it carry tool results?"""
        return self.role == "user" and '"type":"tool_result"' in self.content


class StoredCompaction(msgspec.Struct, frozen=True):
    """The newest summary of a session: it stands for all messages up to `upto_seq`."""

    upto_seq: int
    summary: str
    checkpoint: str
    at: float


class NewCompaction(msgspec.Struct, frozen=True):
    upto_seq: int
    summary: str
    checkpoint: str
    tokens_before: int
    tokens_after: int
    model: str
    usage: Usage
    cost_usd: float | None


class NewEffect(msgspec.Struct, frozen=True):
    """Something that will leave the process, written with the run's end."""

    key: str
    """Unique for ever: a second effect with this key is not made."""
    kind: str
    """`log`, `report`, `cancel`, `deliver` or `message`."""
    payload: Any
    target: str | None = None
    state: str = "pending"
    detail: str = ""


class Effect(msgspec.Struct, frozen=True):
    """An effect that is due."""

    id: int
    key: str
    run_id: str
    kind: str
    target: str | None
    payload: Any
    attempts: int
    created_at: float


class Ending(msgspec.Struct, frozen=True):
    """How a run ended."""

    state: RunState
    text: str = ""
    reason: str = ""
    error: RunError | None = None
    effects: list[NewEffect] = []
    merged: dict[str, list[NewEffect]] = {}
    """Runs that were taken into this one -> what leaves the process for each."""
