"""A run in one file: enough to go through it again step by step, without a model, a tool or a network."""

from __future__ import annotations

from typing import Any

from protocols.hooks import Wire
from protocols.runs import Run

FORMAT = 1


class RecordedMessage(Wire):
    """A message of the conversation; `content` is its blocks as the ledger has them."""

    role: str
    content: Any


class RecordedAnswer(Wire):
    """What the ledger knows of one model answer beside its message, in the order of the answers."""

    model: str
    prompt_hash: str
    """Of the stable part of the system prompt, which stands in `prompts`."""
    volatile: str


class Recording(Wire):
    """`GET /hooks/runs/{id}/recording`."""

    format: int
    exported_at: float
    agent: str
    run: Run
    before: list[RecordedMessage]
    """The session before the run, as its model was given it."""
    conversation: list[RecordedMessage]
    """From the run's own message to its last answer, with what others said meanwhile."""
    answers: list[RecordedAnswer]
    prompts: dict[str, str]
    compacted: bool
    """The conversation was summarised during the run, so a replay cannot compare what the model was given."""
