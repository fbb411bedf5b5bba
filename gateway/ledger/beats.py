"""Heartbeats in the ledger: notes that wait for one, its run, and its outcome."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gateway.ledger.records import NewRun
from gateway.ledger.rows import insert_run
from runtime.sqlite_writer import SqliteWriter


class BeatStore:
    """Writes what the heartbeat needs; each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def add_note(self, text: str, sender: str) -> None:
        """Keep a wake's text for the next heartbeat."""
        now = self._clock()
        await self._writer.submit(
            lambda db: db.execute("INSERT INTO notes(text, sender, at) VALUES (?, ?, ?)", (text, sender, now)).rowcount
        )

    async def accept(self, make: Callable[[list[tuple[str, str, float]]], NewRun]) -> str:
        """Store a heartbeat's run together with the notes that wait for it, and release held runs; its id.

        `make` builds the run from the notes (text, sender, at).
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> str:
            notes = db.execute("SELECT text, sender, at FROM notes WHERE run_id IS NULL ORDER BY id").fetchall()
            new = make([(n[0], n[1], n[2]) for n in notes])
            insert_run(db, new, now)
            db.execute("UPDATE notes SET run_id = ? WHERE run_id IS NULL", (new.run_id,))
            db.execute("UPDATE runs SET held = 0 WHERE held = 1")
            return new.run_id

        return await self._writer.submit(operation)

    async def release_held(self) -> int:
        return await self._writer.submit(lambda db: db.execute("UPDATE runs SET held = 0 WHERE held = 1").rowcount)

    async def save(self, outcome: str, run_id: str | None, fingerprint: str = "") -> None:
        """Keep what became of a beat; `fingerprint` is of what it had seen."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO beats(at, outcome, run_id, fingerprint) VALUES (?, ?, ?, ?)",
                (now, outcome, run_id, fingerprint),
            )
            db.execute("DELETE FROM beats WHERE id <= (SELECT max(id) FROM beats) - 500")

        await self._writer.submit(operation)
