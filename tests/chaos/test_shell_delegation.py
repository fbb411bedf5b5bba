"""SIGKILL at each commit of a run whose command delegates: what was written as begun is delegated, once, and known."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.agent.sessions import INTERRUPTED
from protocols.runs import RunState
from runtime.confine import landlock_abi
from tests.chaos.deaths import DyingGateway, die_at_each_commit
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, obedient_model, obey
from tests.gateway.process import running

CALLS = json.dumps(
    [["exec", {"command": "atomizer delegate webster 'one'; atomizer delegate webster 'two' --wait; echo end"}]]
)


@pytest.mark.slow
@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_loses_no_delegation_and_makes_none_twice(
    make_home: Callable[..., ClusterHome], when: str
) -> None:
    home = make_home("manager", "webster")
    gateway = DyingGateway(home, "manager", "anthropic")
    cut_short: set[int] = set()

    with obedient_model() as server:
        obey(home, server, "manager", '[shell]\nbackground_after = "60s"\n', allow=SHELL)
        obey(home, server, "webster")
        with running(home, "webster") as (webster,):

            def story(number: int) -> None:
                run = gateway.end_of(gateway.delegate(CALLS, idempotency_key=f"key-{number}"))
                assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run
                rows = webster.sql("SELECT id, message FROM runs WHERE parent_run_id = ? ORDER BY seq", run.run_id)
                steps = [step for step in run.steps if step.name == "delegate"]
                (command,) = [step for step in run.steps if step.name == "exec"]
                output = command.output or ""
                assert [(child.run_id, child.task) for child in run.children] == rows, "its parent knows each"
                assert [message for _, message in rows] == ["one", "two"][: len(rows)], "none was made twice"
                assert [step.state for step in steps] == ["done"] * len(rows), "none that was begun was lost"
                if output.startswith(INTERRUPTED):
                    assert all(run_id in output for run_id, _ in rows), "the model is told of each"
                    cut_short.update([number] if rows else [])
                else:
                    assert len(rows) == 2, output
                    assert "end\n" in output

            try:
                deaths = die_at_each_commit(gateway, when, story)
            finally:
                gateway.close()
    print(f"\nkilled {when} each of {deaths} commits; {len(cut_short)} commands were cut short and had delegated")
    assert deaths >= 10
    assert len(cut_short) >= 3
