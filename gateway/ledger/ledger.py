"""The ledger: the one truth about runs, messages, steps and effects. Every method here is one durable operation.

A method returns when its rows are on disk (group commit, synchronous=FULL); what it says is then true after any crash.
Reading is in `reading.py`, on a read-only connection.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.ledger import schema
from gateway.ledger.approvals import ApprovalStore, close_questions
from gateway.ledger.beats import BeatStore
from gateway.ledger.children import ChildStore, call_off
from gateway.ledger.effects import EffectStore, add_effect, answer_of, report_of
from gateway.ledger.letters import LetterStore
from gateway.ledger.posts import PostStore
from gateway.ledger.pruning import QUESTION_SECONDS, prune_questions, prune_runs
from gateway.ledger.records import ClaimedRun, Ending, NewRun, RunOptions
from gateway.ledger.rows import add_message, content_of, insert_run, open_session
from gateway.ledger.schedules import ScheduleStore
from gateway.ledger.steps import StepStore
from protocols.authority import OPERATOR
from protocols.runs import ChildRun, RunSource, RunState
from runtime.sqlite_writer import SqliteWriter

T = TypeVar("T")

MAX_STALLED = 10
STALLED_SECONDS = 900.0
"""A run started so often, over so long a time, without writing one step is given up as `lost`: it kills its process.

The time is there so that kills from outside in quick succession never cost a run.
"""

_json = msgspec.json.Encoder().encode
_options: msgspec.json.Decoder[RunOptions] = msgspec.json.Decoder(RunOptions)


class Ledger:
    """One agent's ledger, for writing."""

    def __init__(self, path: Path, agent: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.writer = SqliteWriter(path, schema.migrate)
        self._clock = clock
        self.steps = StepStore(self.writer, clock)
        self.effects = EffectStore(self.writer, clock)
        self.beats = BeatStore(self.writer, clock)
        self.schedules = ScheduleStore(self.writer, clock)
        self.children = ChildStore(self.writer, clock, agent)
        self.letters = LetterStore(self.writer, clock)
        self.posts = PostStore(self.writer, clock)
        self.approvals = ApprovalStore(self.writer, clock, agent)

    def start(self) -> None:
        """Open the file; raises sqlite3.Error, DiskFull or SchemaError."""
        self.writer.start()

    def close(self) -> None:
        self.writer.close()

    async def accept(self, new: NewRun, *, interrupts: bool = False) -> tuple[str, RunState, bool]:
        """Store a run; (its id, its state, whether it is new). The same caller and key get the first run back.

        With `interrupts` what is under way in its session is marked to be cancelled (`Reader.to_cancel`), unless
        another person asked for it: people may share a session. The operator's message interrupts everybody's.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> tuple[str, RunState, bool]:
            if insert_run(db, new, now):
                if interrupts:
                    db.execute(
                        "UPDATE runs SET cancel_requested = 1, reason = ? WHERE session_key = ?"
                        " AND (state IN ('running', 'waiting') OR state = 'queued' AND attempts > 0)"
                        " AND (people = 0 OR caller = ? OR ?)",
                        (
                            f"interrupted by {new.run_id}, a newer message",
                            new.session_key,
                            new.caller,
                            new.caller == OPERATOR,
                        ),
                    )
                return new.run_id, RunState.QUEUED, True
            row = db.execute(
                "SELECT id, state FROM runs WHERE caller = ? AND idempotency_key = ?", (new.caller, new.idempotency_key)
            ).fetchone()
            return row[0], RunState(row[1]), False

        return await self.writer.submit(operation)

    async def claim(self, places: int, places_for_others: int) -> list[ClaimedRun]:
        """Give a place to the next runs, at most `places`, of which `places_for_others` to runs no person asked for.

        One run at a time per session, and one that was interrupted goes on before others begin. A first start
        writes the run's message into its session.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> list[ClaimedRun]:
            chosen: list[ClaimedRun] = []
            others = 0
            for _ in range(places):
                row = db.execute(
                    "SELECT id, source, name, caller, people, session_key, message, options, parent_run_id, depth,"
                    " deadline, attempts, started_at FROM runs AS r WHERE state = 'queued' AND held = 0"
                    " AND (people = 1 OR ?) AND NOT EXISTS (SELECT 1 FROM runs AS o"
                    "  WHERE o.state IN ('running', 'waiting') AND o.merged_into IS NULL"
                    "   AND o.session_key = r.session_key)"
                    " AND (r.attempts > 0 OR NOT EXISTS (SELECT 1 FROM runs AS o WHERE o.state = 'queued'"
                    "  AND o.attempts > 0 AND o.session_key = r.session_key))"
                    " ORDER BY attempts = 0, priority, seq LIMIT 1",
                    (others < places_for_others,),
                ).fetchone()
                if row is None:
                    break
                run_id, source, name, caller, people, key, message, options, parent, depth, deadline, attempts, at = row
                others += not people
                asked = _options.decode(options)
                db.execute(
                    "UPDATE runs SET state = 'running', reason = '', attempts = attempts + 1, stalled = stalled + 1,"
                    " started_at = coalesce(started_at, ?) WHERE id = ?",
                    (now, run_id),
                )
                if attempts == 0:
                    open_session(db, key, now)
                    add_message(db, key, run_id, "user", content_of(message, asked), now)
                chosen.append(
                    ClaimedRun(
                        run_id=run_id,
                        source=RunSource(source),
                        name=name,
                        caller=caller,
                        people=bool(people),
                        session_key=key,
                        message=message,
                        options=asked,
                        parent_run_id=parent,
                        depth=depth,
                        deadline=deadline,
                        attempts=attempts + 1,
                        started_at=at or now,
                    )
                )
            return chosen

        return await self.writer.submit(operation)

    async def finish(self, run_id: str, ending: Ending) -> bool:
        """End a run and write what is to leave the process, in one transaction. False if it had ended before."""
        now = self._clock()
        return await self.writer.submit(lambda db: _finish(db, run_id, ending, now))

    async def request_cancel(self, run_id: str, ending: Ending) -> tuple[RunState, bool]:
        """Cancel: (the state before, whether the run has ended with this).

        A run that is queued, or taken into another, ends at once; one under way is marked, for its task to end.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> tuple[RunState, bool]:
            row = db.execute("SELECT state, merged_into FROM runs WHERE id = ?", (run_id,)).fetchone()
            state = RunState(row[0])
            if state is RunState.QUEUED or row[1] is not None:
                return state, _finish(db, run_id, ending, now)
            if not state.ended:
                db.execute("UPDATE runs SET cancel_requested = 1, reason = ? WHERE id = ?", (ending.reason, run_id))
            return state, False

        return await self.writer.submit(operation)

    async def reword(self, key: str, message: str) -> str | None:
        """The message of a run that has not begun now reads so; its id, or None if there was nothing to change."""

        def operation(db: sqlite3.Connection) -> str | None:
            run_id = _not_begun(db, key)
            if run_id is None:
                return None
            changed = db.execute(
                "UPDATE runs SET message = ? WHERE id = ? AND message <> ?", (message, run_id, message)
            ).rowcount
            return run_id if changed else None

        return await self.writer.submit(operation)

    async def withdraw(self, key: str, reason: str) -> str | None:
        """A run that has not begun is cancelled; its id, or None if there is none."""
        now = self._clock()

        def operation(db: sqlite3.Connection) -> str | None:
            run_id = _not_begun(db, key)
            if run_id is not None:
                _finish(db, run_id, Ending(RunState.CANCELLED, reason=reason), now)
            return run_id

        return await self.writer.submit(operation)

    async def set_waiting(self, run_id: str, reason: str) -> None:
        await self._set_state(run_id, RunState.RUNNING, RunState.WAITING, reason)

    async def set_running(self, run_id: str) -> None:
        await self._set_state(run_id, RunState.WAITING, RunState.RUNNING, "")

    async def _set_state(self, run_id: str, before: RunState, after: RunState, reason: str) -> None:
        await self.writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE runs SET state = ?, reason = CASE WHEN cancel_requested THEN reason ELSE ? END, stalled = 0"
                    " WHERE id = ? AND state = ?",
                    (after.value, reason, run_id, before.value),
                ).rowcount
            )
        )

    async def requeue(self, run_id: str) -> None:
        """Put a run that a drain interrupted back, to go on from its last step after the next start."""
        await self.writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE runs SET state = 'queued', reason = 'interrupted by a restart', stalled = 0"
                    " WHERE id = ? AND state IN ('running', 'waiting')",
                    (run_id,),
                ).rowcount
            )
        )

    async def recover(self) -> tuple[int, list[str]]:
        """After a start: runs that were under way go back to the queue. (how many, the ids given up as lost).

        Those that were to be cancelled are still to be: `Reader.to_cancel`.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> tuple[int, list[str]]:
            rows = db.execute(
                "SELECT id, stalled, cancel_requested, reason, coalesce((SELECT"
                " max(coalesce(s.finished_at, s.started_at)) FROM steps s WHERE s.run_id = runs.id),"
                " started_at, created_at) FROM runs WHERE state IN ('running', 'waiting') AND merged_into IS NULL"
            ).fetchall()
            lost: list[str] = []
            for run_id, stalled, cancelled, reason, progress_at in rows:
                if not cancelled and stalled >= MAX_STALLED and now - progress_at >= STALLED_SECONDS:
                    lost.append(run_id)
                    minutes = (now - progress_at) / 60
                    reason = (
                        f"started {stalled} times in {minutes:.0f} min without one step; the process died each time"
                    )
                    _finish(db, run_id, _told(db, run_id, RunState.LOST, reason), now)
                else:
                    why = reason if cancelled else "interrupted"
                    db.execute("UPDATE runs SET state = 'queued', reason = ? WHERE id = ?", (why, run_id))
            return len(rows) - len(lost), lost

        return await self.writer.submit(operation)

    async def add_child(self, parent_run_id: str, child: ChildRun, *, awaited: bool) -> bool:
        """Write what a run gave to another agent; `awaited`: it is for that run alone, and of no use without it.

        True if the run has ended meanwhile and the child is to be cancelled, which then is an effect already.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> bool:
            db.execute(
                "INSERT INTO children(run_id, parent_run_id, agent, task, state, created_at, awaited)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(run_id) DO NOTHING",
                (child.run_id, parent_run_id, child.agent, child.task, child.state, now, awaited),
            )
            row = db.execute("SELECT state FROM runs WHERE id = ?", (parent_run_id,)).fetchone()
            state = RunState(row[0]) if row else RunState.RUNNING
            if not state.ended or state is RunState.SUCCEEDED:
                return False
            return child.run_id in call_off(db, parent_run_id, state, now)

        return await self.writer.submit(operation)

    async def update_child(self, run_id: str, agent: str, state: str, text: str, error: str | None) -> bool:
        """Write how a delegated run stands; False if `agent` was never given such a run from here."""
        changed = await self.writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE children SET state = ?, text = ?, error = ? WHERE run_id = ? AND agent = ?",
                    (state, text, error, run_id, agent),
                ).rowcount
            )
        )
        return changed > 0

    async def prune(self, before: float, limit: int = 200) -> int:
        """Remove what ended before `before` (unix seconds) and all that is only its: runs, and questions without one.

        At most `limit` of each, so that others get their turn; how many there were.
        """
        questions_before = min(before, self._clock() - QUESTION_SECONDS)
        return await self.writer.submit(
            lambda db: prune_runs(db, before, limit) + prune_questions(db, questions_before, limit)
        )

    async def begin_anew(self, session_key: str) -> bool:
        """Nothing said in a session before now is read again by a model; it stays in the transcript behind a marker.

        False if nothing was said since it last began.
        """
        now = self._clock()

        def operation(db: sqlite3.Connection) -> bool:
            upto = db.execute(
                "SELECT max(seq) FROM messages WHERE session_key = ? AND seq >"
                " coalesce((SELECT max(upto_seq) FROM compactions WHERE session_key = ?), 0)",
                (session_key, session_key),
            ).fetchone()[0]
            if upto is None:
                return False
            db.execute(
                "INSERT INTO compactions(session_key, upto_seq, summary, checkpoint, tokens_before, tokens_after, at)"
                " VALUES (?, ?, 'The conversation began anew here, as a person wished.', '', 0, 0, ?)",
                (session_key, upto, now),
            )
            return True

        return await self.writer.submit(operation)

    async def probe(self) -> None:
        """Write nothing, durably: raises if the ledger cannot be written."""
        await self.writer.submit(lambda db: db.execute("UPDATE sessions SET key = key WHERE 0").rowcount)


def _not_begun(db: sqlite3.Connection, key: str) -> str | None:
    """The run with this idempotency key, whoever gave it, if it waits for its first start."""
    row = db.execute(
        "SELECT id FROM runs WHERE state = 'queued' AND held = 0 AND attempts = 0 AND idempotency_key = ?"
        " AND source = ?",
        (key, RunSource.CHAT.value),
    ).fetchone()
    return None if row is None else str(row[0])


def _told(db: sqlite3.Connection, run_id: str, state: RunState, reason: str) -> Ending:
    """How a run ends that no task of ours brought to its end, with word to whoever gave it."""
    parent, caller, people, options = db.execute(
        "SELECT parent_run_id, caller, people, options FROM runs WHERE id = ?", (run_id,)
    ).fetchone()
    effects = []
    if parent is not None and not people:
        effects.append(report_of(run_id, parent, caller, state, "", reason))
    asked = _options.decode(options)
    if asked.origin is not None:
        effects.append(answer_of(run_id, asked, state, "", reason))
    return Ending(state, reason=reason, effects=effects)


def _finish(db: sqlite3.Connection, run_id: str, ending: Ending, now: float) -> bool:
    changed = db.execute(
        "UPDATE runs SET state = ?, text = ?, reason = ?, error = ?, finished_at = ?"
        " WHERE id = ? AND state IN ('queued', 'running', 'waiting')",
        (
            ending.state.value,
            ending.text,
            ending.reason,
            _json(ending.error).decode() if ending.error else None,
            now,
            run_id,
        ),
    ).rowcount
    if changed:
        db.execute(  # a run that this agent gave itself
            "UPDATE children SET state = ?, text = ?, error = ? WHERE run_id = ?",
            (ending.state.value, ending.text, ending.reason or None, run_id),
        )
        close_questions(db, run_id, now)
        for effect in ending.effects:
            add_effect(db, run_id, effect, now)
        if ending.state is not RunState.SUCCEEDED:
            call_off(db, run_id, ending.state, now)
        _finish_merged(db, run_id, ending, now)
    return changed > 0


def _finish_merged(db: sqlite3.Connection, run_id: str, ending: Ending, now: float) -> None:
    """Runs that were taken into this one are answered with it; if it brought no answer, they go on by themselves."""
    if ending.state is RunState.SUCCEEDED:
        for merged_id, effects in ending.merged.items():
            end = Ending(ending.state, text=ending.text, reason=f"answered with {run_id}", effects=effects)
            _finish(db, merged_id, end, now)
    else:
        db.execute(
            "UPDATE runs SET state = 'queued', merged_into = NULL, reason = ? WHERE merged_into = ?"
            " AND state = 'waiting'",
            (f"{run_id} {ending.state.value} without an answer", run_id),
        )
