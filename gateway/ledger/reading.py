"""Reading the ledger: runs, sessions and counts, on a connection that cannot write."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from gateway.ledger.approvals import COLUMNS, RUN_ENDED, as_approval
from gateway.ledger.children import ChildReader
from gateway.ledger.conversations import ConversationReader
from gateway.ledger.letters import LetterReader
from gateway.ledger.posts import PostReader
from gateway.ledger.recording import read_recording
from gateway.ledger.records import ClaimedRun, RunOptions, StoredStep
from gateway.ledger.rows import COLLECTED, collected_into
from gateway.ledger.schedules import ScheduleReader
from protocols.approvals import Approval
from protocols.recordings import Recording
from protocols.runs import (
    ChildRun,
    Delivery,
    Run,
    RunError,
    RunSource,
    RunState,
    RunSummary,
    Step,
    Usage,
    one_line,
)
from protocols.status import QueueStatus
from protocols.targets import Target, TargetError, parse_target
from runtime.sqlite_writer import open_reader

STEP_OUTPUT = 4000
"""Characters of a step's output that a run shows; the ledger keeps it whole."""

_DELIVERY = {"done": "delivered"}
_LIST = "SELECT * FROM runs"


class Reader:
    """One agent's ledger, for reading. Short indexed queries, made on the caller's thread."""

    def __init__(self, path: Path, agent: str) -> None:
        self._db = open_reader(path)
        self._agent = agent
        self.schedules = ScheduleReader(self._db)
        self.own_children = ChildReader(self._db)
        self.letters = LetterReader(self._db)
        self.posts = PostReader(self._db)
        self.conversations = ConversationReader(self._db)

    def close(self) -> None:
        self._db.close()

    def run(self, run_id: str, *, whole: bool = False) -> Run | None:
        """A run in full, or None; `whole`: with its steps' outputs uncut."""
        row = self._db.execute(f"{_LIST} WHERE id = ?", (run_id,)).fetchone()
        if row is None:
            return None
        steps = [
            self._step(s, whole)
            for s in self._db.execute("SELECT * FROM steps WHERE run_id = ? ORDER BY idx", (run_id,))
        ]
        children = [self._child(c) for c in self._rows("children", "parent_run_id", run_id, "created_at")]
        delivery = self._delivery(run_id)
        state = RunState(row["state"])
        return Run(
            **self._summary_fields(row, delivery),
            message=row["message"],
            text=row["text"],
            error=msgspec.json.decode(row["error"], type=RunError) if row["error"] else None,
            steps=steps,
            children=children,
            attempts=row["attempts"],
            idempotency_key=row["idempotency_key"],
            deadline=row["deadline"],
            facts={
                "accepted": True,
                "run": state is RunState.SUCCEEDED if state.ended else None,
                "delivered": {"delivered": True, "dead": False}.get(delivery.status) if delivery else None,
                "verified": None,
            },
        )

    def recording(self, run: Run) -> Recording:
        """A run that has ended, as one document."""
        return read_recording(self._db, self._agent, run)

    def state(self, run_id: str) -> RunState | None:
        row = self._db.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()
        return RunState(row["state"]) if row else None

    def caller(self, run_id: str) -> str | None:
        """Who gave the run, or None if there is no such run."""
        row = self._db.execute("SELECT caller FROM runs WHERE id = ?", (run_id,)).fetchone()
        return str(row["caller"]) if row else None

    def options(self, run_id: str) -> RunOptions | None:
        """How the run was asked to be carried out, or None if there is no such run."""
        row = self._db.execute("SELECT options FROM runs WHERE id = ?", (run_id,)).fetchone()
        return msgspec.json.decode(row["options"], type=RunOptions) if row else None

    def known_target(self, ident: str) -> Target | None:
        """What a bare id is by the routes of our sessions: where a person wrote from."""
        for (route,) in self._db.execute("SELECT DISTINCT route FROM sessions WHERE route LIKE ?", (f"%:{ident}",)):
            with contextlib.suppress(TargetError):
                return parse_target(route)
        return None

    def has_key(self, caller: str, key: str) -> bool:
        """Has `caller` given a run with this idempotency key?"""
        found = self._db.execute("SELECT 1 FROM runs WHERE caller = ? AND idempotency_key = ?", (caller, key))
        return found.fetchone() is not None

    def open_runs_of(self, caller: str) -> int:
        """Runs that `caller` gave and that have not ended."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM runs WHERE state IN ('queued', 'running', 'waiting') AND caller = ?", (caller,)
        ).fetchone()
        return int(count)

    def open_runs_in(self, session_key: str) -> int:
        """Runs of a session that have not ended."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM runs WHERE state IN ('queued', 'running', 'waiting') AND session_key = ?",
            (session_key,),
        ).fetchone()
        return int(count)

    def summary(self, run_id: str) -> RunSummary | None:
        row = self._db.execute(f"{_LIST} WHERE id = ?", (run_id,)).fetchone()
        return RunSummary(**self._summary_fields(row, self._delivery(run_id))) if row else None

    def runs(self, limit: int, state: str | None = None, caller: str | None = None) -> tuple[list[RunSummary], int]:
        """(the newest runs first, how many there are in all)."""
        where, values = [], []
        if state:
            where.append("state = ?")
            values.append(state)
        if caller:
            where.append("caller = ?")
            values.append(caller)
        clause = f" WHERE {' AND '.join(where)}" if where else ""
        rows = self._db.execute(f"{_LIST}{clause} ORDER BY seq DESC LIMIT ?", (*values, limit)).fetchall()
        (total,) = self._db.execute(f"SELECT count(*) FROM runs{clause}", values).fetchone()
        return [RunSummary(**self._summary_fields(r, self._delivery(r["id"]))) for r in rows], total

    def current(self) -> list[RunSummary]:
        """Runs under way, oldest first."""
        rows = self._db.execute(f"{_LIST} WHERE state IN ('running', 'waiting') ORDER BY +seq").fetchall()
        return [RunSummary(**self._summary_fields(r, None)) for r in rows]

    def open_in(self, session_key: str) -> list[RunSummary]:
        """A session's runs that have not ended, the newest first."""
        rows = self._db.execute(
            f"{_LIST} WHERE session_key = ?1 AND state IN ('running', 'waiting')"
            f" UNION ALL {_LIST} WHERE session_key = ?1 AND state = 'queued' ORDER BY seq DESC",
            (session_key,),
        )
        return [RunSummary(**self._summary_fields(r, None)) for r in rows]

    def queue(self) -> QueueStatus:
        (queued,) = self._db.execute("SELECT count(*) FROM runs WHERE state = 'queued'").fetchone()
        counts = {
            r[0]: r[1]
            for r in self._db.execute(
                "SELECT state, count(*) FROM runs WHERE state IN ('running', 'waiting') GROUP BY state"
            )
        }
        return QueueStatus(queued=queued, running=counts.get("running", 0), waiting=counts.get("waiting", 0))

    def has_ready(self) -> bool:
        """Is there a queued run that is not held?"""
        return self._db.execute("SELECT 1 FROM runs WHERE state = 'queued' AND held = 0 LIMIT 1").fetchone() is not None

    def next_deadline(self) -> float | None:
        """The nearest deadline of a run that is still queued."""
        row = self._db.execute(
            "SELECT min(deadline) AS d FROM runs WHERE state = 'queued' AND deadline IS NOT NULL"
        ).fetchone()
        return None if row["d"] is None else float(row["d"])

    def expired(self, now: float) -> list[str]:
        """Queued runs whose deadline has passed."""
        rows = self._db.execute("SELECT id FROM runs WHERE state = 'queued' AND deadline <= ?", (now,))
        return [r["id"] for r in rows]

    def spent_since(self, since: float) -> tuple[Usage, float | None, int]:
        """(tokens, US dollars or None if any price is unknown, runs begun) since a time."""
        row = self._db.execute(
            "SELECT coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),"
            " coalesce(sum(cache_read_tokens), 0), coalesce(sum(cache_write_tokens), 0), sum(cost_usd),"
            " count(*), count(cost_usd) FROM steps WHERE input_tokens IS NOT NULL AND finished_at >= ?",
            (since,),
        ).fetchone()
        usage = Usage(input_tokens=row[0], output_tokens=row[1], cache_read_tokens=row[2], cache_write_tokens=row[3])
        (runs,) = self._db.execute("SELECT count(*) FROM runs WHERE created_at >= ?", (since,)).fetchone()
        cost = None if row[5] > row[6] else float(row[4] or 0.0)
        return usage, cost, runs

    def tool_steps(self, run_id: str) -> dict[str, StoredStep]:
        """The run's tool calls by their call id, in order."""
        rows = self._db.execute(
            "SELECT idx, state, call_id, name, input, output, is_error FROM steps WHERE run_id = ? AND kind = 'tool'"
            " ORDER BY idx",
            (run_id,),
        )
        return {
            r["call_id"]: StoredStep(
                index=r["idx"],
                state=r["state"],
                call_id=r["call_id"],
                name=r["name"],
                input=r["input"] or "{}",
                output=r["output"] or "",
                is_error=bool(r["is_error"]),
            )
            for r in rows
        }

    def step_count(self, run_id: str) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM steps WHERE run_id = ?", (run_id,)).fetchone()
        return int(count)

    def answer_count(self, run_id: str) -> int:
        """Model answers of the run's conversation so far."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM steps WHERE run_id = ? AND kind = 'model' AND state = 'done'", (run_id,)
        ).fetchone()
        return int(count)

    def run_cost(self, run_id: str) -> float:
        """US dollars of the run so far; unknown prices count nothing."""
        row = self._db.execute("SELECT cost_usd FROM runs WHERE id = ?", (run_id,)).fetchone()
        return float(row["cost_usd"] or 0.0) if row else 0.0

    def has_to_collect(self, run: ClaimedRun) -> bool:
        """Has a person queued something that `run` would take in?"""
        row = self._db.execute(f"SELECT 1 FROM runs WHERE {COLLECTED} LIMIT 1", collected_into(run)).fetchone()
        return row is not None

    def claimed(self, run_id: str) -> ClaimedRun | None:
        """The run as its work would be given it, whatever its state; None if there is none."""
        row = self._db.execute(f"{_LIST} WHERE id = ?", (run_id,)).fetchone()
        return _claimed(row) if row else None

    def merged(self, run_id: str) -> list[ClaimedRun]:
        """The runs that were taken into this one and wait for it."""
        rows = self._db.execute(
            "SELECT * FROM runs WHERE merged_into = ? AND state = 'waiting' ORDER BY seq", (run_id,)
        ).fetchall()
        return [_claimed(row) for row in rows]

    def to_cancel(self, session_key: str | None = None) -> list[tuple[str, str]]:
        """(run id, why) of runs that are marked to be cancelled and are not over: of one session, or of all."""
        own = "" if session_key is None else " AND session_key = ?1"
        rows = self._db.execute(
            f"SELECT id, reason FROM runs WHERE state IN ('running', 'waiting') AND cancel_requested = 1{own}"
            f" UNION ALL SELECT id, reason FROM runs WHERE state = 'queued' AND attempts > 0"
            f" AND cancel_requested = 1{own}",
            () if session_key is None else (session_key,),
        ).fetchall()
        return [(r["id"], r["reason"]) for r in rows]

    def children(self, run_id: str) -> list[ChildRun]:
        return [self._child(c) for c in self._rows("children", "parent_run_id", run_id, "created_at")]

    def dead_letters(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM effects WHERE state IN ('dead', 'unknown')").fetchone()
        return int(count)

    def next_effect_at(self, after: float) -> float | None:
        """When the next effect is due that was not due at `after`."""
        row = self._db.execute(
            "SELECT min(next_at) AS n FROM effects WHERE state = 'pending' AND next_at > ?", (after,)
        ).fetchone()
        return None if row["n"] is None else float(row["n"])

    def approvals(self, *, every: bool = False) -> list[Approval]:
        """Pending questions, oldest first; with `every`, the newest 200 of any state, oldest first."""
        where = "" if every else " WHERE state = 'pending'"
        rows = self._db.execute(f"SELECT {COLUMNS} FROM approvals{where} ORDER BY created_at DESC LIMIT 200").fetchall()
        return [as_approval(row, self._agent) for row in reversed(rows)]

    def approval(self, approval_id: str) -> Approval | None:
        row = self._db.execute(f"SELECT {COLUMNS} FROM approvals WHERE id = ?", (approval_id,)).fetchone()
        return as_approval(row, self._agent) if row else None

    def closed_with(self, run_id: str) -> list[Approval]:
        """The questions that were still open when their run ended."""
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM approvals WHERE run_id = ? AND state = 'expired' AND reason = ?",
            (run_id, RUN_ENDED),
        )
        return [as_approval(row, self._agent) for row in rows]

    def pending_approvals(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM approvals WHERE state = 'pending'").fetchone()
        return int(count)

    def last_beat(self) -> tuple[float, str] | None:
        row = self._db.execute("SELECT at, outcome FROM beats ORDER BY id DESC LIMIT 1").fetchone()
        return (row["at"], row["outcome"]) if row else None

    def last_failure(self) -> str:
        row = self._db.execute("SELECT reason FROM runs WHERE state = 'failed' ORDER BY seq DESC LIMIT 1").fetchone()
        return str(row["reason"]) if row else ""

    def size_bytes(self) -> int:
        """What is used of the file; pages that removed runs left free do not count."""
        (pages,) = self._db.execute(
            "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
        ).fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    def _rows(self, table: str, column: str, value: str, order: str) -> list[sqlite3.Row]:
        return self._db.execute(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY {order}", (value,)).fetchall()

    def _summary_fields(self, row: sqlite3.Row, delivery: Delivery | None) -> dict[str, Any]:
        ran = row["model"] is not None
        return {
            "run_id": row["id"],
            "agent": self._agent,
            "state": RunState(row["state"]),
            "reason": row["reason"],
            "source": RunSource(row["source"]),
            "name": row["name"],
            "caller": row["caller"],
            "session_key": row["session_key"],
            "task": one_line(row["message"]),
            "created_at": row["created_at"],
            "started_at": row["started_at"],
            "finished_at": row["finished_at"],
            "model": row["model"],
            "usage": Usage(
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
                cache_read_tokens=row["cache_read_tokens"],
                cache_write_tokens=row["cache_write_tokens"],
            ),
            "cost_usd": row["cost_usd"] if ran and not row["cost_unknown"] else None,
            "parent_run_id": row["parent_run_id"],
            "depth": row["depth"],
            "delivery": delivery,
            "preview": one_line(row["text"]),
        }

    def _delivery(self, run_id: str) -> Delivery | None:
        row = self._db.execute(
            "SELECT state, detail, target, attempts FROM effects WHERE run_id = ? AND kind = 'deliver' ORDER BY id",
            (run_id,),
        ).fetchone()
        if row is None:
            return None
        status = _DELIVERY.get(row["state"], row["state"])
        return Delivery(status=status, detail=row["detail"], target=row["target"], attempts=row["attempts"])

    @staticmethod
    def _step(row: sqlite3.Row, whole: bool) -> Step:
        output = row["output"]
        if not whole and output is not None and len(output) > STEP_OUTPUT:
            output = f"{output[:STEP_OUTPUT]}… ({len(output) - STEP_OUTPUT} characters more)"
        usage = None
        if row["input_tokens"] is not None:
            usage = Usage(
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
                cache_read_tokens=row["cache_read_tokens"],
                cache_write_tokens=row["cache_write_tokens"],
            )
        return Step(
            index=row["idx"],
            kind=row["kind"],
            state=row["state"],
            name=row["name"],
            input=msgspec.json.decode(row["input"]) if row["input"] else None,
            output=output,
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            usage=usage,
            cost_usd=row["cost_usd"],
        )

    @staticmethod
    def _child(row: sqlite3.Row) -> ChildRun:
        return ChildRun(
            run_id=row["run_id"],
            agent=row["agent"],
            task=row["task"],
            state=row["state"],
            text=row["text"],
            error=row["error"],
            status_url=f"/hooks/runs/{row['run_id']}",
        )


def _claimed(row: sqlite3.Row) -> ClaimedRun:
    return ClaimedRun(
        run_id=row["id"],
        source=RunSource(row["source"]),
        name=row["name"],
        caller=row["caller"],
        people=bool(row["people"]),
        session_key=row["session_key"],
        message=row["message"],
        options=msgspec.json.decode(row["options"], type=RunOptions),
        parent_run_id=row["parent_run_id"],
        depth=row["depth"],
        deadline=row["deadline"],
        attempts=row["attempts"],
        started_at=row["started_at"] or row["created_at"],
    )
