"""The heartbeat's gates and moods, with the clock in the test's hand."""

from __future__ import annotations

import asyncio
import calendar
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.agent.heartbeat import PAUSE_AFTER, BeatConfig, Heartbeat
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Ending, NewRun
from protocols.runs import RunError, RunSource, RunState, new_run_id

NOON = float(calendar.timegm((2026, 11, 25, 12, 0, 0)))
EVERY = 1800.0
CONFIG = BeatConfig(enabled=True, every=EVERY, quiet=(22 * 60, 7 * 60), tz="UTC")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Bench:
    """A heartbeat on a real ledger; its time passes when the test says so."""

    def __init__(self, folder: Path, config: BeatConfig, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.busy = self.draining = False
        self.route: tuple[str | None, str] = (None, "")
        self.money = ""
        (folder / "HEARTBEAT.md").write_text("# Heartbeat\n- [ ] look at the queue and at PROJECT_STATUS.md\n")
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
            draining=lambda: self.draining,
            route=lambda _: self.route,
            money=self._no_money,
            wake_runner=lambda: None,
            on_change=self.changes.set,
            clock=self.clock,
        )
        self.task = asyncio.create_task(self.heartbeat.serve())

    async def _no_money(self) -> str:
        return self.money

    def change(self) -> None:
        """Something that a beat could speak of."""
        (self.folder / "PROJECT_STATUS.md").write_text(f"as of {self.clock.now}\n")

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

    async def beat(self, text: str) -> str:
        """A beat that is due asks the model, which answers `text`; its outcome."""
        self.change()
        assert await self.pass_time(EVERY) == "beating"
        await self.finish(RunState.SUCCEEDED, text)
        return self.heartbeat.status().last_outcome

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
    made = Bench(tmp_path, CONFIG)
    yield made
    await made.close()


async def test_a_beat_makes_a_run_and_the_next_one_is_armed(bench: Bench) -> None:
    assert bench.heartbeat.status().state == "scheduled"
    assert await bench.pass_time(EVERY) == "beating"
    await bench.finish(RunState.SUCCEEDED)
    status = bench.heartbeat.status()
    assert (status.last_outcome, status.last_at, status.next_at) == ("ok", bench.clock.now, bench.clock.now + EVERY)
    bench.change()
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


async def test_beats_that_somebody_cancels_are_no_failures(bench: Bench) -> None:
    for _ in range(PAUSE_AFTER):
        bench.change()
        assert await bench.pass_time(EVERY) == "beating"
        await bench.finish(RunState.CANCELLED)
    status = bench.heartbeat.status()
    assert (status.state, status.failures, status.last_outcome) == ("scheduled", 0, "cancelled: why")


async def test_a_note_that_comes_during_a_beat_is_told_right_after_it(bench: Bench) -> None:
    assert await bench.pass_time(EVERY) == "beating"
    await bench.ledger.beats.add_note("the licence server is down", "manager")
    bench.heartbeat.note_added()
    await bench.pass_time(1)
    await bench.finish(RunState.SUCCEEDED)
    assert await bench.pass_time(0) == "beating"
    (run,) = await bench.ledger.claim(1, 1)
    assert "the licence server is down" in run.message


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


async def test_a_person_who_asks_while_it_drains_is_told_that_none_comes(bench: Bench) -> None:
    bench.draining = True
    assert bench.heartbeat.beat_now() == "webster is draining: no beat begins until it is restarted"
    assert bench.heartbeat.status().state == "scheduled"


async def test_a_note_waits_for_the_beat_and_is_given_to_one_only(bench: Bench) -> None:
    await bench.ledger.beats.add_note("look at run 7", "manager")
    assert await bench.pass_time(EVERY) == "beating"
    first = bench.reader.run(bench.reader.runs(1)[0][0].run_id)
    assert first is not None
    assert "manager: look at run 7" in first.message
    await bench.finish(RunState.SUCCEEDED)
    bench.change()
    await bench.pass_time(EVERY)
    second = bench.reader.run(bench.reader.runs(1)[0][0].run_id)
    assert second is not None
    assert "run 7" not in second.message


async def test_nothing_changed_means_no_beat_and_a_first_beat_is_never_stopped(bench: Bench) -> None:
    assert await bench.pass_time(EVERY) == "beating"
    await bench.finish(RunState.SUCCEEDED)
    for _ in range(3):
        assert await bench.pass_time(EVERY) == "skipped: nothing has changed since the last beat"
    bench.change()
    assert await bench.pass_time(EVERY) == "beating", "a file that HEARTBEAT.md names was written"
    await bench.finish(RunState.FAILED)
    assert await bench.pass_time(EVERY) == "beating", "a beat that failed has seen nothing"
    await bench.finish(RunState.SUCCEEDED)
    await bench.ledger.beats.add_note("look at run 7", "manager")
    assert await bench.pass_time(EVERY) == "beating", "a note waits"
    await bench.finish(RunState.SUCCEEDED)
    assert await bench.pass_time(EVERY) == "skipped: nothing has changed since the last beat"
    assert bench.reader.runs(10)[1] == 4


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.FAILED])
async def test_work_that_ended_since_is_a_change(bench: Bench, state: RunState) -> None:
    await bench.beat("HEARTBEAT_OK")
    new = NewRun(
        run_id=new_run_id(),
        source=RunSource.HOOK,
        name="Hook",
        caller="manager",
        people=False,
        session_key="hook:1",
        message="mesh the mirror",
    )
    await bench.ledger.accept(new)
    assert await bench.pass_time(EVERY) == "beating", "a run waits in the queue"
    runs = await bench.ledger.claim(2, 2)
    for run in runs:
        ending = Ending(state=state if run.source is RunSource.HOOK else RunState.SUCCEEDED, text="done", reason="why")
        await bench.ledger.finish(run.run_id, ending)
        if run.source is RunSource.HEARTBEAT:
            await bench.heartbeat.ended(run, ending, False)
    assert await bench.pass_time(EVERY) == "beating", "it has ended"


async def test_what_was_seen_survives_a_restart(bench: Bench, tmp_path: Path) -> None:
    await bench.beat("HEARTBEAT_OK")
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)
    again = Bench(tmp_path, CONFIG, bench.clock)
    try:
        assert await again.pass_time(EVERY) == "skipped: nothing has changed since the last beat"
        status = again.heartbeat.status()
        assert status.last_run_id == bench.reader.runs(1)[0][0].run_id
    finally:
        await again.close()


async def test_beats_may_be_had_although_nothing_changed(bench: Bench) -> None:
    bench.heartbeat.configure(msgspec.structs.replace(CONFIG, only_if_changed=False))
    for _ in range(2):
        assert await bench.pass_time(EVERY) == "beating"
        await bench.finish(RunState.SUCCEEDED)


async def test_an_alert_in_the_same_words_is_told_once_a_day(bench: Bench) -> None:
    assert await bench.beat("The queue is stuck.") == "alert"
    assert await bench.beat("The  queue is STUCK.\n") == "duplicate"
    assert await bench.beat("The disk is full.") == "alert"
    assert await bench.beat("HEARTBEAT_OK") == "ok"
    bench.heartbeat.configure(msgspec.structs.replace(CONFIG, quiet=None))
    bench.change()
    assert await bench.pass_time(24 * 3600) == "beating"
    await bench.finish(RunState.SUCCEEDED, "The queue is stuck.")
    assert bench.heartbeat.status().last_outcome == "alert", "a day later it is news again"


async def test_without_a_way_to_tell_anybody_no_token_is_spent(bench: Bench) -> None:
    bench.route = (None, "no discord channel is connected to this agent")
    assert await bench.pass_time(EVERY) == "skipped: no route (no discord channel is connected to this agent)"
    bench.route = (None, "")
    assert await bench.pass_time(EVERY) == "beating", "no target at all: the result is logged"
    run = bench.reader.run(bench.reader.runs(1)[0][0].run_id)
    assert run is not None


async def test_without_money_no_beat_begins_and_one_that_is_refused_is_no_failure(bench: Bench) -> None:
    bench.money = "the agent's budget of $8.00 a day is spent ($8.00)"
    assert await bench.pass_time(EVERY) == f"skipped: budget ({bench.money})"
    bench.money = ""
    for _ in range(PAUSE_AFTER + 1):
        assert await bench.pass_time(EVERY) == "beating"
        await bench.finish(RunState.FAILED, code="budget")
    status = bench.heartbeat.status()
    assert (status.last_outcome, status.failures, status.state) == ("skipped: budget (why)", 0, "scheduled")


async def test_a_beat_is_isolated_short_and_may_have_a_model_of_its_own(bench: Bench) -> None:
    bench.heartbeat.configure(msgspec.structs.replace(CONFIG, model="anthropic/claude-haiku-4-5"))
    assert await bench.pass_time(EVERY) == "beating"
    (run,) = await bench.ledger.claim(1, 1)
    assert run.session_key == f"heartbeat:{run.run_id}"
    assert (run.options.timeout_seconds, run.options.model) == (600.0, "anthropic/claude-haiku-4-5")
    assert run.options.deliver is False
    bench.heartbeat.configure(msgspec.structs.replace(CONFIG, isolated=False, every=60.0))
    await bench.heartbeat.ended(run, Ending(state=RunState.SUCCEEDED, text="HEARTBEAT_OK"), True)
    bench.change()
    assert await bench.pass_time(120) == "beating"
    (run,) = await bench.ledger.claim(1, 1)
    assert (run.session_key, run.options.timeout_seconds) == ("agent:webster:main", 60.0)
