"""200 `remember bar N` runs under SIGKILL: all succeed, each note stands once."""

from __future__ import annotations

import random

from bench.report import Figure
from tests.chaos.killing import kill_while_remembering
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

RUNS = 200
KILLS = 40


def measure() -> list[Figure]:
    seed = random.randrange(2**32)
    home = ClusterHome(("webster",))
    gateway = GatewayProcess(home)
    try:
        outcome = kill_while_remembering(gateway, RUNS, KILLS, seed)
    finally:
        gateway.close()
        home.close()
    print(f"  seed {seed}: {outcome}")
    return [
        Figure("runs lost", RUNS - outcome.succeeded, "", limit=0),
        Figure("notes that do not stand exactly once", sum(n != 1 for n in outcome.copies.values()), "", limit=0),
        Figure("kills while no run was running", outcome.kills - outcome.kills_while_running, "", limit=KILLS / 2),
    ]
