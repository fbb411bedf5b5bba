"""SIGKILL at each commit around a due time, just before it and just after: its run comes once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.chaos.deaths import DyingGateway
from tests.conftest import ClusterHome

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


def runs_of(gateway: DyingGateway, session: str) -> list[str]:
    return [row[0] for row in gateway.sql("SELECT id FROM runs WHERE session_key = ?", session)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_a_due_time_changes_nothing(make_home: Callable[..., ClusterHome], when: str) -> None:
    home = make_home("webster")
    gateway = DyingGateway(home)
    try:
        gateway.start()
        for number in range(1, REACHED + 1):
            gateway.kill()
            put(home, number)
            gateway.arm(number, when)
            gateway.spawn()
            assert gateway.process is not None
            gateway.process.wait(30)
            gateway.disarm()
            gateway.start()
            gateway.until(lambda session=f"cron:sch-{number}": runs_of(gateway, session))
            (made,) = runs_of(gateway, f"cron:sch-{number}")
            assert gateway.end_of(made).state is RunState.SUCCEEDED
            ((next_at, last_run),) = gateway.sql(
                "SELECT next_at, last_run_id FROM schedules WHERE id = ?", f"sch-{number}"
            )
            assert next_at > time.time()
            assert last_run == made
    finally:
        gateway.close()
    assert [gateway.notes().count(f"tide {n}") for n in range(1, REACHED + 1)] == [1] * REACHED
