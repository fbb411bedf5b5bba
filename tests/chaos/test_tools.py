"""SIGKILL at each commit of a run that writes, edits and runs a command: all of it is done, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.agent.sessions import INTERRUPTED
from protocols.runs import RunState
from runtime.confine import landlock_abi
from tests.chaos.deaths import GEMINI, DyingGateway, die_at_each_commit
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, obedient_model, obey


@pytest.mark.slow
@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
def test_a_kill_at_any_commit_repeats_no_edit_and_no_command(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    workspace = home.home.workspace("webster")
    gateway = DyingGateway(home, "webster", *GEMINI)

    def story(number: int) -> None:
        name = f"file{number}.txt"
        calls = [
            ("write_file", {"path": name, "content": "first\n"}),
            ("edit_file", {"path": name, "old": "first\n", "new": "first\nadded\n"}),
            ("exec", {"command": f"echo run >> ran{number}.txt"}),
        ]
        run = gateway.end_of(gateway.delegate(json.dumps(calls), idempotency_key=f"key-{number}"))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run
        assert (workspace / name).read_text() == "first\nadded\n"
        ran = workspace / f"ran{number}.txt"
        times = ran.read_text().count("run") if ran.exists() else 0
        rows = gateway.sql("SELECT output FROM steps WHERE run_id = ? AND name = 'exec'", run.run_id)
        assert times == 1 or (times == 0 and rows == [(INTERRUPTED,)]), rows

    with obedient_model() as server:
        obey(home, server, "webster", allow=SHELL)
        try:
            deaths = die_at_each_commit(gateway, "before", story)  # what was done is not yet written down
        finally:
            gateway.close()
    print(f"\nkilled before each of {deaths} commits")
    assert deaths >= 9
