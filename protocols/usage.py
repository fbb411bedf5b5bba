"""`GET /usage`: what an agent's models used and cost, by day and model, by session and by run."""

from __future__ import annotations

import msgspec

from protocols.hooks import Wire
from protocols.runs import RunSource, Usage
from protocols.status import BudgetStatus


class UsageRow(Wire):
    """One UTC day and model."""

    day: str
    """ISO date."""
    model: str
    calls: int
    """Answers of the model."""
    usage: Usage
    cost_usd: float | None
    """US dollars; null where any call's price is unknown, never a guess."""


class SessionUsage(Wire):
    session_key: str
    runs: int
    calls: int
    usage: Usage
    cost_usd: float | None


class RunUsage(Wire):
    run_id: str
    session_key: str
    source: RunSource
    day: str
    """Of its last answer."""
    calls: int
    usage: Usage
    cost_usd: float | None


class UsageReport(Wire):
    agent: str
    since: float
    """Unix seconds: a midnight, UTC."""
    rows: list[UsageRow]
    """Newest day first."""
    sessions: list[SessionUsage]
    """Those that cost most, dearest first."""
    runs: list[RunUsage]
    budget: BudgetStatus = msgspec.field(default_factory=BudgetStatus)
