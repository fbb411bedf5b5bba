"""A turn's steps in the ledger: answers, tool calls and their results, and what people said meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import msgspec

from gateway.ledger.records import ClaimedRun, NewCompaction, PromptUsed, RunOptions
from gateway.ledger.rows import COLLECTED, add_message, collected_into, content_of
from protocols.runs import Usage
from runtime.sqlite_writer import SqliteWriter

PINNED_FACTS = 20
"""Facts that a session keeps in sight at most."""

T = TypeVar("T")

_json = msgspec.json.Encoder().encode


class StepStore:
    """Each method is one durable operation of the run that it is given."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock
        self._on_step: Callable[[str], None] = lambda run_id: None

    def tell(self, on_step: Callable[[str], None]) -> None:
        """From now on `on_step(run_id)` is called after each step that was written, on the loop's thread."""
        self._on_step = on_step

    async def save_answer(
        self,
        run: ClaimedRun,
        content: bytes,
        *,
        text: str,
        model: str,
        usage: Usage,
        cost_usd: float | None,
        started_at: float,
        prompt: PromptUsed,
    ) -> None:
        """Write one model answer: its step, its message (`content` is the blocks as JSON) and what it used."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO prompts(hash, text) VALUES (?, ?) ON CONFLICT(hash) DO NOTHING",
                (prompt.hash, prompt.stable),
            )
            db.execute(
                "INSERT INTO steps(run_id, idx, kind, state, name, output, started_at, finished_at, input_tokens,"
                " output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, prompt_hash, volatile)"
                " VALUES (?, ?, 'model', 'done', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.run_id,
                    _next_index(db, run.run_id),
                    model,
                    text,
                    started_at,
                    now,
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cache_read_tokens,
                    usage.cache_write_tokens,
                    cost_usd,
                    prompt.hash,
                    prompt.volatile,
                ),
            )
            add_message(db, run.session_key, run.run_id, "assistant", content.decode(), now)
            db.execute("UPDATE runs SET model = ? WHERE id = ?", (model, run.run_id))
            _add_usage(db, run.run_id, usage, cost_usd)

        await self._write(run, operation)

    async def save_side_answer(
        self, run: ClaimedRun, model: str, usage: Usage, cost_usd: float | None, text: str
    ) -> None:
        """Count a model answer that is not part of the conversation (compaction's), as a step of the run."""
        now = self._clock()
        await self._write(run, lambda db: _side_answer(db, run, model, usage, cost_usd, text, now))

    async def save_empty_answer(
        self, run: ClaimedRun, model: str, usage: Usage, cost_usd: float | None, *, started_at: float
    ) -> None:
        """Count what a call used that brought nothing a conversation can hold: it was paid for."""
        now = self._clock()
        await self._write(
            run, lambda db: _aside(db, run, "model", "failed", model, usage, cost_usd, "", started_at, now)
        )

    async def save_compaction(self, run: ClaimedRun, new: NewCompaction) -> None:
        """Let a summary stand for the session's messages up to `upto_seq`; the messages themselves stay."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO compactions(session_key, upto_seq, summary, checkpoint, tokens_before, tokens_after, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    run.session_key,
                    new.upto_seq,
                    new.summary,
                    new.checkpoint,
                    new.tokens_before,
                    new.tokens_after,
                    now,
                ),
            )
            _side_answer(db, run, new.model, new.usage, new.cost_usd, new.summary, now)

        await self._write(run, operation)

    async def start_tool(self, run: ClaimedRun, call_id: str, name: str, arguments: bytes) -> int:
        """Write that a tool call begins, before it does; its step's index."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> int:
            index = _next_index(db, run.run_id)
            db.execute(
                "INSERT INTO steps(run_id, idx, kind, state, name, call_id, input, started_at)"
                " VALUES (?, ?, 'tool', 'started', ?, ?, ?, ?)",
                (run.run_id, index, name, call_id, arguments.decode(), now),
            )
            db.execute("UPDATE runs SET stalled = 0 WHERE id = ?", (run.run_id,))
            return index

        return await self._write(run, operation)

    async def refuse_tool(self, run: ClaimedRun, call_id: str, name: str, arguments: bytes, output: str) -> None:
        """Write a tool call that was refused, whole: it never stands there as begun, to be made after a crash."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO steps(run_id, idx, kind, state, name, call_id, input, output, is_error, started_at,"
                " finished_at) VALUES (?, ?, 'tool', 'failed', ?, ?, ?, ?, 1, ?, ?)",
                (run.run_id, _next_index(db, run.run_id), name, call_id, arguments.decode(), output, now, now),
            )
            db.execute("UPDATE runs SET stalled = 0 WHERE id = ?", (run.run_id,))

        await self._write(run, operation)

    async def finish_tool(
        self,
        run: ClaimedRun,
        index: int,
        output: str,
        *,
        state: str,
        is_error: bool,
    ) -> None:
        """Write a tool call's result."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE steps SET state = ?, output = ?, is_error = ?, finished_at = ? WHERE run_id = ? AND idx = ?",
                (state, output, is_error, now, run.run_id, index),
            )
            db.execute("UPDATE runs SET stalled = 0 WHERE id = ?", (run.run_id,))

        await self._write(run, operation)

    async def add_user_message(self, run: ClaimedRun, content: bytes) -> None:
        """Add a message of the user's side to the run's session: tool results, or a reminder. `content`: blocks."""
        now = self._clock()
        await self._writer.submit(
            lambda db: add_message(db, run.session_key, run.run_id, "user", content.decode(), now)
        )

    async def pin(self, run: ClaimedRun, fact: str) -> None:
        """Keep a fact in the checkpoint of the run's session, once; the newest PINNED_FACTS stay."""

        def operation(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT pinned FROM sessions WHERE key = ?", (run.session_key,)).fetchone()
            pinned = msgspec.json.decode(row[0], type=list[str]) if row else []
            if fact not in pinned:
                kept = [*pinned, fact][-PINNED_FACTS:]
                db.execute("UPDATE sessions SET pinned = ? WHERE key = ?", (_json(kept).decode(), run.session_key))

        await self._writer.submit(operation)

    async def _write(self, run: ClaimedRun, operation: Callable[[sqlite3.Connection], T]) -> T:
        result = await self._writer.submit(operation)
        self._on_step(run.run_id)
        return result

    async def collect(self, run: ClaimedRun) -> list[str]:
        """Take into `run` what people have queued in its session since: their messages as blocks (JSON), in order.

        Only what is answered where `run` is (`collected_into`). Those runs wait for `run` and end with it.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                f"SELECT id, message, options FROM runs WHERE {COLLECTED} ORDER BY seq", collected_into(run)
            ).fetchall()
            said: list[str] = []
            for run_id, message, options in rows:
                db.execute(
                    "UPDATE runs SET state = 'waiting', merged_into = ?, attempts = 1, started_at = ?, reason = ?"
                    " WHERE id = ?",
                    (run.run_id, now, f"taken into {run.run_id}", run_id),
                )
                said.append(content_of(message, msgspec.json.decode(options, type=RunOptions)))
                add_message(db, run.session_key, run.run_id, "user", said[-1], now)
            return said

        return await self._writer.submit(operation)


def _side_answer(
    db: sqlite3.Connection, run: ClaimedRun, model: str, usage: Usage, cost_usd: float | None, text: str, now: float
) -> None:
    _aside(db, run, "compaction", "done", model, usage, cost_usd, text, now, now)


def _aside(
    db: sqlite3.Connection,
    run: ClaimedRun,
    kind: str,
    state: str,
    model: str,
    usage: Usage,
    cost_usd: float | None,
    text: str,
    started_at: float,
    now: float,
) -> None:
    """A model's answer as a step without a message."""
    db.execute(
        "INSERT INTO steps(run_id, idx, kind, state, name, output, started_at, finished_at, input_tokens,"
        " output_tokens, cache_read_tokens, cache_write_tokens, cost_usd)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.run_id,
            _next_index(db, run.run_id),
            kind,
            state,
            model,
            text,
            started_at,
            now,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            cost_usd,
        ),
    )
    db.execute("UPDATE runs SET model = coalesce(model, ?) WHERE id = ?", (model, run.run_id))
    _add_usage(db, run.run_id, usage, cost_usd)


def _add_usage(db: sqlite3.Connection, run_id: str, usage: Usage, cost_usd: float | None) -> None:
    """Add what a model call used to its run's totals."""
    db.execute(
        "UPDATE runs SET stalled = 0, input_tokens = input_tokens + ?, output_tokens = output_tokens + ?,"
        " cache_read_tokens = cache_read_tokens + ?, cache_write_tokens = cache_write_tokens + ?,"
        " cost_usd = coalesce(cost_usd, 0) + ?, cost_unknown = cost_unknown + ? WHERE id = ?",
        (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            cost_usd or 0.0,
            cost_usd is None,
            run_id,
        ),
    )


def _next_index(db: sqlite3.Connection, run_id: str) -> int:
    (index,) = db.execute("SELECT coalesce(max(idx), -1) + 1 FROM steps WHERE run_id = ?", (run_id,)).fetchone()
    return int(index)
