"""What is said of steps: soon, once for many, and nothing while nothing happens."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from gateway.announcer import STEP_SECONDS, Announcer
from protocols.events import StepEvent
from runtime.service.events import EventBus


async def test_a_burst_of_steps_is_one_event_for_each_run() -> None:
    bus = EventBus("webster", "w1")
    announcer = Announcer("webster", bus, cast(Any, None), cast(Any, None))
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
