"""A lock that one agent's command holds does not keep another agent from writing, nor one on its own file for good."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

import pytest

from protocols.runs import RunState
from runtime.confine import landlock_abi
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, Hands, obedient_model, obey, wait_until
from tests.gateway.process import running


@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock: there is no exec")
def test_a_command_that_locks_the_shared_folder_stops_nobody(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("manager", "webster")
    with obedient_model() as model:
        for agent in ("manager", "webster"):
            obey(home, model, agent, allow=SHELL)
        with running(home, "webster", "manager") as (first, second):
            webster, manager = Hands(first), Hands(second)
            (webster.home.shared / "projects").mkdir(exist_ok=True)
            (webster.workspace / "hold.py").write_text(
                "import fcntl, os, time\n"
                "for path in ('../shared', '../shared/projects', '../manager'):\n"
                "    try: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)\n"
                "    except PermissionError: pass\n"
                "open('held', 'w').close(); time.sleep(60)\n"
            )
            webster.exec("python3 hold.py", background=True)
            wait_until((webster.workspace / "held").exists)
            manager.call("status")
            began = time.monotonic()
            assert "made" in manager.call("write_file", path="shared/note.md", content="x")
            assert "made" in manager.call("write_file", path="shared/projects/note.md", content="x")
            assert time.monotonic() - began < 4


def test_a_program_that_holds_the_ledger_for_long_ends_no_part_of_the_gateway(
    make_home: Callable[..., ClusterHome],
) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        gateway.result(gateway.delegate("status"))
        with contextlib.closing(sqlite3.connect(home.home.state_db("webster"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, _, refused = gateway.post("/hooks/agent", {"message": "status"})
            assert (status, "another program holds the file" in str(refused)) == (507, True), refused
            assert gateway.raw("GET", "/health")[0] == 200
        run = gateway.result(gateway.delegate("status"))
        assert run.state is RunState.SUCCEEDED
        wait_until(lambda: gateway.raw("GET", "/ready")[0] == 200)
        wait_until(lambda: gateway.sql("SELECT count(*) FROM effects WHERE state = 'pending'") == [(0,)])
