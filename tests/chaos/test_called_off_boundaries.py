"""SIGKILL at each commit of a run that fails while its child works: the child is cancelled, over any death."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.chaos.deaths import GEMINI, DyingGateway, die_at_each_commit
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.test_called_off import Giving
from tests.standins.models.script import Call

MakeHome = Callable[..., ClusterHome]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_a_failing_run_leaves_no_child_at_work(make_home: MakeHome, when: str) -> None:
    home = make_home("webster")
    gateway = DyingGateway(home, "webster", *GEMINI)

    def story(number: int) -> None:
        run_id = gateway.delegate(f"BEGIN {number}", idempotency_key=f"key-{number}", session_key=f"desk-{number}")
        run = gateway.end_of(run_id)
        assert (run.state, "4 steps" in run.reason) == (RunState.FAILED, True), run
        (child,) = run.children
        ended = gateway.end_of(child.run_id)
        assert ended.state is RunState.CANCELLED, ended
        query = "SELECT state FROM effects WHERE kind = 'cancel' AND run_id = ?"
        assert gateway.sql(query, run_id) == [("done",)]

    with obedient_model() as server:
        server.script = Giving(Call("sessions_spawn", {"task": "count the bolts"}))
        obey(home, server, "webster", "[limits]\nmax_steps = 4")
        try:
            deaths = die_at_each_commit(gateway, when, story)
        finally:
            gateway.close()
    print(f"\nfailing, killed {when} each of {deaths} commits")
    assert deaths >= 10
