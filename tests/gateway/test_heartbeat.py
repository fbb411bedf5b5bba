"""The heartbeat's gates and moods, with the clock in the test's hand."""

from __future__ import annotations

import asyncio
import calendar
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.agent.heartbeat import PAUSE_AFTER, BeatConfig, Heartbeat
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Ending
from protocols.runs import RunError, RunState

NOON = float(calendar.timegm((2026, 11, 25, 12, 0, 0)))
EVERY = 1800.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Bench:
    """A heartbeat on a real ledger; its time passes when the test says so."""

    def __init__(self, folder: Path, config: BeatConfig) -> None:
        self.clock = Clock()
        self.busy = False
        (folder / "HEARTBEAT.md").write_text("# Heartbeat\n- [ ] look at the queue\n")
        self.folder = folder
        self.ledger = Ledger(folder / "state.db", clock=self.clock)
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")
        self.changes = asyncio.Event()
        self.heartbeat = Heartbeat(
            "webster",
            config,
            folder,
            self.ledger,
            self.reader,
            busy=lambda: self.busy,
            wake_runner=lambda: None,
            on_change=self.changes.set,
            clock=self.clock,
        )
        self.task = asyncio.create_task(self.heartbeat.serve())

    async def pass_time(self, seconds: float) -> str:
        """Let time pass and the beat that is due happen; its outcome, or `beating`."""
        self.clock.now += seconds
        self.changes.clear()
        self.heartbeat._poke.set()
        async with asyncio.timeout(5):
            await self.changes.wait()
            while (due := self.heartbeat.status().next_at) is not None and due <= self.clock.now:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        status = self.heartbeat.status()
        return "beating" if status.state == "beating" else status.last_outcome

    async def finish(self, state: RunState, text: str = "HEARTBEAT_OK", code: str = "failed") -> None:
        (run,) = await self.ledger.claim(1, 1)
        error = None if state is RunState.SUCCEEDED else RunError(code=code, message="why")
        ending = Ending(state=state, text=text, reason="" if error is None else "why", error=error)
        await self.ledger.finish(run.run_id, ending)
        await self.heartbeat.ended(run, ending, text == "HEARTBEAT_OK")

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.reader.close()
        self.ledger.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, BeatConfig(enabled=True, every=EVERY, quiet=(22 * 60, 7 * 60), tz="UTC"))
    yield made
    await made.close()


async def test_a_beat_makes_a_run_and_the_next_one_is_armed(bench: Bench) -> None:
    assert bench.heartbeat.status().state == "scheduled"
    assert await bench.pass_time(EVERY) == "beating"
    await bench.finish(RunState.SUCCEEDED)
    status = bench.heartbeat.status()
    assert (status.last_outcome, status.last_at, status.next_at) == ("ok", bench.clock.now, bench.clock.now + EVERY)
    assert await bench.pass_time(EVERY) == "beating"
    await bench.finish(RunState.SUCCEEDED, text="The queue is stuck.")
    assert bench.heartbeat.status().last_outcome == "alert"


async def test_no_run_is_made_in_quiet_hours_when_busy_or_with_nothing_to_check(bench: Bench) -> None:
    bench.busy = True
    assert await bench.pass_time(EVERY) == "skipped: busy"
    bench.busy = False
    (bench.folder / "HEARTBEAT.md").write_text("# Heartbeat\n\n## later\n")
    assert await bench.pass_time(EVERY) == "skipped: HEARTBEAT.md is empty"
    assert await bench.pass_time(10 * 3600) == "skipped: quiet hours"
    assert bench.reader.runs(10)[1] == 0
    assert bench.heartbeat.status().next_at == bench.clock.now + EVERY


async def test_it_pauses_after_repeated_failure_and_at_once_without_money_or_key(bench: Bench) -> None:
    for _ in range(PAUSE_AFTER):
        assert bench.heartbeat.status().state != "paused"
        assert await bench.pass_time(EVERY) == "beating"
        await bench.finish(RunState.FAILED)
    assert bench.heartbeat.status().state == "paused"
    assert bench.heartbeat.beat_now() == "beating"
    assert await bench.pass_time(0) == "beating"
    await bench.finish(RunState.FAILED, code="model_quota")
    status = bench.heartbeat.status()
    assert status.state == "paused"
    assert "why" in status.reason


async def test_being_late_shows(bench: Bench) -> None:
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)
    bench.clock.now += EVERY + 61
    assert bench.heartbeat.status().state == "overdue"


async def test_off_means_no_beat_but_a_person_can_still_ask(bench: Bench) -> None:
    bench.heartbeat.configure(BeatConfig(enabled=False, every=EVERY, quiet=None, tz="UTC"))
    assert bench.heartbeat.status().state == "off"
    bench.heartbeat.beat_now()
    assert await bench.pass_time(0) == "beating"


async def test_a_note_waits_for_the_beat_and_is_given_to_one_only(bench: Bench) -> None:
    await bench.ledger.beats.add_note("look at run 7", "manager")
    assert await bench.pass_time(EVERY) == "beating"
    first = bench.reader.run(bench.reader.runs(1)[0][0].run_id)
    assert first is not None
    assert "manager: look at run 7" in first.message
    await bench.finish(RunState.SUCCEEDED)
    await bench.pass_time(EVERY)
    second = bench.reader.run(bench.reader.runs(1)[0][0].run_id)
    assert second is not None
    assert "run 7" not in second.message
