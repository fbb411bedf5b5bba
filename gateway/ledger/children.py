"""Runs that an agent gives itself, in other sessions: accepted as children of the run that gave them, and read."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable

import msgspec

from gateway.ledger.effects import add_effect
from gateway.ledger.records import NewEffect, NewRun
from gateway.ledger.rows import insert_run
from protocols.runs import RunState, one_line
from runtime.sqlite_writer import SqliteWriter


class OwnChild(msgspec.Struct, frozen=True):
    """A child in this agent's own ledger, as it stands."""

    run_id: str
    session_key: str
    state: RunState
    text: str
    reason: str
    read: bool
    """Its parent has been given its outcome."""


class ChildStore:
    """Each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float], agent: str) -> None:
        self._writer = writer
        self._clock = clock
        self._agent = agent

    async def accept(self, new: NewRun, most: int | None = None, *, awaited: bool = False) -> tuple[str, bool] | None:
        """Accept a run together with its row as a child: (its id, whether it is new).

        A repeat of its key gets the first run. None if its parent has given `most` runs of this kind (of `new.name`).
        `awaited`: it is for its parent alone, and of no use without it.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> tuple[str, bool] | None:
            found = db.execute(
                "SELECT id FROM runs WHERE caller = ? AND idempotency_key = ?", (new.caller, new.idempotency_key)
            ).fetchone()
            if found:
                return found[0], False
            if most is not None:
                (count,) = db.execute(
                    "SELECT count(*) FROM runs WHERE parent_run_id = ? AND caller = ? AND name = ?",
                    (new.parent_run_id, new.caller, new.name),
                ).fetchone()
                if count >= most:
                    return None
            insert_run(db, new, now)
            db.execute(
                "INSERT INTO children(run_id, parent_run_id, agent, task, state, created_at, awaited)"
                " VALUES (?, ?, ?, ?, 'queued', ?, ?)",
                (new.run_id, new.parent_run_id, self._agent, one_line(new.message), now, awaited),
            )
            return new.run_id, True

        return await self._writer.submit(operation)

    async def mark_read(self, run_id: str, parent_run_id: str) -> None:
        """The parent has been given the outcome."""
        now = self._clock()
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE children SET read_at = ? WHERE run_id = ? AND parent_run_id = ?",
                    (now, run_id, parent_run_id),
                ).rowcount
            )
        )


def call_off(db: sqlite3.Connection, run_id: str, state: RunState, now: float) -> list[str]:
    """A run that ended so, without an answer, has what it gave to others cancelled there, as an effect of its end.

    All of it if the run was cancelled; else what it waited for. The rest was given to be done in any case. What was
    being handed over, and may have arrived or still arrive, is recalled. The children's ids.
    """
    rows = db.execute(
        "SELECT run_id, agent FROM children WHERE parent_run_id = ? AND state IN ('queued', 'running', 'waiting')"
        " AND (awaited = 1 OR ?)",
        (run_id, state is RunState.CANCELLED),
    ).fetchall()
    for child, agent in rows:
        add_effect(
            db, run_id, NewEffect(key=f"{child}/cancel", kind="cancel", payload={"runId": child}, target=agent), now
        )
    _recall(db, run_id, state, now)
    return [child for child, _ in rows]


def _recall(db: sqlite3.Connection, run_id: str, state: RunState, now: float) -> None:
    """What a run was handing over when it ended: nobody knows yet whether its receiver has it, nor under which id."""
    calls = db.execute(
        "SELECT call_id, input FROM steps WHERE run_id = ? AND kind = 'tool' AND name = 'delegate'"
        " AND state = 'started'",
        (run_id,),
    ).fetchall()
    given = Counter(
        db.execute(
            "SELECT agent, task FROM children WHERE parent_run_id = ? AND state IN ('queued', 'running', 'waiting')",
            (run_id,),
        )
    )
    for call_id, text in calls:
        asked = msgspec.json.decode(text)
        agent, task = str(asked.get("agent", "")), one_line(str(asked.get("task", "")))
        if given[agent, task] > 0:  # a child by now: it is called off as such
            given[agent, task] -= 1
        elif asked.get("wait", True) or state is RunState.CANCELLED:
            key = f"{run_id}/{call_id}"
            payload = {"idempotencyKey": key, "task": task}
            add_effect(db, run_id, NewEffect(key=f"{key}/recall", kind="recall", payload=payload, target=agent), now)


class ChildReader:
    """Reads on the reader's connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def own(self, run_id: str) -> list[OwnChild]:
        """The children of a run that are in this ledger, the oldest first."""
        rows = self._db.execute(
            "SELECT r.id, r.session_key, r.state, r.text, r.reason, c.read_at FROM children c"
            " JOIN runs r ON r.id = c.run_id WHERE c.parent_run_id = ? ORDER BY r.seq",
            (run_id,),
        )
        return [
            OwnChild(run_id=r[0], session_key=r[1], state=RunState(r[2]), text=r[3], reason=r[4], read=r[5] is not None)
            for r in rows
        ]

    def was_told(self, run_id: str, mark: str) -> bool:
        """Does a message of this run's user side begin with `mark`?"""
        found = self._db.execute(
            "SELECT 1 FROM messages WHERE run_id = ? AND role = 'user' AND instr(content, ?) > 0 LIMIT 1",
            (run_id, mark),
        ).fetchone()
        return found is not None

    def ancestors(self, run_id: str | None) -> list[tuple[str, str]]:
        """(run id, session) of a run, its parent and so on, as far as they are in this ledger."""
        chain: list[tuple[str, str]] = []
        while run_id is not None and len(chain) < 20:
            row = self._db.execute("SELECT session_key, parent_run_id FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                break
            chain.append((run_id, row[0]))
            run_id = row[1]
        return chain

    def waits_for(self, session_key: str, goal: str) -> bool:
        """Would a run of `session_key` wait, over however many others, until session `goal` is free?

        What occupies a session waits for its unfinished children, and each of those for its own session.
        """
        seen: set[str] = set()
        pending = [session_key]
        while pending:
            key = pending.pop()
            if key == goal:
                return True
            if key in seen:
                continue
            seen.add(key)
            rows = self._db.execute(
                "SELECT DISTINCT child.session_key FROM runs AS parent"
                " JOIN children c ON c.parent_run_id = parent.id JOIN runs AS child ON child.id = c.run_id"
                " WHERE parent.session_key = ? AND parent.state = 'waiting'"
                " AND child.state IN ('queued', 'running', 'waiting')",
                (key,),
            )
            pending += [r[0] for r in rows]
        return False

    def session_exists(self, key: str) -> bool:
        found = self._db.execute("SELECT 1 FROM sessions WHERE key = ?", (key,)).fetchone()
        return found is not None
