"""Rows that more than one operation writes: a run as it is accepted, a session, a message."""

from __future__ import annotations

import sqlite3

import msgspec

from gateway.ledger.records import ClaimedRun, NewRun, RunOptions
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


def content_of(message: str, options: RunOptions) -> str:
    """A run's message with all that came with it, as the blocks (JSON) that go into its session."""
    blocks: list[dict[str, str]] = [{"type": "text", "text": options.context}] if options.context else []
    blocks += [
        {"type": "image", "path": picture.path, "media_type": picture.media_type, "sha256": picture.sha256}
        for picture in options.pictures
    ]
    return _json([*blocks, {"type": "text", "text": message}]).decode()


COLLECTED = (
    "state = 'queued' AND held = 0 AND people = 1 AND attempts = 0 AND session_key = ?"
    " AND json_extract(options, '$.to') IS ? AND (json_extract(options, '$.origin') IS NULL) = ?"
)
"""Runs that a run of their session takes in: what people asked and is answered at the same place in the same way.

A session may have several such: direct messages of two people, a schedule's work and a person's. One answer for them
would reach only one of the places.
"""


def collected_into(run: ClaimedRun) -> tuple[str, str | None, bool]:
    """The values of `COLLECTED`."""
    return run.session_key, run.options.to, run.options.origin is None


def open_session(db: sqlite3.Connection, key: str, now: float) -> None:
    """Make the session, or say that it is in use."""
    db.execute(
        "INSERT INTO sessions(key, created_at, updated_at) VALUES (?, ?, ?)"
        " ON CONFLICT(key) DO UPDATE SET updated_at = excluded.updated_at",
        (key, now, now),
    )


def add_message(db: sqlite3.Connection, key: str, run_id: str, role: str, content: str, now: float) -> None:
    """Add a message at the session's end; `content` is its blocks as JSON."""
    db.execute(
        "INSERT INTO messages(session_key, run_id, role, content, at) VALUES (?, ?, ?, ?, ?)",
        (key, run_id, role, content, now),
    )
    db.execute("UPDATE sessions SET updated_at = ? WHERE key = ?", (now, key))
