"""Money: what a model call may cost at most is reserved before it, and settled after it with what it really cost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from gateway.agent.failure import BudgetExceeded
from gateway.ledger.records import ClaimedRun
from gateway.ledger.spending import Spending
from gateway.models.bounds import Bound
from gateway.models.provider import Answer, ErrorKind, ProviderError, Request, Reset, Spent, TextDelta
from protocols.errors import AtomizerError
from protocols.runs import RunSource
from protocols.status import BudgetScope, BudgetStatus
from runtime.budget_store import Amount, BudgetStore, Limits, Refused, Standing, Totals, day_of, next_day
from runtime.config import BudgetTable

log = logging.getLogger("budget")
T = TypeVar("T")

UNPRICED_TOKENS = 2_000_000
"""A day's tokens for models without a known price, where there is a budget in dollars and none in tokens."""
_LOOK_AGAIN = 1.0
_LOOK_AGAIN_SPENT = 60.0
"""Seconds until a waiting run asks again: while calls under way hold the money, and while it is spent."""
_FRESH_SECONDS = 5.0
"""`/status` shows sums of the shared file that are at most so old."""

Park = Callable[[str], AbstractAsyncContextManager[None]]


class PricedModels(Protocol):
    """The models, as the budget sees them."""

    def stream(
        self, request: Request, *, model: str | None = None
    ) -> AsyncGenerator[TextDelta | Reset | Answer, None]: ...

    async def bound(self, request: Request, *, model: str | None = None) -> Bound | None: ...


class Budget:
    """What one agent may spend, alone and together with the others of its cluster."""

    def __init__(
        self,
        store: BudgetStore,
        spending: Spending,
        models: PricedModels,
        agent: BudgetTable,
        cluster: BudgetTable,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`spending` is the agent's own ledger: what it used before there was a budget counts too."""
        self._store = store
        self._spending = spending
        self._models = models
        self._on_change = on_change
        self._clock = clock
        self._agent, self._cluster = limits_of(agent), limits_of(cluster)
        self._thread: ThreadPoolExecutor | None = None
        self._opened = False
        self._standing = Standing(day_of(clock()), Totals(), Totals())
        self._looked_at = float("-inf")
        self._waiting: dict[str, str] = {}
        self._room = asyncio.Event()

    @property
    def limited(self) -> bool:
        return self._agent.any or self._cluster.any

    async def start(self) -> None:
        """Give back what this agent's last life had reserved when it was killed. Opens nothing that is not there."""
        if self.limited and await asyncio.to_thread(self._store.path.exists):
            await self.refresh()

    def configure(self, agent: BudgetTable, cluster: BudgetTable) -> None:
        """Other limits are in force at once: runs that wait ask again."""
        self._agent, self._cluster = limits_of(agent), limits_of(cluster)
        self._looked_at = float("-inf")
        self._make_room()

    async def close(self) -> None:
        if self._thread is not None:
            await self._do(self._store.close)
            self._thread.shutdown(wait=True)
            self._thread = None

    def for_run(self, run: ClaimedRun, park: Park) -> BudgetedModels:
        """The models, for one run: each call is paid for out of this budget."""
        return BudgetedModels(self, self._models, lambda bound: self.admit(run, bound, park))

    def for_side_calls(self) -> BudgetedModels:
        """The models, for calls a run can do without (a summary): over budget they fail as ProviderError."""
        return BudgetedModels(self, self._models, self._admit_now)

    async def admit(self, run: ClaimedRun, bound: Bound, park: Park) -> str:
        """Reserve `bound`; the reservation's id, to be settled or released.

        Over budget the run waits, parked, for the next day or a larger budget, or BudgetExceeded is raised: as
        configured. Heartbeats do not wait for money, and nothing waits that no day has room for.
        """
        id = uuid.uuid4().hex
        most = Amount(bound.usd, bound.tokens, bound.unpriced_tokens)
        try:
            room = self._room
            refused = await self._reserve(id, most)
            if refused is None:
                return id
            self._must_wait(run, refused)
            reason = f"over budget: {refused.message}"
            log.warning("waits; %s", reason)
            async with park(reason):
                while refused is not None:
                    await self._wait_for(room, refused)
                    room = self._room
                    refused = await self._reserve(id, most)
                    if refused is not None:
                        self._must_wait(run, refused)
            return id
        except BaseException:
            await self.release(id)
            raise
        finally:
            self._waiting.pop(run.run_id, None)

    async def _admit_now(self, bound: Bound) -> str:
        id = uuid.uuid4().hex
        try:
            refused = await self._reserve(id, Amount(bound.usd, bound.tokens, bound.unpriced_tokens))
        except BaseException:
            await self.release(id)
            raise
        if refused is not None:
            raise ProviderError(ErrorKind.QUOTA, f"over budget: {refused.message}")
        return id

    async def settle(self, id: str, answer: Answer | Spent) -> None:
        """Write what the answer cost in place of what was reserved for it. Never fails: the answer is paid for."""
        tokens = answer.usage.input_tokens + answer.usage.output_tokens
        unpriced = tokens if answer.cost_usd is None else 0
        cost = Amount(answer.cost_usd or 0.0, tokens, unpriced)
        try:
            self._saw(await self._do(lambda: self._store.settle(id, cost)))
        except AtomizerError as error:
            log.error("what an answer cost could not be written; the next start makes it good: %s", error)

    async def release(self, id: str) -> None:
        """Give a reservation back. Never fails: at worst it is given back at the next start."""
        try:
            self._saw(await self._do(lambda: self._store.release(id)))
        except AtomizerError as error:
            log.error("a reservation could not be given back; the next start does it: %s", error)

    async def exhausted(self) -> str:
        """Why there is no money for another call, or nothing. Looks afresh."""
        await self.refresh(0.0)
        return self._spent_out() if self.limited else ""

    async def refresh(self, older_than: float = _FRESH_SECONDS) -> None:
        """Look at the shared file again if that was more than so many seconds ago; one not there is not made."""
        if not self.limited or self._clock() - self._looked_at < older_than:
            return
        if not self._opened and not await asyncio.to_thread(self._store.path.exists):
            return
        try:
            await self._open()
            self._saw(await self._do(self._store.standing))
        except AtomizerError as error:
            log.error("the budget cannot be read: %s", error)

    def status(self) -> BudgetStatus:
        if not self.limited:
            return BudgetStatus()
        now = self._clock()
        reason = self._spent_out() or next((text for text in self._waiting.values() if text), "")
        over = "fail" if "fail" in {s.over for s in (self._agent, self._cluster) if s.any} else "wait"
        standing = self._today()
        return BudgetStatus(
            state="over" if reason else "ok",
            reason=reason,
            over=over,
            waiting=len(self._waiting),
            day=standing.day,
            resets_at=next_day(now),
            agent=_scope(standing.agent, self._agent),
            cluster=_scope(standing.cluster, self._cluster),
        )

    def _make_room(self) -> None:
        """Every run that waits asks again."""
        self._room.set()
        self._room = asyncio.Event()

    async def _reserve(self, id: str, most: Amount) -> Refused | None:
        await self._open()
        refused, standing = await self._do(lambda: self._store.reserve(id, most, self._agent, self._cluster))
        self._saw(standing)
        return refused

    def _must_wait(self, run: ClaimedRun, refused: Refused) -> None:
        """Note that the run waits; raises BudgetExceeded if it is not to."""
        if refused.never:
            raise BudgetExceeded(
                f"one call may cost more than a whole day: {refused.message}; raise it, or lower"
                " [model] max_output_tokens"
            )
        if not refused.passing and (refused.over == "fail" or run.source is RunSource.HEARTBEAT):
            raise BudgetExceeded(refused.message)
        self._waiting[run.run_id] = "" if refused.passing else refused.message
        self._on_change()

    async def _wait_for(self, room: asyncio.Event, refused: Refused) -> None:
        """Until something may have changed: money given back here, other limits, the next day, or a look in vain."""
        pause = _LOOK_AGAIN if refused.passing else _LOOK_AGAIN_SPENT
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(pause, max(0.05, next_day(self._clock()) - self._clock()))):
                await room.wait()

    async def _open(self) -> None:
        """Once in a life: take over what the last one left, and count what the ledger knows of today."""
        if self._opened:
            return
        now = self._clock()
        midnight = next_day(now) - 86400.0

        def open_() -> int:
            spent = self._spending.since(midnight)
            self._store.make_good(day_of(now), spent.usd, spent.tokens, spent.unpriced_tokens)
            return self._store.take_over()

        left = await self._do(open_)
        self._opened = True
        if left:
            log.warning("%d reservation(s) of a process that was killed are given back", left)

    def _saw(self, standing: Standing) -> None:
        self._looked_at = self._clock()
        if standing != self._standing:
            if _held(standing) < _held(self._standing):
                self._make_room()
            self._standing = standing
            self._on_change()

    async def _do(self, operation: Callable[[], T]) -> T:
        """On the budget's own thread, one after the other: a release never overtakes its reservation."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="budget")
        future = self._thread.submit(operation)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _today(self) -> Standing:
        """What was last seen; on a new day nothing is spent yet."""
        today = day_of(self._clock())
        return self._standing if self._standing.day == today else Standing(today, Totals(), Totals())

    def _spent_out(self) -> str:
        standing = self._today()
        for whose, limits, now in (
            ("the agent's", self._agent, standing.agent),
            ("the cluster's", self._cluster, standing.cluster),
        ):
            if limits.usd is not None and now.spent_usd >= limits.usd:
                return f"{whose} budget of ${limits.usd:.2f} a day is spent (${now.spent_usd:.2f})"
            if limits.tokens is not None and now.spent_tokens >= limits.tokens:
                return f"{whose} budget of {limits.tokens:,} tokens a day is spent ({now.spent_tokens:,})"
        return ""


class BudgetedModels:
    """A ModelStream whose every call is reserved for and settled."""

    def __init__(self, budget: Budget, models: PricedModels, admit: Callable[[Bound], Awaitable[str]]) -> None:
        """`admit(bound)` reserves, and is the reservation's id."""
        self._budget = budget
        self._models = models
        self._admit = admit

    async def stream(
        self, request: Request, *, model: str | None = None
    ) -> AsyncGenerator[TextDelta | Reset | Answer, None]:
        """As `Models.stream`; raises BudgetExceeded too."""
        budget = self._budget
        bound = await self._models.bound(request, model=model) if budget.limited else None
        held = None if bound is None else await self._admit(bound)
        try:
            async with contextlib.aclosing(self._models.stream(request, model=model)) as items:
                async for item in items:
                    if isinstance(item, Answer) and held is not None:
                        await budget.settle(held, item)
                        held = None
                    yield item
        except ProviderError as error:
            if error.spent is not None and held is not None:
                await budget.settle(held, error.spent)
                held = None
            raise
        finally:
            if held is not None:
                await budget.release(held)


def limits_of(table: BudgetTable) -> Limits:
    """A scope's limits as configured; dollars alone bring a cap on tokens whose price is unknown."""
    unpriced = UNPRICED_TOKENS if table.daily_usd is not None and table.daily_tokens is None else None
    return Limits(usd=table.daily_usd, tokens=table.daily_tokens, unpriced_tokens=unpriced, over=table.over)


def _held(standing: Standing) -> float:
    """What stands in others' way, in one number: dollars and, far below them, tokens."""
    both = standing.cluster
    return both.spent_usd + both.reserved_usd + (both.spent_tokens + both.reserved_tokens) * 1e-9


def _scope(now: Totals, limits: Limits) -> BudgetScope:
    return BudgetScope(
        spent_usd=round(now.spent_usd, 6),
        reserved_usd=round(now.reserved_usd, 6),
        limit_usd=limits.usd,
        spent_tokens=now.spent_tokens,
        reserved_tokens=now.reserved_tokens,
        limit_tokens=limits.tokens,
    )
