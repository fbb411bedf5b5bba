"""`/usage`: what the models used and cost, by day and model, by session and by run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.agent.budget import Budget
from gateway.ledger.spending import Spending
from protocols.usage import UsageReport
from runtime.service.app import Access, Call, Route

DAYS = 7
MAX_DAYS = 366
_DAY = 86400.0


class UsageApi:
    """Sums of one agent's ledger."""

    def __init__(
        self, agent: str, spending: Spending, budget: Budget, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._agent = agent
        self._spending = spending
        self._budget = budget
        self._clock = clock

    def routes(self) -> list[Route]:
        asked = {
            "days": f"UTC days, today included; {DAYS} if absent",
            "limit": "how many sessions and runs, those that cost most",
        }
        return [
            Route("GET", "/usage", self.usage, Access.WATCH, "What the models used and cost", UsageReport, query=asked)
        ]

    async def usage(self, call: Call) -> UsageReport:
        days = int(call.number("days", DAYS, 1, MAX_DAYS))
        limit = int(call.number("limit", 50, 0, 1000))
        since = (int(self._clock() // _DAY) - days + 1) * _DAY
        rows, sessions, runs = await asyncio.to_thread(self._spending.report, since, limit)
        await self._budget.refresh()
        return UsageReport(
            agent=self._agent, since=since, rows=rows, sessions=sessions, runs=runs, budget=self._budget.status()
        )
