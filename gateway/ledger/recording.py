"""A run as a recording: its conversation and prompts, read from the ledger."""

from __future__ import annotations

import sqlite3
import time

import msgspec

from gateway.ledger.conversations import HISTORY_MESSAGES
from protocols.recordings import FORMAT, RecordedAnswer, RecordedMessage, Recording
from protocols.runs import Run


def read_recording(db: sqlite3.Connection, agent: str, run: Run) -> Recording:
    """Everything that a replay of `run` needs. The run has ended."""
    first, last = db.execute("SELECT min(seq), max(seq) FROM messages WHERE run_id = ?", (run.run_id,)).fetchone()
    first, last = first or 0, last or -1
    summarised = db.execute(
        "SELECT upto_seq, summary, checkpoint FROM compactions WHERE session_key = ? AND upto_seq < ?"
        " ORDER BY id DESC LIMIT 1",
        (run.session_key, first),
    ).fetchone()
    begin = summarised["upto_seq"] if summarised else 0
    before = _messages(db, run.session_key, begin, first - 1)[-HISTORY_MESSAGES:]
    steps = db.execute(
        "SELECT name, prompt_hash, volatile FROM steps WHERE run_id = ? AND kind = 'model' AND state = 'done'"
        " ORDER BY idx",
        (run.run_id,),
    ).fetchall()
    hashes = {step["prompt_hash"] for step in steps if step["prompt_hash"]}
    prompts = {
        hashed: db.execute("SELECT text FROM prompts WHERE hash = ?", (hashed,)).fetchone()["text"] for hashed in hashes
    }
    return Recording(
        format=FORMAT,
        exported_at=time.time(),
        agent=agent,
        run=run,
        before=before,
        conversation=_messages(db, run.session_key, first - 1, last),
        answers=[
            RecordedAnswer(model=s["name"], prompt_hash=s["prompt_hash"] or "", volatile=s["volatile"] or "")
            for s in steps
        ],
        prompts=prompts,
        compacted=summarised is not None or any(step.kind == "compaction" for step in run.steps),
    )


def _messages(db: sqlite3.Connection, session_key: str, after: int, upto: int) -> list[RecordedMessage]:
    rows = db.execute(
        "SELECT role, content FROM messages WHERE session_key = ? AND seq > ? AND seq <= ? ORDER BY seq",
        (session_key, after, upto),
    )
    return [RecordedMessage(role=row["role"], content=msgspec.json.decode(row["content"])) for row in rows]
