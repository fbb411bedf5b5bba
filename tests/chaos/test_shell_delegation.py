"""SIGKILL at each commit of a run whose command delegates: what was written as begun is delegated, once, and known."""

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
from tests.gateway.process import running

FIRST = 4
"""Before it, there is no command yet: `test_boundaries.py` looks at those."""


@pytest.mark.slow
@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_loses_no_delegation_and_makes_none_twice(
    make_home: Callable[..., ClusterHome], when: str
) -> None:
    home = make_home("manager", "webster")
    reached, cut, made_anew = 0, 0, 0
    with obedient_model() as server:
        obey(home, server, "manager", allow=SHELL)
        obey(home, server, "webster")
        with running(home, "webster") as (webster,):
            for number in range(FIRST, MOST):
                gateway = DyingGateway(home, "manager")
                gateway.number, gateway.when = number, when
                line = "atomizer delegate webster 'one'; atomizer delegate webster 'two' --wait"
                try:
                    run, died = live_through(gateway, json.dumps([["exec", {"command": line}]]), f"key-{number}")
                finally:
                    gateway.close()
                assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run
                rows = webster.sql("SELECT id, message FROM runs WHERE parent_run_id = ? ORDER BY seq", run.run_id)
                steps = [step for step in run.steps if step.name == "delegate"]
                (command,) = [step for step in run.steps if step.name == "exec"]
                output = command.output or ""
                assert [(child.run_id, child.task) for child in run.children] == rows, "each is known to its parent"
                assert [message for _, message in rows] == ["one", "two"][: len(rows)], "none was made twice"
                assert [step.state for step in steps] == ["done"] * len(rows), "none that was begun was lost"
                if output.startswith(INTERRUPTED):
                    cut += 1
                    made_anew += bool(rows)
                    assert all(run_id in output for run_id, _ in rows), "and the model is told"
                else:
                    assert len(rows) == 2, output
                if not died:
                    break
                reached = number
    print(f"\nkilled {when} each of {reached} commits: {cut} commands cut short, {made_anew} had delegated")
    assert reached >= 10
    assert made_anew >= 3
