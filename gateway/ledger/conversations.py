"""Reading sessions: their messages, what stands for the older ones, their routes."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import Any

import msgspec

from gateway.ledger.records import RunOptions, StoredCompaction, StoredMessage
from gateway.ledger.rows import content_of
from protocols.control import SessionSummary, TranscriptMessage

HISTORY_MESSAGES = 2000
"""Messages of a session that are looked back at, at most: long before, its older part is summarised."""


class ConversationReader:
    """One agent's sessions, on a connection that cannot write."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def history(self, session_key: str, limit: int = HISTORY_MESSAGES) -> list[StoredMessage]:
        """A session's messages since its newest compaction, oldest first: at most the newest `limit`."""
        rows = self._db.execute(
            "SELECT seq, role, content, run_id FROM messages WHERE session_key = ? AND seq >"
            " coalesce((SELECT max(upto_seq) FROM compactions WHERE session_key = ?), 0) ORDER BY seq DESC LIMIT ?",
            (session_key, session_key, limit),
        ).fetchall()
        return [StoredMessage(r["seq"], r["role"], r["content"], r["run_id"]) for r in reversed(rows)]

    def compaction(self, session_key: str) -> StoredCompaction | None:
        """What stands for the session's earlier messages, if anything."""
        row = self._db.execute(
            "SELECT upto_seq, summary, checkpoint, at FROM compactions WHERE session_key = ? ORDER BY id DESC LIMIT 1",
            (session_key,),
        ).fetchone()
        return StoredCompaction(row["upto_seq"], row["summary"], row["checkpoint"], row["at"]) if row else None

    def session_facts(self, session_key: str) -> tuple[str | None, list[str]]:
        """(the route a human last wrote from, the pinned facts) of a session."""
        row = self._db.execute("SELECT route, pinned FROM sessions WHERE key = ?", (session_key,)).fetchone()
        return (row["route"], msgspec.json.decode(row["pinned"], type=list[str])) if row else (None, [])

    def sessions(self, limit: int = 500) -> list[SessionSummary]:
        rows = self._db.execute(
            "SELECT key, created_at, updated_at, route,"
            " (SELECT count(*) FROM messages m WHERE m.session_key = s.key) AS messages"
            " FROM sessions s ORDER BY updated_at DESC LIMIT ?",
            (limit,),
        )
        return [
            SessionSummary(
                key=r["key"],
                created_at=r["created_at"],
                updated_at=r["updated_at"],
                messages=r["messages"],
                route=r["route"],
            )
            for r in rows
        ]

    def route(self, session_key: str) -> str | None:
        """The target from which a person last wrote to the session, if one has."""
        row = self._db.execute("SELECT route FROM sessions WHERE key = ?", (session_key,)).fetchone()
        return None if row is None else row["route"]

    def begun(self, session_key: str) -> bool:
        """Was anything ever said in the session, or is it about to be?"""
        found = self._db.execute(
            "SELECT 1 FROM sessions WHERE key = ? UNION ALL SELECT 1 FROM runs"
            " WHERE state = 'queued' AND held = 0 AND session_key = ? LIMIT 1",
            (session_key, session_key),
        )
        return found.fetchone() is not None

    def answered(self, run_id: str) -> list[str]:
        """The answers that a run gave before people said more, which it then took in: all but its last."""
        taken = self._db.execute("SELECT message, options FROM runs WHERE merged_into = ?", (run_id,)).fetchall()
        if not taken:
            return []
        said = {content_of(r["message"], msgspec.json.decode(r["options"], type=RunOptions)) for r in taken}
        rows = self._db.execute("SELECT role, content FROM messages WHERE run_id = ? ORDER BY seq", (run_id,))
        answers = [
            "".join(block["text"] for block in msgspec.json.decode(before["content"]) if block["type"] == "text")
            for before, after in pairwise(rows)
            if before["role"] == "assistant" and after["role"] == "user" and after["content"] in said
        ]
        return [answer for answer in answers if answer.strip()]

    def transcript(self, key: str, limit: int = -1) -> list[TranscriptMessage]:
        """The messages of a session, oldest first; with a `limit`, the newest so many.

        A marker (role `compaction`) stands where the past up to it was summarised.
        """
        rows = self._db.execute(
            "SELECT * FROM (SELECT seq, role, content, run_id, at FROM messages WHERE session_key = ? UNION ALL"
            " SELECT upto_seq + 0.5, 'compaction', json_array(json_object('type', 'text', 'text', summary)), '', at"
            " FROM compactions WHERE session_key = ? ORDER BY 1 DESC LIMIT ?) ORDER BY 1",
            (key, key, limit),
        )
        return [
            TranscriptMessage(role=r["role"], content=_visible(r["content"]), run_id=r["run_id"], at=r["at"])
            for r in rows
        ]

    def session_count(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM sessions").fetchone()
        return int(count)


def _visible(content: str) -> list[Any]:
    """A message's blocks without the provider's own copy."""
    return [b for b in msgspec.json.decode(content) if b.get("type") != "native"]
