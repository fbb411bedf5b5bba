"""The outbox on a real ledger: one effect's bad luck is not another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.channels import outbox as module
from gateway.channels.outbox import Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import Effect, NewEffect
from runtime.sqlite_writer import DiskFull


class Bench:
    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "state.db", "webster")
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")
        self.begun: list[str] = []
        self.slow_may_end = asyncio.Event()
        handlers = {"quick": self.quick, "slow": self.slow, "broken": self.broken}
        self.outbox = Outbox(self.ledger, self.reader, handlers, on_change=lambda run_id: None)
        self.task: asyncio.Task[None] | None = None

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
