"""SIGKILL at random moments: nothing accepted is lost, nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.killing import kill_while_remembering
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

RUNS = 40
KILLS = 8


def test_every_accepted_run_succeeds_once_however_often_the_gateway_is_killed(
    make_home: Callable[..., ClusterHome],
) -> None:
    gateway = GatewayProcess(make_home("webster"))
    try:
        outcome = kill_while_remembering(gateway, RUNS, KILLS, seed=20261125)
    finally:
        gateway.close()
    print(f"\nkill test: {outcome}")
    assert outcome.succeeded == RUNS
    assert {n: count for n, count in outcome.copies.items() if count != 1} == {}
    assert outcome.kills_while_running * 2 >= outcome.kills
