"""SIGKILL at each commit a run makes, just before it and just after: the run ends well, and everything stands once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocols.runs import Run, RunState
from tests.chaos.deaths import DyingGateway, die_at_each_commit
from tests.conftest import ClusterHome
from tests.gateway.obeying import wait_until
from tests.gateway.process import GatewayProcess, running


@pytest.mark.parametrize(
    ("kind", "when"),
    [("remember", "before"), ("remember", "after"), ("delegate", "before")],  # before: what it wrote is not yet true
)
def test_a_kill_at_any_commit_of_a_run_changes_nothing(
    make_home: Callable[..., ClusterHome], kind: str, when: str
) -> None:
    home = make_home("manager", "webster")
    prefix = "" if kind == "remember" else "delegate to webster: "
    gateway = DyingGateway(home, "webster" if kind == "remember" else "manager")

    def story(number: int) -> None:
        run = gateway.end_of(gateway.delegate(f"{prefix}remember fact {number}", idempotency_key=f"key-{number}"))
        assert run.state is RunState.SUCCEEDED, run
        check(home, run, f"fact {number} ")

    try:
        with running(home, *([] if kind == "remember" else ["webster"])):
            deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    print(f"\n{kind}, killed {when} each of {deaths} commits: every run succeeded, everything stands once")
    assert deaths >= 7


def check(home: ClusterHome, run: Run, fact: str) -> None:
    webster = GatewayProcess(home, "webster")
    assert webster.notes().count(fact) == 1
    log = home.home.project_log
    assert log.read_text().count(f"| {run.run_id}\n") == 1
    for child in run.children:
        wait_until(lambda id=child.run_id: log.read_text().count(f"| {id}\n") == 1)
        assert webster.sql("SELECT count(*) FROM runs WHERE parent_run_id = ?", run.run_id) == [(1,)]
