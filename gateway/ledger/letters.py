"""Dead letters in the ledger: effects that ended undelivered, kept whole, and put back into the outbox by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Literal

import msgspec

from protocols.deadletters import DeadLetter
from runtime.sqlite_writer import SqliteWriter

_SELECT = "SELECT id, run_id, kind, state, target, payload, detail, attempts, created_at, finished_at FROM effects"
_DEAD = "state IN ('dead', 'unknown')"
MESSAGES = ("deliver", "message")
"""Kinds whose target may be changed."""


class LetterStore:
    """One durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def replay(self, letter_id: int, to: str | None, by: str) -> Literal["again", "not_dead", "unknown"]:
        """Put a dead letter back into the outbox, for `to` if given. Its time to be given up starts anew.

        What of it stands on a channel already is not posted again, unless it goes elsewhere now.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> Literal["again", "not_dead", "unknown"]:
            row = db.execute(f"SELECT key FROM effects WHERE id = ? AND {_DEAD}", (letter_id,)).fetchone()
            if row is not None:
                db.execute(
                    "DELETE FROM posts WHERE key = ? AND (message_id IS NULL OR target <> coalesce(?, target))",
                    (row[0], to),
                )
            changed = db.execute(
                "UPDATE effects SET state = 'pending', attempts = 0, next_at = ?, created_at = ?, finished_at = NULL,"
                " detail = ?, target = coalesce(?, target), payload ="
                "  CASE kind WHEN 'deliver' THEN json_set(payload, '$.again', json('true')) ELSE payload END"
                f" WHERE id = ? AND {_DEAD}",
                (now, now, f"sent again by {by}", to, letter_id),
            ).rowcount
            if changed:
                return "again"
            known = db.execute("SELECT 1 FROM effects WHERE id = ?", (letter_id,)).fetchone()
            return "not_dead" if known else "unknown"

        return await self._writer.submit(operation)


class LetterReader:
    """Reads on the reader's connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def dead(self, limit: int) -> tuple[list[DeadLetter], int]:
        """(the newest first, how many there are in all)."""
        rows = self._db.execute(f"{_SELECT} WHERE {_DEAD} ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        (total,) = self._db.execute(f"SELECT count(*) FROM effects WHERE {_DEAD}").fetchone()
        return [_letter(tuple(row)) for row in rows], total

    def find(self, letter_id: int) -> DeadLetter | None:
        """An effect by its id, whatever its state."""
        row = self._db.execute(f"{_SELECT} WHERE id = ?", (letter_id,)).fetchone()
        return _letter(tuple(row)) if row else None

    def by_key(self, key: str) -> DeadLetter | None:
        row = self._db.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
        return _letter(tuple(row)) if row else None

    def key_of(self, letter_id: int) -> str:
        return str(self._db.execute("SELECT key FROM effects WHERE id = ?", (letter_id,)).fetchone()[0])


def _letter(row: tuple[object, ...]) -> DeadLetter:
    run_id, kind, state, target, payload, detail, attempts, created, finished = row[1:]
    content = msgspec.json.decode(str(payload))
    return msgspec.convert(
        {
            "id": row[0],
            "runId": run_id,
            "kind": kind,
            "state": state,
            "target": target,
            "text": str(content.get("text", "")) if isinstance(content, dict) else "",
            "detail": detail,
            "attempts": attempts,
            "createdAt": created,
            "finishedAt": finished,
        },
        DeadLetter,
        strict=False,
    )
