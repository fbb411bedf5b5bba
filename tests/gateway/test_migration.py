"""A ledger that an older version left: it is brought up to date, everything is readable, and its runs go on."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import _V1, MIGRATIONS, SchemaError
from protocols.control import SessionList, Transcript
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

OLD = "run-19a0000000000000001"
CUT = "run-19a0000000000000002"
QUEUED = "run-19a0000000000000003"
CALL = {"type": "tool_call", "id": "call-1", "name": "memory_write", "arguments": {"text": "the old tide was high"}}


def blocks(*content: object) -> str:
    return msgspec.json.encode(list(content)).decode()


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def write_v1(path: Path) -> None:
    """A file of version 1: a run that ended, one that was cut short inside a tool call, and one that waits."""
    now = time.time() - 60
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for statement in _V1.split(";"):
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        insert = (
            "INSERT INTO runs(id, state, priority, source, name, caller, people, session_key, message, options,"
            " attempts, created_at, started_at, finished_at, text, model, idempotency_key)"
            " VALUES (?, ?, 0, 'hook', 'Hook', 'operator', 1, ?, ?, '{}', ?, ?, ?, ?, ?, 'offline/retrieval', ?)"
        )
        db.execute(insert, (OLD, "succeeded", "desk", "hello", 1, now, now, now + 1, "[offline] good day", "k-old"))
        db.execute(insert, (CUT, "running", "shelf", "remember the old tide was high", 1, now, now, None, "", None))
        db.execute(insert, (QUEUED, "queued", "desk", "status", 0, now, None, None, "", None))
        db.executemany(
            "INSERT INTO messages(session_key, run_id, role, content, at) VALUES (?, ?, ?, ?, ?)",
            [
                ("desk", OLD, "user", blocks(text("hello")), now),
                ("desk", OLD, "assistant", blocks(text("[offline] good day")), now),
                ("shelf", CUT, "user", blocks(text("remember the old tide was high")), now),
                ("shelf", CUT, "assistant", blocks(CALL), now),
            ],
        )
        step = (
            "INSERT INTO steps(run_id, idx, kind, state, name, call_id, input, output, started_at, finished_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        db.execute(step, (OLD, 0, "model", "done", "offline/retrieval", None, None, "[offline] good day", now, now))
        db.execute(step, (CUT, 0, "model", "done", "offline/retrieval", None, None, "", now, now))
        arguments = msgspec.json.encode(CALL["arguments"]).decode()
        db.execute(step, (CUT, 1, "tool", "started", "memory_write", "1.0", arguments, None, now, None))
        db.executemany(
            "INSERT INTO sessions(key, created_at, updated_at, route) VALUES (?, ?, ?, ?)",
            [("desk", now, now, "discord:user:123456789012345678"), ("shelf", now, now, None)],
        )
        db.execute(
            "INSERT INTO effects(key, run_id, kind, target, payload, state, next_at, detail, created_at)"
            " VALUES (?, ?, 'deliver', '12345', '{\"text\":\"lost words\"}', 'dead', ?, 'cannot be resolved', ?)",
            (f"{OLD}/deliver", OLD, now, now),
        )
        db.execute(
            "INSERT INTO children(run_id, parent_run_id, agent, task, state, text, created_at)"
            " VALUES ('run-19a0000000000000009', ?, 'manager', 'a task', 'succeeded', 'its answer', ?)",
            (OLD, now),
        )
        db.execute("INSERT INTO notes(text, sender, at) VALUES ('look at the disk', 'operator', ?)", (now,))
        db.execute("INSERT INTO beats(at, outcome) VALUES (?, 'ok')", (now,))


def test_a_file_of_version_1_is_brought_up_to_date_and_its_runs_go_on(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    write_v1(home.home.state_db("webster"))
    gateway = GatewayProcess(home)
    try:
        gateway.start()
        assert gateway.sql("PRAGMA user_version") == [(len(MIGRATIONS),)]
        cut = gateway.result(CUT)
        assert (cut.state, cut.attempts) == (RunState.SUCCEEDED, 2)
        assert [(s.kind, s.state) for s in cut.steps] == [("model", "done"), ("tool", "done"), ("model", "done")]
        assert gateway.notes().count("the old tide was high") == 1
        assert gateway.result(QUEUED).state is RunState.SUCCEEDED
        old = gateway.result(OLD)
        assert (old.text, old.children[0].text) == ("[offline] good day", "its answer")
        assert old.delivery is not None
        assert old.delivery.status == "dead"
        assert gateway.delegate("hello", idempotency_key="k-old") == OLD
        sessions = {s.key: s for s in gateway.ask.get("/sessions", SessionList).sessions}
        assert sessions["desk"].route == "discord:user:123456789012345678"
        desk = gateway.ask.get("/sessions/desk", Transcript)
        assert desk.messages[1].content == [text("[offline] good day")]
        assert len(desk.messages) >= 4
        _, _, letters = gateway.raw("GET", "/dead-letters", None, gateway.headers())
        assert letters["letters"][0]["text"] == "lost words"
        assert gateway.status().heartbeat.last_outcome == "ok"
        gateway.kill()
        gateway.start()
        assert gateway.result(OLD).state is RunState.SUCCEEDED
    finally:
        gateway.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(SchemaError, match="install the newer program again"):
        Ledger(path, "webster").start()
