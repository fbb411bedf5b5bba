"""SIGKILL at each commit of a run that writes, edits and runs a command: all of it is done, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.agent.sessions import INTERRUPTED
from protocols.runs import RunState
from runtime.confine import landlock_abi
from tests.chaos.test_boundaries import MOST, DyingGateway, live_through
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, obedient_model, obey


@pytest.mark.slow
@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
def test_a_kill_at_any_commit_repeats_no_edit_and_no_command(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    reached = 0
    with obedient_model() as server:
        obey(home, server, "webster", allow=SHELL)
        for number in range(1, MOST):
            gateway = DyingGateway(home, "webster")
            gateway.number, gateway.when = number, "before"  # what was done is not yet written down
            name = f"file{number}.txt"
            calls = [
                ("write_file", {"path": name, "content": "first\n"}),
                ("edit_file", {"path": name, "old": "first\n", "new": "first\nadded\n"}),
                ("exec", {"command": f"echo run >> ran{number}.txt"}),
            ]
            try:
                run, died = live_through(gateway, json.dumps(calls), f"key-{number}")
                rows = gateway.sql("SELECT output FROM steps WHERE run_id = ? AND name = 'exec'", run.run_id)
            finally:
                gateway.close()
            assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run
            workspace = home.home.workspace("webster")
            assert (workspace / name).read_text() == "first\nadded\n"
            ran = workspace / f"ran{number}.txt"
            times = ran.read_text().count("run") if ran.exists() else 0
            assert times == 1 or (times == 0 and rows == [(INTERRUPTED,)]), rows
            if not died:
                break
            reached = number
    print(f"\nkilled before each of {reached} commits")
    assert reached >= 9
