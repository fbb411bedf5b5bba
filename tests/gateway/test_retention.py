"""What is removed with old runs, and that looking at the ledger costs the same however long it has been kept."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewCompaction, NewRun, PromptUsed
from gateway.ledger.steps import StepStore
from protocols.approvals import Approval
from protocols.runs import RunSource, RunState, Usage, new_run_id
from runtime.sqlite_writer import SqliteWriter

SESSION = "agent:webster:main"
DAY = 86400.0


class Bench:
    def __init__(self, folder: Path) -> None:
        self.now = 1_000_000.0
        self.ledger = Ledger(folder / "state.db", "webster", clock=lambda: self.now)
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")

    async def begin(self, message: str = "go") -> ClaimedRun:
        new = NewRun(new_run_id(), RunSource.HOOK, "Hook", "operator", True, SESSION, message)
        await self.ledger.accept(new)
        (run,) = await self.ledger.claim(1, 1)
        return run

    async def answer(self, run: ClaimedRun, prompt: str) -> None:
        await self.ledger.steps.save_answer(
            run,
            b'[{"type":"text","text":"yes"}]',
            text="yes",
            model="offline/echo",
            usage=Usage(),
            cost_usd=0.0,
            started_at=self.now,
            prompt=PromptUsed(prompt, ""),
        )

    def count(self, table: str) -> int:
        return int(self.reader._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.reader.close()
    made.ledger.close()


async def test_nothing_of_an_old_run_stays_and_its_session_can_be_used_again(bench: Bench) -> None:
    """A summary that stayed would stand for messages yet to come: their numbers begin anew in an empty table."""
    for number in range(3):
        run = await bench.begin()
        await bench.answer(run, f"prompt {number}")
        ap = Approval(id=f"ap-{number}", agent="webster", run_id=run.run_id, question="?", created_at=bench.now)
        await bench.ledger.approvals.ask(ap, f"{run.run_id}/1.0")
        rows = bench.reader.conversations.history(SESSION)
        if number == 2:
            compaction = NewCompaction(rows[-1].seq, "the summary", "", 10, 1, "offline/echo", Usage(), 0.0)
            await bench.ledger.steps.save_compaction(run, compaction)
        await bench.ledger.finish(run.run_id, Ending(RunState.SUCCEEDED))
    bench.now += 100 * DAY
    assert await bench.ledger.prune(bench.now - 90 * DAY) == 3
    tables = ("runs", "messages", "steps", "sessions", "compactions", "approvals", "prompts")
    assert {table: bench.count(table) for table in tables} == dict.fromkeys(tables, 0)
    await bench.begin("are you there?")
    (row,) = bench.reader.conversations.history(SESSION)
    assert "are you there?" in row.content


async def test_a_prompt_that_a_newer_answer_was_given_to_stays(bench: Bench) -> None:
    run = await bench.begin()
    await bench.answer(run, "the same")
    await bench.ledger.finish(run.run_id, Ending(RunState.SUCCEEDED))
    bench.now += 100 * DAY
    run = await bench.begin()
    await bench.answer(run, "the same")
    await bench.ledger.finish(run.run_id, Ending(RunState.SUCCEEDED))
    assert await bench.ledger.prune(bench.now - 90 * DAY) == 1
    assert (bench.count("runs"), bench.count("prompts")) == (1, 1)


async def test_what_is_looked_at_often_reads_no_whole_table_of_runs(bench: Bench) -> None:
    run = await bench.begin()
    db = bench.reader._db
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    reader = bench.reader
    reader.queue()
    reader.current()
    reader.last_failure()
    reader.spent_since(0)
    reader.dead_letters()
    reader.has_ready()
    reader.next_deadline()
    reader.expired(0)
    reader.open_runs_of("operator")
    reader.has_to_collect(run)
    reader.pending_approvals()
    reader.merged(run.run_id)
    reader.runs(50, "failed")
    db.set_trace_callback(None)
    asked += await _asked_in(db, lambda steps: steps.collect(run))
    slow = []
    for query in asked:
        for row in db.execute(f"EXPLAIN QUERY PLAN {query}"):
            if row[3] in ("SCAN runs", "SCAN steps", "SCAN effects", "SCAN messages"):
                slow.append(query)
    assert slow == []


async def test_the_next_run_is_found_without_looking_at_all_that_wait(bench: Bench) -> None:
    (claim,) = await _asked_in(bench.reader._db, lambda steps: _on_writer_of(steps).claim(1, 1))
    plans = [row[3] for row in bench.reader._db.execute(f"EXPLAIN QUERY PLAN {claim}")]
    assert [plan for plan in plans if "SUBQUERY" not in plan] == [
        "SCAN r USING INDEX runs_ready",
        "SEARCH o USING INDEX runs_active (session_key=?)",
        "SEARCH o USING INDEX runs_interrupted (session_key=?)",
    ]


async def test_pruning_looks_at_old_runs_only(bench: Bench) -> None:
    found = await _asked_in(bench.reader._db, lambda steps: _on_writer_of(steps).prune(0))
    plans = [row[3] for row in bench.reader._db.execute(f"EXPLAIN QUERY PLAN {found[0]}")]
    assert plans[0] == "SEARCH r USING INDEX runs_created (created_at<?)"


def _on_writer_of(steps: StepStore) -> Ledger:
    ledger = Ledger.__new__(Ledger)
    ledger.writer, ledger._clock = steps._writer, steps._clock
    return ledger


async def _asked_in(db: sqlite3.Connection, act: Callable[[StepStore], Any]) -> list[str]:
    """The queries that an operation makes, here of a connection that cannot write."""
    asked: list[str] = []

    class Writer:
        async def submit(self, operation: Callable[[sqlite3.Connection], Any]) -> Any:
            db.set_trace_callback(asked.append)
            try:
                return operation(db)
            except sqlite3.OperationalError:
                return None
            finally:
                db.set_trace_callback(None)

    await act(StepStore(cast(SqliteWriter, Writer()), lambda: 0.0))
    return [query for query in asked if query.startswith("SELECT")]
