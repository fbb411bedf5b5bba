"""Approvals in the ledger: a question is asked once for a tool call, and answered once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from protocols.approvals import Approval
from protocols.errors import ProtocolError
from runtime.sqlite_writer import SqliteWriter

RUN_ENDED = "the run has ended"
"""Why a question was closed that nobody need answer any more."""

COLUMNS = (
    "id, run_id, tool, question, detail, state, revision, created_at, expires_at, answered_at, answered_by, reason"
)


class ApprovalStore:
    """Each method is one durable operation."""

    def __init__(self, writer: SqliteWriter, clock: Callable[[], float], agent: str) -> None:
        self._writer = writer
        self._clock = clock
        self._agent = agent

    async def ask(self, approval: Approval, call_key: str) -> Approval:
        """Ask, or find the question that this call has asked before, answered or not."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> Approval:
            db.execute(
                "INSERT INTO approvals(id, run_id, call_key, tool, question, detail, state, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?) ON CONFLICT(call_key) DO NOTHING",
                (
                    approval.id,
                    approval.run_id or "",
                    call_key,
                    approval.tool,
                    approval.question,
                    approval.detail,
                    now,
                    approval.expires_at,
                ),
            )
            row = db.execute(f"SELECT {COLUMNS} FROM approvals WHERE call_key = ?", (call_key,)).fetchone()
            return as_approval(row, self._agent)

        return await self._writer.submit(operation)

    async def answer(self, approval_id: str, *, state: str, revision: int, by: str, reason: str) -> Approval:
        """Answer a pending question; raises ProtocolError 404, or 409 for a stale revision or an answered one."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> Approval | ProtocolError:
            row = db.execute(f"SELECT {COLUMNS} FROM approvals WHERE id = ?", (approval_id,)).fetchone()
            if row is None:
                return ProtocolError(404, "unknown_approval", f"there is no question {approval_id!r}")
            before = as_approval(row, self._agent)
            if before.state != "pending":
                who = f" by {before.answered_by}" if before.answered_by else ""
                return ProtocolError(409, "already_answered", f"{approval_id} was already {before.state}{who}")
            if before.expires_at is not None and before.expires_at <= now:
                return ProtocolError(409, "expired", f"{approval_id} has expired, so the answer is no")
            if before.revision != revision:
                return ProtocolError(
                    409,
                    "stale_revision",
                    f"{approval_id} is at revision {before.revision}, not {revision}; read it again",
                )
            db.execute(
                "UPDATE approvals SET state = ?, revision = revision + 1, answered_at = ?, answered_by = ?, reason = ?"
                " WHERE id = ?",
                (state, now, by, reason, approval_id),
            )
            row = db.execute(f"SELECT {COLUMNS} FROM approvals WHERE id = ?", (approval_id,)).fetchone()
            return as_approval(row, self._agent)

        result = await self._writer.submit(operation)
        if isinstance(result, ProtocolError):
            raise result
        return result

    async def expire(self) -> list[Approval]:
        """Questions that nobody answered in time: the answer is no."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> list[Approval]:
            due = "SELECT id FROM approvals WHERE state = 'pending' AND expires_at <= ?"
            ids = [row[0] for row in db.execute(due, (now,))]
            for approval_id in ids:
                db.execute(
                    "UPDATE approvals SET state = 'expired', revision = revision + 1, answered_at = ?,"
                    " reason = 'nobody answered in time' WHERE id = ?",
                    (now, approval_id),
                )
            rows = [db.execute(f"SELECT {COLUMNS} FROM approvals WHERE id = ?", (i,)).fetchone() for i in ids]
            return [as_approval(row, self._agent) for row in rows]

        return await self._writer.submit(operation)


def post_key(run_id: str | None, approval_id: str) -> str:
    """The key of the post that shows a question, and of the effect that shows it; later effects go on with `/`."""
    return f"{run_id or 'question'}/ask/{approval_id}"


def close_questions(db: sqlite3.Connection, run_id: str, now: float) -> None:
    """In the transaction that ends a run: what it still asked needs no answer any more."""
    db.execute(
        "UPDATE approvals SET state = 'expired', revision = revision + 1, answered_at = ?, reason = ?"
        " WHERE run_id = ? AND state = 'pending'",
        (now, RUN_ENDED, run_id),
    )


def as_approval(row: tuple[object, ...] | sqlite3.Row, agent: str) -> Approval:
    """A row of `COLUMNS` as the wire has it."""
    (ident, run_id, tool, question, detail, state, revision, created_at, expires_at, answered_at, by, reason) = row
    return Approval(
        id=str(ident),
        agent=agent,
        run_id=str(run_id) or None,
        tool=str(tool),
        question=str(question),
        detail=str(detail),
        state=str(state),
        revision=int(str(revision)),
        created_at=float(str(created_at)),
        expires_at=None if expires_at is None else float(str(expires_at)),
        answered_at=None if answered_at is None else float(str(answered_at)),
        answered_by=None if by is None else str(by),
        reason=str(reason),
    )
