"""A run that is taken in is worked on, whatever becomes of what it interrupts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.agent.acceptance import Acceptance
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from protocols.runs import RunSource
from runtime.sqlite_writer import DiskFull


class FullRunner:
    """Its first cancellation finds no room on the disk."""

    def __init__(self) -> None:
        self.told = 0
        self.cancelled: list[str] = []

    def accepted(self, **_: object) -> None:
        self.told += 1

    async def cancel(self, run_id: str, reason: str) -> None:
        self.cancelled.append(run_id)
        if len(self.cancelled) == 1:
            raise DiskFull("no room")


async def test_a_disk_that_fills_up_during_an_interruption_loses_neither_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db", "webster")
    ledger.start()
    reader = Reader(tmp_path / "state.db", "webster")
    runner: Any = FullRunner()
    accept = Acceptance(
        ledger,
        reader,
        runner,
        steer=lambda: "interrupt",
        on_accept=lambda new: None,
        cancel_children=lambda run_id: None,
    )
    try:
        await accept(NewRun("run-1", RunSource.CHAT, "", "ann", True, "s", "first", idempotency_key="1"))
        await ledger.claim(1, 1)
        newer = NewRun("run-2", RunSource.CHAT, "", "ann", True, "s", "instead", idempotency_key="2")
        with pytest.raises(DiskFull):
            await accept(newer)
        assert runner.told == 2
        await accept(newer)
        assert runner.cancelled == ["run-1", "run-1"]
    finally:
        reader.close()
        ledger.close()
