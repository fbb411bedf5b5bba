"""SIGKILL at each commit a run makes, just before it and just after: the run ends well, and everything stands once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.errors import ProtocolError, Unreachable
from protocols.runs import Run, RunState
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running

DYING = Path(__file__).with_name("dying.py")
MOST = 20
"""More commits than one run makes: the loop ends when a process survives its run."""


class DyingGateway(GatewayProcess):
    """Kills itself at a commit."""

    number, when = 0, "after"

    def spawn(self, **environment: str) -> None:
        if not self.number:
            super().spawn(**environment)
            return
        folder = self.home.home.instance(self.agent)
        command = [sys.executable, str(DYING), str(self.number), self.when, "--home", str(self.home.root)]
        with open(folder / "console.log", "ab") as out:
            self.process = subprocess.Popen(
                [*command, "--agent", self.agent], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    @property
    def dead(self) -> bool:
        return self.process is not None and self.process.poll() is not None


def hand_in(gateway: GatewayProcess, message: str, key: str) -> str | None:
    """The run's id, or None if the gateway died before it could say it."""
    with contextlib.suppress(Unreachable, ProtocolError):
        return gateway.delegate(message, idempotency_key=key)
    return None


def effects_settled(gateway: DyingGateway, run_id: str) -> bool:
    """Has all that was to leave the process left it? False if the process died meanwhile."""
    until = time.monotonic() + 20
    query = "SELECT count(*) FROM effects WHERE run_id = ? AND state = 'pending'"
    while gateway.sql(query, run_id)[0][0]:
        if gateway.dead:
            return False
        assert time.monotonic() < until
        time.sleep(0.01)
    return not gateway.dead


def live_through(gateway: DyingGateway, message: str, key: str) -> tuple[Run, bool]:
    """Carry a run through one death and a restart: (the run, whether the process died)."""
    gateway.start()
    run_id = hand_in(gateway, message, key)
    died = True
    if run_id is not None:
        until = time.monotonic() + 20
        while not gateway.dead:
            assert time.monotonic() < until
            with contextlib.suppress(Unreachable):
                if gateway.ask.run(run_id, wait=2).state.ended and effects_settled(gateway, run_id):
                    died = False
                    break
    gateway.kill()  # its last commits may still come, and with them its death
    gateway.number = 0
    gateway.start()
    run_id = gateway.delegate(message, idempotency_key=key)
    run = gateway.result(run_id)
    assert effects_settled(gateway, run_id)
    return run, died


@pytest.mark.parametrize(
    ("kind", "when"),
    [("remember", "before"), ("remember", "after"), ("delegate", "before")],  # before: what it wrote is not yet true
)
def test_a_kill_at_any_commit_of_a_run_changes_nothing(
    make_home: Callable[..., ClusterHome], kind: str, when: str
) -> None:
    home = make_home("manager", "webster")
    agent = "webster" if kind == "remember" else "manager"
    prefix = "" if kind == "remember" else "delegate to webster: "
    others = [] if kind == "remember" else ["webster"]
    with running(home, *others):
        reached = 0
        for number in range(1, MOST):
            gateway = DyingGateway(home, agent)
            gateway.number, gateway.when = number, when
            try:
                run, died = live_through(gateway, f"{prefix}remember fact {number}", f"key-{number}")
            finally:
                gateway.close()
            assert run.state is RunState.SUCCEEDED, run
            check(home, run, f"fact {number} ")
            if not died:
                break
            reached = number
    print(f"\n{kind}, killed {when} each of {reached} commits: every run succeeded, everything stands once")
    assert reached >= 7


def check(home: ClusterHome, run: Run, fact: str) -> None:
    webster = GatewayProcess(home, "webster")
    assert webster.notes().count(fact) == 1
    log = home.home.project_log.read_text()
    assert log.count(f"| {run.run_id}\n") == 1
    for child in run.children:
        until = time.monotonic() + 10
        while home.home.project_log.read_text().count(f"| {child.run_id}\n") < 1:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert webster.sql("SELECT count(*) FROM runs WHERE parent_run_id = ?", run.run_id) == [(1,)]
