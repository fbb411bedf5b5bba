"""Schedules in the ledger. A due time becomes a run and the schedule moves on in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from gateway.ledger.records import NewRun
from gateway.ledger.rows import insert_run
from protocols.schedules import Schedule
from runtime.sqlite_writer import SqliteWriter

_COLUMNS = (
    "id, name, kind, spec, tz, message, session_key, target, missed, enabled, created_by, created_at, next_at,"
    " last_at, last_run_id"
)


class ScheduleStore:
    """Writes schedules; each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def add(self, new: Schedule, most: int) -> Schedule | None:
        """Keep a schedule, once for its id: the one that stands there; None if `most` are there already."""

        def operation(db: sqlite3.Connection) -> Schedule | None:
            found = _find(db, new.id)
            if found is not None:
                return found
            (count,) = db.execute("SELECT count(*) FROM schedules").fetchone()
            if count >= most:
                return None
            db.execute(
                f"INSERT INTO schedules({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.id,
                    new.name,
                    new.kind,
                    new.spec,
                    new.tz,
                    new.message,
                    new.session_key,
                    new.to,
                    new.missed,
                    new.enabled,
                    new.created_by,
                    new.created_at,
                    new.next_at,
                    None,
                    None,
                ),
            )
            return new

        return await self._writer.submit(operation)

    async def remove(self, schedule_id: str) -> bool:
        return await self._writer.submit(
            lambda db: db.execute("DELETE FROM schedules WHERE id = ?", (schedule_id,)).rowcount > 0
        )

    async def enable(self, schedule_id: str, enabled: bool, next_at: float | None) -> Schedule | None:
        """Switch it on, next due at `next_at`, or off; how it then stands, or None if there is none."""

        def operation(db: sqlite3.Connection) -> Schedule | None:
            db.execute("UPDATE schedules SET enabled = ?, next_at = ? WHERE id = ?", (enabled, next_at, schedule_id))
            return _find(db, schedule_id)

        return await self._writer.submit(operation)

    async def disable(self, schedule_id: str) -> None:
        """Off, because its times can no longer be told."""
        await self._writer.submit(
            lambda db: db.execute("UPDATE schedules SET enabled = 0 WHERE id = ?", (schedule_id,)).rowcount
        )

    async def move_on(self, due: Schedule, next_at: float | None, run: NewRun | None) -> bool:
        """Deal with one due time: accept its run (None: it is passed over) and set the next, both or neither.

        False if the schedule no longer stands as `due` says (someone removed, changed or already moved it), and then
        nothing is written. A time whose predecessor's run is still under way is passed over.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> bool:
            current = _find(db, due.id)
            if current is None or not current.enabled or current.next_at != due.next_at:
                return False
            accepted = run
            if current.last_run_id is not None:
                row = db.execute(
                    "SELECT 1 FROM runs WHERE id = ? AND state IN ('queued', 'running', 'waiting')",
                    (current.last_run_id,),
                ).fetchone()
                accepted = None if row else run
            fresh = accepted is not None and insert_run(db, accepted, now)
            db.execute(
                "UPDATE schedules SET next_at = ?, last_at = ?, last_run_id = ? WHERE id = ?",
                (
                    next_at,
                    due.next_at,
                    accepted.run_id if fresh and accepted else current.last_run_id,
                    due.id,
                ),
            )
            return fresh

        return await self._writer.submit(operation)


def _find(db: sqlite3.Connection, schedule_id: str) -> Schedule | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM schedules WHERE id = ?", (schedule_id,)).fetchone()
    return schedule_of(row) if row else None


def schedule_of(row: Any) -> Schedule:
    """A row of `schedules`, its columns in the table's order."""
    return Schedule(
        id=row[0],
        name=row[1],
        kind=row[2],
        spec=row[3],
        tz=row[4],
        message=row[5],
        session_key=row[6] or f"cron:{row[0]}",
        to=row[7],
        missed=row[8],
        enabled=bool(row[9]),
        created_by=row[10],
        created_at=row[11],
        next_at=row[12],
        last_at=row[13],
        last_run_id=row[14],
    )


class ScheduleReader:
    """Reads schedules on the reader's connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def all(self) -> list[Schedule]:
        """Every schedule, the next due first."""
        return self._query("SELECT * FROM schedules ORDER BY enabled = 0, next_at IS NULL, next_at")

    def find(self, schedule_id: str) -> Schedule | None:
        found = self._query("SELECT * FROM schedules WHERE id = ?", schedule_id)
        return found[0] if found else None

    def due(self, now: float) -> list[Schedule]:
        """Those whose time has come, the earliest first."""
        return self._query(
            "SELECT * FROM schedules WHERE enabled = 1 AND next_at IS NOT NULL AND next_at <= ? ORDER BY next_at", now
        )

    def coming(self, limit: int) -> list[Schedule]:
        """The next due, at most `limit`."""
        return self._query(
            "SELECT * FROM schedules WHERE enabled = 1 AND next_at IS NOT NULL ORDER BY next_at LIMIT ?", limit
        )

    def next_at(self) -> float | None:
        row = self._db.execute(
            "SELECT min(next_at) FROM schedules WHERE enabled = 1 AND next_at IS NOT NULL"
        ).fetchone()
        return None if row[0] is None else float(row[0])

    def _query(self, query: str, *values: object) -> list[Schedule]:
        return [schedule_of(tuple(row)) for row in self._db.execute(query, values)]
