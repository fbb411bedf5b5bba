"""The outbox on a real ledger: one effect's bad luck is not another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.channels import outbox as module
from gateway.channels.channel import NotConnected, Unreachable
from gateway.channels.outbox import AT_ONCE, AWAY_SECONDS, GIVE_UP_SECONDS, GRACE_SECONDS, RETRY_AFTER_CAP, Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Effect, NewEffect
from runtime.sqlite_writer import DiskFull


class Bench:
    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "state.db", "webster", clock=self.now)
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")
        self.begun: list[str] = []
        self.slow_may_end = asyncio.Event()
        self.ahead = 0.0
        self.error: Exception = NotConnected("Discord is not connected")
        handlers = {"quick": self.quick, "slow": self.slow, "broken": self.broken, "failing": self.failing}
        self.outbox = Outbox(self.ledger, self.reader, handlers, on_change=lambda run_id: None, clock=self.now)
        self.task: asyncio.Task[None] | None = None

    def now(self) -> float:
        return time.time() + self.ahead

    async def quick(self, effect: Effect) -> str:
        self.begun.append("quick")
        return "done"

    async def slow(self, effect: Effect) -> str:
        self.begun.append("slow")
        await self.slow_may_end.wait()
        return "done"

    async def broken(self, effect: Effect) -> str:
        self.begun.append("broken")
        raise ValueError("a payload that nobody foresaw")

    async def failing(self, effect: Effect) -> str:
        self.begun.append("failing")
        raise self.error

    def waits(self) -> float:
        """Seconds until it is tried again, once it has been tried; 0 before."""
        at = self.reader.next_effect_at(self.now())
        return 0.0 if at is None else at - self.now()

    async def send(self, *kinds: str) -> None:
        for kind in kinds:
            await self.ledger.effects.add("run-1", NewEffect(f"run-1/{kind}", kind, {}))
        self.task = asyncio.create_task(self.outbox.serve())

    def state(self, kind: str) -> str:
        letter = self.reader.letters.by_key(f"run-1/{kind}")
        assert letter is not None
        return letter.state

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.reader.close()
        self.ledger.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.close()


async def test_a_full_disk_does_not_send_what_is_on_its_way_a_second_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_BASE", 0.002)
    settle, failed = bench.ledger.effects.settle, asyncio.Event()

    async def full_once(effect_id: int, state: str, detail: str = "") -> None:
        if not failed.is_set():
            failed.set()
            raise DiskFull("no room")
        await settle(effect_id, state, detail)

    bench.ledger.effects.settle = full_once  # type: ignore[method-assign]
    await bench.send("quick", "slow")
    await failed.wait()
    await asyncio.sleep(0.1)
    assert bench.begun.count("slow") == 1
    bench.slow_may_end.set()
    await bench.until(lambda: bench.state("quick") == bench.state("slow") == "done")
    assert bench.begun.count("slow") == 1


async def test_an_effect_that_breaks_its_handler_does_not_end_the_outbox(bench: Bench) -> None:
    await bench.send("broken", "quick")
    await bench.until(lambda: bench.state("quick") == "done")
    await bench.until(lambda: bench.begun.count("broken") >= 2)
    letter = bench.reader.letters.by_key("run-1/broken")
    assert letter is not None
    assert letter.detail == "ValueError: a payload that nobody foresaw"


async def test_what_hangs_keeps_nothing_of_another_kind_waiting(bench: Bench) -> None:
    for number in range(3 * AT_ONCE):
        await bench.ledger.effects.add("run-2", NewEffect(f"run-2/slow-{number}", "slow", {}))
    await bench.send("quick")
    await bench.until(lambda: bench.state("quick") == "done")
    assert bench.begun.count("slow") == AT_ONCE
    bench.slow_may_end.set()
    await bench.until(lambda: bench.begun.count("slow") == 3 * AT_ONCE)


async def test_what_comes_later_is_not_kept_waiting_by_one_of_its_kind(bench: Bench) -> None:
    await bench.send("slow")
    await bench.until(lambda: bench.begun == ["slow"])
    await bench.outbox.send("run-2", NewEffect("run-2/slow", "slow", {}), 0.0)
    await bench.until(lambda: bench.begun == ["slow", "slow"])


@pytest.mark.parametrize(("asked", "least"), [(40.0, 40.0), (1e6, RETRY_AFTER_CAP)])
async def test_a_provider_is_given_the_time_it_asks_for(bench: Bench, asked: float, least: float) -> None:
    bench.error = Unreachable("the global limit", retry_after=asked)
    await bench.send("failing")
    await bench.until(lambda: bench.waits() > 0)
    assert least - 1 < bench.waits() <= least + 2


async def test_without_a_connection_it_is_seldom_tried_and_at_once_when_that_comes(bench: Bench) -> None:
    await bench.ledger.effects.add("run-1", NewEffect("run-1/failing", "failing", {}, "discord:channel:1000000"))
    await bench.send()
    await bench.until(lambda: bench.waits() > 0)
    assert bench.waits() > AWAY_SECONDS / 2 - 1
    await bench.ledger.effects.hurry("discord")
    bench.outbox.wake()
    await bench.until(lambda: bench.begun.count("failing") == 2)


async def test_what_is_a_day_old_when_a_process_starts_is_tried_for_a_while_before_it_is_given_up(bench: Bench) -> None:
    await bench.ledger.effects.add("run-1", NewEffect("run-1/failing", "failing", {}))
    bench.ahead += GIVE_UP_SECONDS + 60
    await bench.send()
    await bench.until(lambda: bench.waits() > 0)
    assert bench.state("failing") == "pending"
    bench.ahead += GRACE_SECONDS + AWAY_SECONDS
    bench.outbox.wake()
    await bench.until(lambda: bench.state("failing") == "dead")
