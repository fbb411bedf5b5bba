"""A run that kills its process again and again is given up in the end, and one that is only unlucky is not."""

from __future__ import annotations

from pathlib import Path

from gateway.ledger.ledger import MAX_STALLED, STALLED_SECONDS, Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from protocols.runs import RunSource, RunState


async def test_a_run_is_lost_after_many_starts_over_a_long_time_and_not_before(tmp_path: Path) -> None:
    now = [1_000_000.0]
    ledger = Ledger(tmp_path / "state.db", "webster", clock=lambda: now[0])
    ledger.start()
    reader = Reader(tmp_path / "state.db", "webster")
    try:
        new = NewRun(
            run_id="run-abcdef",
            source=RunSource.HOOK,
            name="Hook",
            caller="manager",
            people=False,
            parent_run_id="run-parent",
            session_key="hook:1",
            message="die",
        )
        await ledger.accept(new)
        for _ in range(MAX_STALLED * 3):  # killed in quick succession: bad luck
            assert len(await ledger.claim(1, 1)) == 1
            assert await ledger.recover() == (1, [])
        now[0] += STALLED_SECONDS
        assert len(await ledger.claim(1, 1)) == 1
        assert await ledger.recover() == (0, ["run-abcdef"])
        run = reader.run("run-abcdef")
        assert run is not None
        assert run.state is RunState.LOST
        assert "31 times in 15 min" in run.reason
        (report,) = await ledger.effects.due()
        assert (report.kind, report.target, report.payload["state"]) == ("report", "manager", "lost")
    finally:
        reader.close()
        ledger.close()
