"""Effects in the ledger: written with a run's end, carried out by the outbox, settled here."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from gateway.ledger.records import Effect, NewEffect, RunOptions
from protocols.runs import RunState, one_line
from runtime.sqlite_writer import SqliteWriter

_json = msgspec.json.Encoder().encode


class EffectStore:
    """What is due, and what became of it; each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def due(
        self, now: float | None = None, *, but: Sequence[int] = (), kinds_but: Sequence[str] = (), limit: int = 64
    ) -> list[Effect]:
        """Effects whose time has come, oldest first, without those ids and kinds.

        (Read by the writer, so that its own writes are seen.)
        """
        at = self._clock() if now is None else now

        def operation(db: sqlite3.Connection) -> list[Effect]:
            rows = db.execute(
                "SELECT id, key, run_id, kind, target, payload, attempts, created_at FROM effects"
                f" WHERE state = 'pending' AND next_at <= ? AND id NOT IN ({_marks(but)})"
                f" AND kind NOT IN ({_marks(kinds_but)}) ORDER BY next_at LIMIT ?",
                (at, *but, *kinds_but, limit),
            ).fetchall()
            return [
                Effect(
                    id=r[0],
                    key=r[1],
                    run_id=r[2],
                    kind=r[3],
                    target=r[4],
                    payload=msgspec.json.decode(r[5]),
                    attempts=r[6],
                    created_at=r[7],
                )
                for r in rows
            ]

        return await self._writer.submit(operation)

    async def add(self, run_id: str, effect: NewEffect) -> None:
        """Write an effect in the middle of a run, once for its key."""
        now = self._clock()
        await self._writer.submit(lambda db: add_effect(db, run_id, effect, now))

    async def settle(self, effect_id: int, state: str, detail: str = "") -> None:
        """`done`, `dead` (a permanent refusal, kept and visible), `skipped` or `unknown`."""
        now = self._clock()
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE effects SET state = ?, detail = ?, attempts = attempts + 1, finished_at = ? WHERE id = ?",
                    (state, detail, now, effect_id),
                ).rowcount
            )
        )

    async def retry(self, effect_id: int, at: float, detail: str) -> None:
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE effects SET attempts = attempts + 1, next_at = ?, detail = ? WHERE id = ?",
                    (at, detail, effect_id),
                ).rowcount
            )
        )

    async def retarget(self, effect_id: int, target: str) -> None:
        """A bare id was found to be this."""
        await self._writer.submit(
            lambda db: db.execute("UPDATE effects SET target = ? WHERE id = ?", (target, effect_id)).rowcount
        )

    async def hurry(self, provider: str) -> None:
        """What waits to be tried again through `provider`, or for a bare id that it may know, is due now."""
        now = self._clock()
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE effects SET next_at = ? WHERE state = 'pending' AND next_at > ?"
                    " AND (target >= ? AND target < ? OR kind = 'deliver' AND instr(target, ':') = 0)",
                    (now, now, f"{provider}:", f"{provider};"),  # ; follows :
                ).rowcount
            )
        )


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def add_effect(db: sqlite3.Connection, run_id: str, effect: NewEffect, now: float) -> None:
    """Write an effect in the caller's transaction, once for its key."""
    db.execute(
        "INSERT INTO effects(key, run_id, kind, target, payload, state, next_at, detail, created_at, finished_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO NOTHING",
        (
            effect.key,
            run_id,
            effect.kind,
            effect.target,
            _json(effect.payload).decode(),
            effect.state,
            now,
            effect.detail,
            now,
            None if effect.state == "pending" else now,
        ),
    )


def report_of(run_id: str, parent_run_id: str, delegator: str, state: RunState, text: str, reason: str) -> NewEffect:
    """Tells the delegator how a run ended that it gave."""
    payload = {
        "runId": run_id,
        "parentRunId": parent_run_id,
        "state": state.value,
        "text": text,
        "error": reason or None,
    }
    return NewEffect(key=f"{run_id}/report", kind="report", payload=payload, target=delegator)


def answer_of(run_id: str, options: RunOptions, state: RunState, text: str, reason: str) -> NewEffect:
    """To somebody who wrote on a channel: the answer, or that there is none. What was shown of it is always tidied."""
    mark = {RunState.SUCCEEDED: "done", RunState.CANCELLED: "stopped"}.get(state, "failed")
    if mark == "failed":
        text = f"I could not finish this: {one_line(reason, 500) or state.value}"
    payload = {"text": text if mark != "stopped" else "", "mark": mark, "to": options.to, "origin": options.origin}
    return NewEffect(key=f"{run_id}/deliver", kind="deliver", payload=payload, target=options.to)
