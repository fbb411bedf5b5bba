"""SIGKILL at each commit around a due time, just before it and just after: its run comes once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.chaos.test_boundaries import DyingGateway
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

REACHED = 4
"""Commits from the start on: the due time's, and the first of its run."""


def put(home: ClusterHome, number: int) -> None:
    """A schedule that has been due for two seconds, written while nobody runs."""
    with contextlib.closing(sqlite3.connect(home.home.state_db("webster"))) as db, db:
        db.execute("UPDATE schedules SET enabled = 0")
        db.execute(
            "INSERT INTO schedules(id, name, kind, spec, tz, message, missed, enabled, created_by, created_at, next_at)"
            " VALUES (?, 'n', 'every', '1h', 'UTC', ?, 'once', 1, 'operator', 1, ?)",
            (f"sch-{number}", f"remember tide {number}", time.time() - 2),
        )


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_a_due_time_changes_nothing(make_home: Callable[..., ClusterHome], when: str) -> None:
    home = make_home("webster")
    first = GatewayProcess(home)
    first.start()
    first.kill()
    for number in range(1, REACHED + 1):
        put(home, number)
        gateway = DyingGateway(home, "webster")
        gateway.number, gateway.when = number, when
        try:
            gateway.spawn()
            assert gateway.process is not None
            gateway.process.wait(30)
            gateway.number = 0
            gateway.start()
            until = time.monotonic() + 20
            session = f"cron:sch-{number}"
            while not (rows := gateway.sql("SELECT id FROM runs WHERE session_key = ?", session)):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert len(rows) == 1
            assert gateway.result(rows[0][0]).state is RunState.SUCCEEDED
            ((next_at, last_run),) = gateway.sql(
                "SELECT next_at, last_run_id FROM schedules WHERE id = ?", f"sch-{number}"
            )
            assert next_at > time.time()
            assert last_run == rows[0][0]
        finally:
            gateway.close()
    assert [GatewayProcess(home).notes().count(f"tide {n}") for n in range(1, REACHED + 1)] == [1] * REACHED
