"""The runner on a real ledger: what is cancelled at an awkward moment, and what waits in more than one call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from gateway.agent.runner import Runner
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewEffect, NewRun
from protocols.runs import RunSource, RunState, new_run_id

Park = Callable[[str], AbstractAsyncContextManager[None]]


class Bench:
    """A runner whose work is the test's."""

    def __init__(self, folder: Path, *, places: int = 4, run_timeout: float = 60.0) -> None:
        self.ledger = Ledger(folder / "state.db", "webster")
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")
        self.changed: list[tuple[str, RunState | None]] = []
        self.ended: list[tuple[str, RunState]] = []
        self.work: Callable[[ClaimedRun, Park], Awaitable[str]] = _answer
        self.runner = Runner(
            self.ledger,
            self.reader,
            work=lambda run, park: self.work(run, park),
            effects_of=lambda run, *_: [NewEffect(f"{run.run_id}/told", "log", {})],
            on_change=lambda run_id: self.changed.append((run_id, self.reader.state(run_id))),
            on_end=self._on_end,
            places=places,
            run_timeout=run_timeout,
        )
        self.task = asyncio.create_task(self.runner.serve())

    async def _on_end(self, run: ClaimedRun, ending: Ending) -> None:
        self.ended.append((run.run_id, ending.state))

    async def accept(self, message: str = "go", *, session: str | None = None, deadline: float | None = None) -> str:
        run_id = new_run_id()
        new = NewRun(
            run_id=run_id,
            source=RunSource.HOOK,
            name="Hook",
            caller="operator",
            people=True,
            session_key=session or f"hook:{run_id}",
            message=message,
            deadline=deadline,
        )
        await self.ledger.accept(new)
        self.runner.accepted(held=False, deadline=deadline)
        return run_id

    async def until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def until_state(self, run_id: str, state: RunState) -> None:
        await self.until(lambda: self.reader.state(run_id) is state)

    def effects(self, run_id: str) -> list[str]:
        query = "SELECT key FROM effects WHERE run_id = ?"
        return [row[0] for row in self.reader._db.execute(query, (run_id,))]

    async def close(self) -> None:
        await self.runner.drain(0)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.reader.close()
        self.ledger.close()


async def _answer(run: ClaimedRun, park: Park) -> str:
    return "done"


async def _for_ever(run: ClaimedRun, park: Park) -> str:
    await asyncio.Event().wait()
    return ""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.close()


async def test_a_run_cancelled_between_its_place_and_its_first_step_ends_and_frees_its_place(bench: Bench) -> None:
    bench.work = _for_ever
    run_id = new_run_id()
    new = NewRun(run_id, RunSource.HOOK, "Hook", "operator", True, "hook:one", "go")
    await bench.ledger.accept(new)
    bench.runner.wake()
    await asyncio.sleep(0)  # the claim is on its way to the ledger; the cancel shares its commit
    await bench.runner.cancel(run_id, "changed my mind")
    await bench.until_state(run_id, RunState.CANCELLED)
    assert not bench.runner.busy
    assert bench.ended == [(run_id, RunState.CANCELLED)]


async def test_a_cancel_that_comes_while_the_end_is_written_loses_none_of_it(bench: Bench) -> None:
    finish = bench.ledger.finish
    cancelling: list[asyncio.Task[RunState | None]] = []

    async def finish_and_cancel(run_id: str, ending: Ending) -> bool:
        cancelling.append(asyncio.create_task(bench.runner.cancel(run_id, "too late")))
        await asyncio.sleep(0)  # the cancel is submitted first, and shares the end's commit
        return await finish(run_id, ending)

    bench.ledger.finish = finish_and_cancel  # type: ignore[method-assign]
    run_id = await bench.accept()
    await bench.until(lambda: bool(bench.ended))
    await cancelling[0]
    assert bench.ended == [(run_id, RunState.SUCCEEDED)]
    assert bench.changed[-1] == (run_id, RunState.SUCCEEDED)


async def test_a_run_cancelled_in_the_queue_is_told_to_everybody_who_waits_for_it(bench: Bench) -> None:
    bench.work = _for_ever
    first = await bench.accept(session="hook:one")
    await bench.until_state(first, RunState.RUNNING)
    second = await bench.accept(session="hook:one")
    assert await bench.runner.cancel(second, "not needed") is RunState.QUEUED
    assert bench.changed[-1] == (second, RunState.CANCELLED)
    assert bench.ended == [(second, RunState.CANCELLED)]
    assert bench.effects(second) == [f"{second}/told"]


async def test_a_run_whose_deadline_passes_in_the_queue_is_reported_like_any_other_end(bench: Bench) -> None:
    bench.work = _for_ever
    first = await bench.accept(session="hook:one")
    await bench.until_state(first, RunState.RUNNING)
    second = await bench.accept(session="hook:one", deadline=time.time() + 0.05)
    await bench.until_state(second, RunState.CANCELLED)
    assert bench.effects(second) == [f"{second}/told"]


async def test_a_run_taken_into_another_is_told_when_it_is_cancelled(bench: Bench) -> None:
    bench.work = _for_ever
    first = await bench.accept(session="hook:one")
    await bench.until_state(first, RunState.RUNNING)
    second = await bench.accept("and this", session="hook:one")
    (claimed,) = [r.run for r in bench.runner._places.values()]
    assert len(await bench.ledger.steps.collect(claimed)) == 1
    assert await bench.runner.cancel(second, "never mind") is RunState.WAITING
    assert bench.changed[-1] == (second, RunState.CANCELLED)
    assert bench.ended == [(second, RunState.CANCELLED)]
    assert bench.reader.state(first) is RunState.RUNNING


async def test_two_calls_that_wait_at_once_take_their_place_again_once(tmp_path: Path) -> None:
    """One place only: the second of them must not ask for a place that its own run holds."""
    bench = Bench(tmp_path, places=1)
    releases = [asyncio.Event(), asyncio.Event()]

    async def wait_for(park: Park, number: int) -> None:
        async with park(f"call {number}"):
            await releases[number].wait()

    async def work(run: ClaimedRun, park: Park) -> str:
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(wait_for(park, number))
        return "both"

    try:
        bench.work = work
        run_id = await bench.accept()
        await bench.until_state(run_id, RunState.WAITING)
        await asyncio.sleep(0.02)
        releases[0].set()
        await asyncio.sleep(0.05)
        assert bench.reader.state(run_id) is RunState.WAITING  # the other call waits still, and no time runs
        releases[1].set()
        await bench.until_state(run_id, RunState.SUCCEEDED)
    finally:
        await bench.close()


async def test_a_waiting_run_whose_deadline_passes_does_not_wait_for_a_place_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, places=1)

    async def work(run: ClaimedRun, park: Park) -> str:
        if run.message == "wait":
            async with park("for ever"):
                await asyncio.Event().wait()
        await asyncio.Event().wait()
        return ""

    try:
        bench.work = work
        waiting = await bench.accept("wait", deadline=time.time() + 0.4)
        await bench.until_state(waiting, RunState.WAITING)
        other = await bench.accept("hold the place")
        await bench.until_state(other, RunState.RUNNING)
        await bench.until_state(waiting, RunState.FAILED)
    finally:
        await bench.close()


async def test_an_agent_whose_only_run_waits_for_somebody_is_not_busy(bench: Bench) -> None:
    async def work(run: ClaimedRun, park: Park) -> str:
        async with park("approval"):
            await asyncio.Event().wait()
        return ""

    bench.work = work
    run_id = await bench.accept()
    await bench.until_state(run_id, RunState.WAITING)
    assert not bench.runner.busy
    assert bench.runner.occupied


async def test_a_timeout_inside_the_work_is_not_taken_for_the_run_s_own(bench: Bench) -> None:
    async def work(run: ClaimedRun, park: Park) -> str:
        raise TimeoutError("the socket said nothing")

    bench.work = work
    run_id = await bench.accept()
    await bench.until_state(run_id, RunState.FAILED)
    run = bench.reader.run(run_id)
    assert run is not None
    assert run.error is not None
    assert (run.error.code, run.error.message) == ("internal", "TimeoutError: the socket said nothing")
