"""A run that is taken in is worked on, whatever becomes of what it interrupts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
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


@contextlib.asynccontextmanager
async def taking_in(folder: Path) -> AsyncIterator[tuple[Acceptance, Ledger, FullRunner]]:
    """Where a person's newer message interrupts."""
    ledger = Ledger(folder / "state.db", "webster")
    ledger.start()
    reader = Reader(folder / "state.db", "webster")
    runner: Any = FullRunner()
    try:
        yield (
            Acceptance(
                ledger,
                reader,
                runner,
                steer=lambda: "interrupt",
                on_accept=lambda new: None,
                cancel_children=lambda run_id: None,
            ),
            ledger,
            runner,
        )
    finally:
        reader.close()
        ledger.close()


async def test_a_disk_that_fills_up_during_an_interruption_loses_neither_run(tmp_path: Path) -> None:
    async with taking_in(tmp_path) as (accept, ledger, runner):
        await accept(NewRun("run-1", RunSource.CHAT, "", "ann", True, "s", "first", idempotency_key="1"))
        await ledger.claim(1, 1)
        newer = NewRun("run-2", RunSource.CHAT, "", "ann", True, "s", "instead", idempotency_key="2")
        with pytest.raises(DiskFull):
            await accept(newer)
        assert runner.told == 2
        await accept(newer)
        assert runner.cancelled == ["run-1", "run-1"]


@pytest.mark.parametrize(
    ("first", "newer", "ends"),
    [
        (("discord:user:1", True), "discord:user:1", True),
        (("discord:user:1", True), "discord:user:2", False),
        (("operator", True), "discord:user:1", False),
        (("discord:user:1", True), "operator", True),
        (("manager", False), "discord:user:1", True),
    ],
)
async def test_a_message_interrupts_no_work_that_somebody_else_waits_for(
    tmp_path: Path, first: tuple[str, bool], newer: str, ends: bool
) -> None:
    """People may share one session; what the operator asked for, and what nobody waits for, is another matter."""
    async with taking_in(tmp_path) as (accept, ledger, runner):
        await accept(NewRun("run-1", RunSource.CHAT, "", *first, "s", "first"))
        await ledger.claim(1, 1)
        with contextlib.suppress(DiskFull):
            await accept(NewRun("run-2", RunSource.CHAT, "", newer, True, "s", "instead"))
        assert runner.cancelled == (["run-1"] if ends else [])
