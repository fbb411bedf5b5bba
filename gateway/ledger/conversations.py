"""Reading sessions: their messages, what stands for the older ones, their routes."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from gateway.ledger.records import RunOptions, StoredCompaction, StoredMessage
from gateway.ledger.rows import content_of
from protocols.control import SessionSummary, TranscriptMessage

HISTORY_MESSAGES = 2000
"""Messages of a session that are looked back at, at most: long before, its older part is summarised."""

PAGE_CHARS = 1 << 20
"""Characters of a page, unless one message alone has more."""
EXPORT_MESSAGES = 200
"""Messages that are read at a time for an export."""
LAST = 1 << 53
"""Behind every place in a session."""

_MESSAGES = "SELECT 2 * seq AS place, role, content, run_id, at FROM messages WHERE session_key = ?1"
_MARKERS = (
    "SELECT 2 * upto_seq + 1 AS place, 'compaction' AS role,"
    " json_array(json_object('type', 'text', 'text', summary)) AS content, '' AS run_id, at"
    " FROM compactions WHERE session_key = ?1"
)
"""Places in a session are even for messages, and odd for the markers right behind them."""


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

    def exists(self, session_key: str) -> bool:
        """Is there a message in the session?"""
        found = self._db.execute("SELECT 1 FROM messages WHERE session_key = ? LIMIT 1", (session_key,))
        return found.fetchone() is not None

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

    def transcript(self, key: str, limit: int) -> list[TranscriptMessage]:
        """The newest messages of a session, at most `limit`, oldest first."""
        return self.page(key, limit)[0]

    def page(self, key: str, limit: int, before: int | None = None) -> tuple[list[TranscriptMessage], int | None]:
        """(at most `limit` messages next before `before`, oldest first; the `before` of the page before, if any).

        Without `before` the newest. A page ends sooner where it would pass PAGE_CHARS. A marker (role `compaction`)
        stands where the past up to it was summarised.
        """
        found: list[TranscriptMessage] = []
        size = 0
        for row in self._newest_first(key, limit + 1, before):
            size += len(row["content"])
            if found and (len(found) == limit or size > PAGE_CHARS):
                return found[::-1], found[-1].seq
            found.append(_shown(row))
        return found[::-1], None

    def pages(self, key: str) -> Iterator[list[TranscriptMessage]]:
        """A session as it is now, whole, oldest first: a page at a time, none of which is kept."""
        (end,) = self._db.execute("SELECT max(seq) FROM messages WHERE session_key = ?", (key,)).fetchone()
        after = -1
        while end is not None:
            page: list[TranscriptMessage] = []
            size = 0
            for row in self._oldest_first(key, EXPORT_MESSAGES, after, end):
                page.append(_shown(row))
                size += len(row["content"])
                if len(page) == EXPORT_MESSAGES or size > PAGE_CHARS:
                    break  # a marker beyond them may stand behind messages that were not read yet
            if not page:
                return
            after = page[-1].seq
            yield page

    def _newest_first(self, key: str, limit: int, before: int | None) -> Iterator[sqlite3.Row]:
        end = LAST if before is None else before
        messages = self._db.execute(f"{_MESSAGES} AND seq < (?2 + 1) / 2 ORDER BY seq DESC LIMIT ?3", (key, end, limit))
        markers = self._db.execute(
            f"{_MARKERS} AND upto_seq < ?2 / 2 ORDER BY upto_seq DESC, id DESC LIMIT ?3", (key, end, limit)
        )
        return heapq.merge(messages, markers, key=_place, reverse=True)

    def _oldest_first(self, key: str, limit: int, after: int, end: int) -> Iterator[sqlite3.Row]:
        messages = self._db.execute(
            f"{_MESSAGES} AND seq > ?2 / 2 AND seq <= ?4 ORDER BY seq LIMIT ?3", (key, after, limit, end)
        )
        markers = self._db.execute(
            f"{_MARKERS} AND upto_seq > (?2 - 1) / 2 AND upto_seq <= ?4 ORDER BY upto_seq, id LIMIT ?3",
            (key, after, limit, end),
        )
        return heapq.merge(messages, markers, key=_place)

    def session_count(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM sessions").fetchone()
        return int(count)


def _place(row: sqlite3.Row) -> int:
    return int(row["place"])


def _shown(row: sqlite3.Row) -> TranscriptMessage:
    return TranscriptMessage(
        role=row["role"], content=_visible(row["content"]), run_id=row["run_id"], at=row["at"], seq=row["place"]
    )


def _visible(content: str) -> list[Any]:
    """A message's blocks without the provider's own copy."""
    return [b for b in msgspec.json.decode(content) if b.get("type") != "native"]
