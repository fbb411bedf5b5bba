"""SIGKILL at each commit of a run that ends without an answer: what it gave is cancelled, over any death."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.chaos.deaths import GEMINI, DyingGateway, cancel, die_at_each_commit
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import running
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


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_recalls_what_was_being_handed_over(make_home: MakeHome, when: str) -> None:
    """Its receiver stands still from before it is asked until the run is cancelled, so nobody knows what it has."""
    home = make_home("manager", "webster")
    manager = DyingGateway(home, "manager", "anthropic")

    with obedient_model() as server:
        server.script = Giving(Call("delegate", {"agent": "webster", "task": "waited for"}))
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "webster") as (webster,):

            def story(number: int) -> None:
                os.kill(webster.pid, signal.SIGSTOP)
                run_id = manager.delegate(f"BEGIN {number}", idempotency_key=f"key-{number}")
                manager.until(lambda: manager.sql("SELECT 1 FROM steps WHERE run_id = ? AND kind = 'tool'", run_id))
                cancel(manager, run_id)
                os.kill(webster.pid, signal.SIGCONT)
                assert manager.end_of(run_id).state is RunState.CANCELLED
                query = "SELECT id FROM runs WHERE parent_run_id = ? AND state = 'cancelled'"
                ((child,),) = manager.until(lambda: webster.sql(query, run_id))
                assert webster.sql("SELECT count(*) FROM runs WHERE parent_run_id = ?", run_id) == [(1,)]
                manager.until(
                    lambda: [(c.run_id, c.state) for c in manager.ask.run(run_id).children] == [(child, "cancelled")]
                )
                assert manager.sql("SELECT count(*) FROM effects WHERE state IN ('dead', 'unknown')") == [(0,)]

            try:
                deaths = die_at_each_commit(manager, when, story)
            finally:
                os.kill(webster.pid, signal.SIGCONT)
                manager.close()
    print(f"\nhanding over, killed {when} each of {deaths} commits")
    assert deaths >= 8
