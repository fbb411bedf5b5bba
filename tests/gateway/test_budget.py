"""What a run does about money: waiting, going on, giving back. The clock begins where the test says and then runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.agent.budget import UNPRICED_TOKENS, Budget, limits_of
from gateway.agent.failure import BudgetExceeded
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import ClaimedRun, RunOptions
from gateway.ledger.spending import Spending
from gateway.models.bounds import Bound
from gateway.models.provider import Answer, Message, ProviderError, Request, Reset, Text, TextDelta
from protocols.runs import RunSource, Usage, new_run_id
from runtime.budget_store import Amount, BudgetStore, Limits, next_day
from runtime.config import BudgetTable

NOON = 1_795_608_000.0
ASKED = Request(model="", stable="s", volatile="v", messages=[Message("user", [Text("hello")])])
A_DOLLAR = Bound(1.0, 1000, 0)


class Dollar:
    """A model of which each answer may cost a dollar and costs what `cost` says; `hold` keeps an answer back."""

    def __init__(self) -> None:
        self.cost: float | None = 0.5
        self.asked = 0
        self.hold: asyncio.Event | None = None

    async def bound(self, request: Request, *, model: str | None = None) -> Bound | None:
        return None if model == "offline/echo" else A_DOLLAR

    async def stream(
        self, request: Request, *, model: str | None = None
    ) -> AsyncGenerator[TextDelta | Reset | Answer, None]:
        self.asked += 1
        yield TextDelta("so ")
        if self.hold is not None:
            await self.hold.wait()
        yield Answer(Message("assistant", [Text("so")]), Usage(input_tokens=900), "end", "x/y", self.cost)


class Purse:
    """A budget on a real file, with a ledger that has spent nothing."""

    def __init__(self, folder: Path, *, at: float = NOON, agent: str = "manager", **table: object) -> None:
        began = time.monotonic()
        self.clock = lambda: at + time.monotonic() - began
        self.ledger = Ledger(folder / f"{agent}.db")
        self.ledger.start()
        self.store = BudgetStore(folder / "budget.db", agent, f"{agent}-1", clock=self.clock)
        self.models = Dollar()
        self.parked: list[str] = []
        self.waits = asyncio.Event()
        self.budget = Budget(
            self.store,
            Spending(self.ledger.path),
            self.models,
            BudgetTable(**table),  # type: ignore[arg-type]
            BudgetTable(),
            clock=self.clock,
        )

    @asynccontextmanager
    async def park(self, reason: str) -> AsyncIterator[None]:
        self.parked.append(reason)
        self.waits.set()
        yield

    async def ask(self, source: RunSource = RunSource.HOOK, model: str | None = None) -> Answer:
        run = ClaimedRun(new_run_id(), source, "x", "operator", True, "s", "m", RunOptions(), None, 0, None, 1, 0.0)
        items = [item async for item in self.budget.for_run(run, self.park).stream(ASKED, model=model)]
        assert isinstance(items[-1], Answer)
        return items[-1]

    async def close(self) -> None:
        await self.budget.close()
        self.ledger.close()


Open = Callable[..., Purse]


@pytest.fixture
async def purse(tmp_path: Path) -> AsyncIterator[Open]:
    made: list[Purse] = []

    def open_(**fields: object) -> Purse:
        made.append(Purse(tmp_path, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield open_
    for one in made:
        await one.close()


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_waits_for_the_next_day_goes_on_at_midnight(purse: Open) -> None:
    mine = purse(at=next_day(NOON) - 2.0, daily_usd=1.2)
    await mine.ask()
    assert mine.budget.status().agent.spent_usd == 0.5
    began = mine.clock()
    await mine.ask()
    assert mine.clock() >= next_day(NOON) > began
    assert mine.parked == [
        "over budget: the agent's budget of $1.20 a day: $0.50 spent, $0.00 reserved, the next call may cost $1.00"
        " ([budget] daily_usd)"
    ]
    status = mine.budget.status()
    assert (status.agent.spent_usd, status.waiting, status.state) == (0.5, 0, "ok")


async def test_calls_under_way_are_waited_for_and_what_they_did_not_use_is_used(purse: Open) -> None:
    mine = purse(daily_usd=2.0, over="fail")
    mine.models.hold = asyncio.Event()
    first = asyncio.create_task(mine.ask())
    await soon(lambda: mine.models.asked == 1)
    held, mine.models.hold = mine.models.hold, None
    await mine.ask()
    second = asyncio.create_task(mine.ask())
    await mine.waits.wait()
    assert mine.models.asked == 2, "half a dollar spent and one reserved leave none"
    held.set()
    await asyncio.gather(first, second)
    assert mine.budget.status().agent.spent_usd == 1.5
    with pytest.raises(BudgetExceeded, match=r"\$1\.50 spent"):
        await mine.ask()


async def test_a_larger_budget_is_in_force_at_once(purse: Open) -> None:
    mine = purse(daily_usd=1.0)
    await mine.ask()
    waiting = asyncio.create_task(mine.ask())
    await mine.waits.wait()
    assert mine.budget.status().state == "over"
    mine.budget.configure(BudgetTable(daily_usd=2.0), BudgetTable())
    await asyncio.wait_for(waiting, 5)


async def test_a_cancelled_call_and_a_cancelled_wait_give_back_what_they_held(purse: Open) -> None:
    mine = purse(daily_usd=1.0)
    mine.models.hold = asyncio.Event()
    call = asyncio.create_task(mine.ask())
    await soon(lambda: mine.models.asked == 1)
    wait = asyncio.create_task(mine.ask())
    await mine.waits.wait()
    for task in (wait, call):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert mine.store.standing().agent.reserved_usd == 0
    for delay in (0, 0.0005, 0.001, 0.002, 0.004):  # wherever the cancel falls
        task = asyncio.create_task(mine.ask())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await mine.budget.exhausted()
        assert mine.budget.status().agent.reserved_usd == 0


async def test_a_beat_and_a_side_call_do_not_wait_and_what_costs_nothing_is_not_asked_about(purse: Open) -> None:
    mine = purse(daily_usd=1.0)
    await mine.ask()
    with pytest.raises(BudgetExceeded):
        await mine.ask(RunSource.HEARTBEAT)
    with pytest.raises(ProviderError, match="over budget"):
        _ = [item async for item in mine.budget.for_side_calls().stream(ASKED)]
    await mine.ask(model="offline/echo")
    assert mine.parked == []


async def test_another_agent_s_process_holds_the_cluster_s_money(purse: Open, tmp_path: Path) -> None:
    mine = purse()
    mine.budget.configure(BudgetTable(), BudgetTable(daily_usd=1.5))
    other = BudgetStore(tmp_path / "budget.db", "webster", "w1", clock=mine.clock)
    assert other.reserve("theirs", Amount(1.0, 10), Limits(), Limits(usd=1.5))[0] is None
    waiting = asyncio.create_task(mine.ask())
    await mine.waits.wait()
    assert "the cluster's budget of $1.50 a day: $0.00 spent, $1.00 reserved" in mine.parked[0]
    other.settle("theirs", Amount(0.2, 10))
    await asyncio.wait_for(waiting, 10)
    other.close()


def test_dollars_alone_bring_a_cap_on_tokens_of_unknown_price() -> None:
    assert limits_of(BudgetTable(daily_usd=1.0)).unpriced_tokens == UNPRICED_TOKENS
    assert limits_of(BudgetTable(daily_usd=1.0, daily_tokens=5)).unpriced_tokens is None
    assert not limits_of(BudgetTable()).any
