"""What is removed with old runs, and that looking at the ledger costs the same however long it has been kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewCompaction, NewEffect, NewRun, PromptUsed, RunOptions
from gateway.ledger.steps import StepStore
from gateway.upkeep import prune
from protocols.approvals import Approval
from protocols.runs import RunSource, RunState, Usage, new_run_id
from runtime.config import LimitsTable
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


async def test_what_a_run_gave_itself_stays_until_that_run_is_over(bench: Bench) -> None:
    """A parent that was put back and has not read the answer would find no such run, and give the work once more."""
    parent = await bench.begin()
    new = NewRun(
        new_run_id(), RunSource.HOOK, "spawn", "webster", False, "its own", "count",
        idempotency_key=f"{parent.run_id}/1.0", parent_run_id=parent.run_id,
    )  # fmt: skip
    await bench.ledger.children.accept(new, awaited=True)
    await bench.ledger.claim(1, 1)
    await bench.ledger.finish(new.run_id, Ending(RunState.SUCCEEDED, text="seven"))
    await bench.ledger.requeue(parent.run_id)
    bench.now += 100 * DAY
    assert await bench.ledger.prune(bench.now) == 0
    again = NewRun(
        new_run_id(), RunSource.HOOK, "spawn", "webster", False, "its own", "count",
        idempotency_key=f"{parent.run_id}/1.0", parent_run_id=parent.run_id,
    )  # fmt: skip
    assert await bench.ledger.children.accept(again, awaited=True) == (new.run_id, False)
    assert [child.text for child in bench.reader.own_children.own(parent.run_id)] == ["seven"]
    await bench.ledger.finish(parent.run_id, Ending(RunState.SUCCEEDED))
    bench.now += 1
    assert await bench.ledger.prune(bench.now) == 2


async def test_where_a_session_answers_stays_while_a_message_in_it_waits(bench: Bench) -> None:
    """A full ledger is pruned up to now, at a start too, before anything that waits has begun."""
    await bench.ledger.finish((await bench.begin()).run_id, Ending(RunState.SUCCEEDED))
    assert await bench.ledger.begin_anew(SESSION)
    route = "discord:channel:7"
    asked = RunOptions(to=route)
    new = NewRun(new_run_id(), RunSource.CHAT, "Chat", "discord:user:1", True, SESSION, "hello", asked)
    await bench.ledger.accept(new)
    bench.now += 1
    assert await bench.ledger.prune(bench.now) == 1
    await bench.ledger.claim(1, 1)
    assert bench.reader.conversations.route(SESSION) == route
    (row,) = bench.reader.conversations.history(SESSION)  # behind no marker of what is gone
    assert "hello" in row.content
    await bench.ledger.finish(new.run_id, Ending(RunState.SUCCEEDED))
    bench.now += 1
    assert await bench.ledger.prune(bench.now) == 1
    assert bench.count("sessions") == 0


class TestQuestionsWithoutARun:
    """Those of pairings: nothing else would ever remove them."""

    async def put(self, bench: Bench, number: int, state: str = "rejected", shown: str = "done") -> str:
        """One that was asked now, shown on a channel and answered; its key there."""
        ap = Approval(id=f"ap-{number}", agent="webster", question="?", expires_at=bench.now + 3600)
        await bench.ledger.approvals.ask(ap, f"pairing/discord/{number}/CODE")
        key = f"question/ask/ap-{number}"
        for effect in (NewEffect(key, "ask", {}, "discord:channel:1"), NewEffect(f"{key}/answered", "ask", {})):
            await bench.ledger.effects.add("", effect)
        await bench.ledger.posts.trying(key, 0, "discord:channel:1", "nonce", "?")
        await bench.ledger.posts.posted(key, 0, "discord:channel:1", str(number), "?", final=True)
        for effect in await bench.ledger.effects.due():
            if effect.key != f"{key}/answered" or shown != "pending":
                await bench.ledger.effects.settle(effect.id, shown if shown != "pending" else "done")
        if state != "pending":
            await bench.ledger.approvals.answer(ap.id, state=state, revision=1, by="operator", reason="")
        return key

    def left(self, bench: Bench) -> tuple[int, int, int]:
        return bench.count("approvals"), bench.count("effects"), bench.count("posts")

    @pytest.mark.parametrize("state", ["approved", "rejected", "expired"])
    @pytest.mark.parametrize("shown", ["done", "dead", "skipped"])
    async def test_an_old_one_goes_with_all_that_showed_it(self, bench: Bench, state: str, shown: str) -> None:
        await self.put(bench, 1, state, shown)
        bench.now += 50 * DAY
        kept = await self.put(bench, 2)
        bench.now += 50 * DAY
        assert self.left(bench) == (2, 4, 2)
        assert await bench.ledger.prune(bench.now - 90 * DAY) == 1
        assert self.left(bench) == (1, 2, 1)
        assert bench.reader.posts.of(kept)
        assert await bench.ledger.prune(bench.now - 90 * DAY) == 0

    async def test_one_that_is_open_or_still_to_be_shown_stays(self, bench: Bench) -> None:
        await self.put(bench, 1, state="pending")
        await self.put(bench, 2, shown="pending")
        bench.now += 100 * DAY
        assert await bench.ledger.prune(bench.now) == 0
        assert self.left(bench) == (2, 4, 2)

    async def test_one_of_today_stays_however_full_the_ledger_is(self, bench: Bench) -> None:
        """Whoever put it may not have seen the answer yet."""
        await self.put(bench, 1)
        bench.now += DAY - 1
        assert await bench.ledger.prune(bench.now) == 0
        bench.now += 2
        assert await bench.ledger.prune(bench.now) == 1

    async def test_many_go_a_little_at_a_time_and_are_found_by_indexes(self, bench: Bench) -> None:
        for number in range(5):
            await self.put(bench, number)
        bench.now += 100 * DAY
        asked: list[str] = []
        await bench.ledger.writer.submit(lambda db: db.set_trace_callback(asked.append))
        assert [await bench.ledger.prune(bench.now - 90 * DAY, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        await bench.ledger.writer.submit(lambda db: db.set_trace_callback(None))
        assert self.left(bench) == (0, 0, 0)
        ours = [query for query in asked if "question/ask/" in query or "FROM approvals" in query]
        plans = {row[3] for query in ours for row in bench.reader._db.execute(f"EXPLAIN QUERY PLAN {query}")}
        assert plans == {
            "SEARCH approvals USING INDEX approvals_run (run_id=?)",
            "SEARCH approvals USING PRIMARY KEY (id=?)",
            "SEARCH effects USING INDEX sqlite_autoindex_effects_1 (key>? AND key<?)",
            "SEARCH posts USING PRIMARY KEY (key=?)",
        }


async def test_each_round_of_the_upkeep_removes_old_rows_and_what_channels_remember_for_no_reason(bench: Bench) -> None:
    run = await bench.begin()
    await bench.ledger.finish(run.run_id, Ending(RunState.SUCCEEDED))
    forgotten = asyncio.Event()

    async def forget() -> None:
        forgotten.set()

    limits = LimitsTable(retention_days=1)
    keeping = asyncio.create_task(
        prune(bench.ledger, bench.reader, busy=lambda: False, limits=lambda: limits, forget=forget)
    )
    async with asyncio.timeout(10):
        await forgotten.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert bench.count("runs") == 0  # this bench's time is long ago


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
