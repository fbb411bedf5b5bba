"""The row of a run, as it is accepted: from a hook and from a heartbeat alike."""

from __future__ import annotations

import sqlite3

import msgspec

from gateway.ledger.records import NewRun
from protocols.runs import RunSource

PRIORITY = {RunSource.HOOK: 0, RunSource.CHAT: 1, RunSource.SCHEDULE: 2, RunSource.HEARTBEAT: 3}
"""Lower goes first."""

_json = msgspec.json.Encoder().encode


def insert_run(db: sqlite3.Connection, new: NewRun, now: float) -> bool:
    """Queue a run; False if its caller has used its idempotency key before, and then nothing is written.

    A person's message sets where its session answers from now on; nothing else ever does.
    """
    cursor = db.execute(
        "INSERT INTO runs(id, state, priority, source, name, caller, people, session_key, message, options,"
        " held, idempotency_key, parent_run_id, depth, deadline, created_at)"
        " VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT(caller, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
        (
            new.run_id,
            PRIORITY[new.source],
            new.source.value,
            new.name,
            new.caller,
            new.people,
            new.session_key,
            new.message,
            _json(new.options).decode(),
            new.held,
            new.idempotency_key,
            new.parent_run_id,
            new.depth,
            new.deadline,
            now,
        ),
    )
    if cursor.rowcount and (route := new.route) is not None:
        db.execute(
            "INSERT INTO sessions(key, created_at, updated_at, route) VALUES (?, ?, ?, ?)"
            " ON CONFLICT(key) DO UPDATE SET route = excluded.route",
            (new.session_key, now, now, route),
        )
    return cursor.rowcount > 0
