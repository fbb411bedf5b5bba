"""Questions to a person, on a real ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.agent.approvals import Approvals
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, NewRun
from protocols.approvals import Approval
from protocols.runs import RunSource, new_run_id
from runtime.sqlite_writer import DiskFull


async def begin(ledger: Ledger) -> ClaimedRun:
    await ledger.accept(NewRun(new_run_id(), RunSource.HOOK, "Hook", "operator", True, "hook:one", "go"))
    (run,) = await ledger.claim(1, 1)
    return run


async def test_a_question_expires_though_the_disk_was_full_for_a_while(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state.db", "webster")
    ledger.start()
    reader = Reader(tmp_path / "state.db", "webster")
    expire, full = ledger.approvals.expire, [True, True]

    async def expire_when_there_is_room() -> list[Approval]:
        if full:
            full.pop()
            raise DiskFull("no room")
        return await expire()

    ledger.approvals.expire = expire_when_there_is_room  # type: ignore[method-assign]
    approvals = Approvals(
        ledger.approvals, reader, expires_after=lambda: 0.05, on_change=lambda approval: None, retry_seconds=0.01
    )
    serving = asyncio.create_task(approvals.serve())
    try:
        asked = await approvals.ask(await begin(ledger), "key", "exec", "ls", "ask exec")
        async with asyncio.timeout(5):
            assert (await approvals.wait(asked.id)).state == "expired"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        reader.close()
        ledger.close()
