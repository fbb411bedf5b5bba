"""Removing what is old: runs that have ended, questions that no run asked. Each is a part of one transaction."""

from __future__ import annotations

import sqlite3

from gateway.ledger.approvals import post_key

QUESTION_SECONDS = 86400.0
"""A question that was answered is kept for so long at least: whoever put it may have died before it saw the answer."""


def prune_runs(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove at most `limit` runs that ended before `before`, with everything that is only theirs; how many.

    One stays whose parent is in this ledger and not over: it may not have read the answer, and would ask anew.
    """
    ids = [
        row[0]
        for row in db.execute(
            "SELECT id FROM runs AS r WHERE created_at < ? AND finished_at < ? AND NOT EXISTS"
            " (SELECT 1 FROM effects e WHERE e.run_id = r.id AND e.state = 'pending') AND NOT EXISTS"
            " (SELECT 1 FROM children c JOIN runs p ON p.id = c.parent_run_id WHERE c.run_id = r.id"
            "  AND p.state IN ('queued', 'running', 'waiting'))"
            " ORDER BY created_at LIMIT ?",
            (before, before, limit),
        )
    ]
    prompts: set[str] = set()
    for run_id in ids:
        used = "SELECT DISTINCT prompt_hash FROM steps WHERE run_id = ? AND prompt_hash IS NOT NULL"
        prompts.update(row[0] for row in db.execute(used, (run_id,)))
        for table, column in (
            ("messages", "run_id"),
            ("steps", "run_id"),
            ("effects", "run_id"),
            ("children", "parent_run_id"),
            ("notes", "run_id"),
            ("approvals", "run_id"),
            ("runs", "id"),
        ):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (run_id,))
        db.execute("DELETE FROM posts WHERE key > ? AND key < ?", (f"{run_id}/", f"{run_id}0"))  # / then 0
    db.execute(
        "DELETE FROM sessions WHERE updated_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM messages m WHERE m.session_key = sessions.key) AND NOT EXISTS"
        " (SELECT 1 FROM runs r WHERE r.state = 'queued' AND r.session_key = sessions.key)",  # said, and not begun
        (before,),
    )
    # One that stayed would hide what is said in a new session of that key, whose numbers may be lower.
    db.execute(
        "DELETE FROM compactions WHERE NOT EXISTS"
        " (SELECT 1 FROM messages m WHERE m.session_key = compactions.session_key)"
    )
    db.executemany(
        "DELETE FROM prompts WHERE hash = ? AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.prompt_hash = hash)",
        [(prompt,) for prompt in prompts],
    )
    return len(ids)


def prune_questions(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove at most `limit` questions that no run asked and that were over before `before`; how many.

    With each go the effects that showed it and their posts, unless one of them is still to be carried out.
    """
    removed = 0
    rows = db.execute(
        "SELECT id FROM approvals WHERE run_id = '' AND state <> 'pending' AND answered_at < ? LIMIT ?", (before, limit)
    ).fetchall()
    for (approval_id,) in rows:
        key = post_key("", approval_id)
        own = key, f"{key}0"  # the key, and those that go on with /
        waits = db.execute(
            "SELECT 1 FROM effects WHERE key >= ? AND key < ? AND state = 'pending' LIMIT 1", own
        ).fetchone()
        if waits is None:
            db.execute("DELETE FROM effects WHERE key >= ? AND key < ?", own)
            db.execute("DELETE FROM posts WHERE key = ?", (key,))
            db.execute("DELETE FROM approvals WHERE id = ?", (approval_id,))
            removed += 1
    return removed
