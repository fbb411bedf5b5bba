"""What is said of steps: soon, once for many, and nothing while nothing happens; and of runs, to whom."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gateway.announcer import STEP_SECONDS, Announcer
from protocols.events import StepEvent
from protocols.runs import RunSource, RunState, RunSummary
from runtime.service.events import EventBus


class OneRun:
    """A reader and a waiting room of one run."""

    run = RunSummary(
        run_id="run-1",
        agent="webster",
        state=RunState.SUCCEEDED,
        source=RunSource.HOOK,
        name="",
        caller="operator",
        session_key="hook:1",
        task="find the glass",
        created_at=1.0,
    )

    def summary(self, run_id: str) -> RunSummary:
        return self.run

    def ended(self, run_id: str) -> None: ...


def announcer_on(bus: EventBus, heard: list[RunSummary] | None = None) -> Announcer:
    one: Any = OneRun()
    heard = [] if heard is None else heard
    return Announcer(
        "webster", bus, one, one, on_run=heard.append, on_approval=lambda _: None, on_delta=lambda *_: None
    )


async def test_each_try_to_deliver_an_answer_is_an_event_and_no_second_end_of_its_run() -> None:
    bus, heard = EventBus("webster", "w1"), list[RunSummary]()
    announcer = announcer_on(bus, heard)
    announcer.run_changed("run-1")
    announcer.delivery_changed("run-1")
    announcer.delivery_changed("run-1")
    assert bus.newest == 3
    assert len(heard) == 1  # so the mirror on a channel tells of it once


async def test_a_burst_of_steps_is_one_event_for_each_run() -> None:
    bus = EventBus("webster", "w1")
    announcer = announcer_on(bus)
    for _ in range(1000):
        announcer.step("run-1")
        announcer.step("run-2")
    assert bus.newest == 0
    async with asyncio.timeout(STEP_SECONDS * 20):
        await bus.wait(10)
    said = [msgspec.json.decode(item.data, type=StepEvent).run_id for item in bus.after(0)[1]]
    assert sorted(said) == ["run-1", "run-2"]
    assert bus.dirty == 0  # `/status` shows no steps
    announcer.step("run-1")
    await bus.wait(10)
    assert bus.newest == 3
