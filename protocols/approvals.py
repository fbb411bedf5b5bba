"""Approvals: one question to a human, whoever asks it."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocols.hooks import Wire


class Approval(Wire, kw_only=True):
    id: str
    agent: str
    run_id: str | None = None
    tool: str = ""
    """The tool that wants to be called, if it is about one."""
    question: str
    detail: str = ""
    state: str = "pending"
    """`pending`, `approved`, `rejected` or `expired`."""
    revision: int = 0
    created_at: float = 0.0
    expires_at: float | None = None
    answered_at: float | None = None
    answered_by: str | None = None
    """Who answered: `operator`, or a person's target on a channel; null if it expired."""
    reason: str = ""


class ApprovalList(Wire):
    approvals: list[Approval] = msgspec.field(default_factory=list)


class ApprovalAnswer(Wire):
    """Body of `POST /approvals/{id}`; a `revision` that is not the current one gets 409."""

    decision: Literal["approve", "reject"]
    revision: int
    reason: str = ""
