"""What was posted on a channel, message by message, and small facts a channel remembers.

A post is written before it is sent and again with the id it was given. A process that dies in between finds it so, and
can ask the channel what became of it instead of sending twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from runtime.sqlite_writer import SqliteWriter

COLUMNS = "key, idx, target, nonce, text, tried_at, place, message_id, final"


class StoredPost(msgspec.Struct, frozen=True):
    """One message of an answer. Without `message_id`, its fate is not known yet."""

    key: str
    """The effect's, or of the question that a post shows."""
    index: int
    target: str
    nonce: str
    text: str
    """As it was sent, and once it is final as it stands; what a draft shows in between is not written."""
    tried_at: float
    """When it was first sent: from then the provider remembers the nonce for some minutes."""
    place: str | None = None
    message_id: str | None = None
    final: bool = False
    """It shows its last text."""


class PostStore:
    """Each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def of(self, key: str) -> list[StoredPost]:
        """The messages of one answer, in their order. (Read by the writer, so that its own writes are seen.)"""
        return await self._writer.submit(
            lambda db: [
                as_post(row)
                for row in db.execute(f"SELECT {COLUMNS} FROM posts WHERE key = ? ORDER BY idx", (key,)).fetchall()
            ]
        )

    async def trying(self, key: str, index: int, target: str, nonce: str, text: str) -> StoredPost:
        """About to be sent, for the first time or again after it was found not to be there."""
        now = self._clock()
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "INSERT INTO posts(key, idx, target, nonce, text, tried_at) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT(key, idx) DO UPDATE SET target = excluded.target, nonce = excluded.nonce,"
                    " text = excluded.text, tried_at = excluded.tried_at, place = NULL, message_id = NULL, final = 0",
                    (key, index, target, nonce, text, now),
                ).rowcount
            )
        )
        return StoredPost(key, index, target, nonce, text, now)

    async def posted(self, key: str, index: int, place: str, message_id: str, text: str, *, final: bool) -> None:
        """It stands there with this text; `final`: its last."""
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE posts SET place = ?, message_id = ?, text = ?, final = ? WHERE key = ? AND idx = ?",
                    (place, message_id, text, final, key, index),
                ).rowcount
            )
        )

    async def forget(self, key: str, index: int) -> None:
        """It does not stand there, or no longer."""
        await self._writer.submit(
            lambda db: db.execute("DELETE FROM posts WHERE key = ? AND idx = ?", (key, index)).rowcount
        )

    async def mark(self, name: str, value: str) -> None:
        """Remember a small fact, such as the last message heard in a channel."""
        await self._writer.submit(
            lambda db: (
                db.execute(
                    "INSERT INTO marks(name, value) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value ="
                    " excluded.value WHERE value <> excluded.value",
                    (name, value),
                ).rowcount
            )
        )

    async def unmark(self, name: str) -> bool:
        """Forget it; False if it was not known."""
        gone = await self._writer.submit(lambda db: db.execute("DELETE FROM marks WHERE name = ?", (name,)).rowcount)
        return gone > 0


class PostReader:
    """Reads on the reader's connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, key: str) -> list[StoredPost]:
        rows = self._db.execute(f"SELECT {COLUMNS} FROM posts WHERE key = ? ORDER BY idx", (key,))
        return [as_post(tuple(row)) for row in rows]

    def known(self, message_ids: list[str]) -> set[str]:
        """Which of these messages we know to have posted."""
        marks = ",".join("?" * len(message_ids))
        rows = self._db.execute(f"SELECT message_id FROM posts WHERE message_id IN ({marks})", message_ids)
        return {str(row[0]) for row in rows}

    def key_of_message(self, message_id: str) -> str | None:
        """What a message belongs to, if it is one of ours."""
        row = self._db.execute("SELECT key FROM posts WHERE message_id = ?", (message_id,)).fetchone()
        return None if row is None else str(row[0])

    def mark(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def marks(self, prefix: str) -> dict[str, str]:
        """All facts whose name begins so, without the prefix."""
        rows = self._db.execute("SELECT name, value FROM marks WHERE name >= ? AND name < ?", (prefix, prefix + "\x7f"))
        return {str(name)[len(prefix) :]: str(value) for name, value in rows}


def as_post(row: tuple[object, ...]) -> StoredPost:
    key, index, target, nonce, text, tried_at, place, message_id, final = row
    return StoredPost(
        key=str(key),
        index=int(str(index)),
        target=str(target),
        nonce=str(nonce),
        text=str(text),
        tried_at=float(str(tried_at)),
        place=None if place is None else str(place),
        message_id=None if message_id is None else str(message_id),
        final=bool(final),
    )
