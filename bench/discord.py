"""Fifty answers on a local Discord under fifty SIGKILLs, and what a connected gateway takes when idle."""

from __future__ import annotations

import random
import time
from pathlib import Path

from bench.report import Figure
from tests.chaos.reciting import kill_while_reciting, reciting
from tests.gateway.channels.land import land

KILLS = 50
CONNECTED_MIB = 55.0


def measure() -> list[Figure]:
    seed = random.randrange(2**32)
    with reciting() as here:
        outcome = kill_while_reciting(here, KILLS, seed)
    print(f"  seed {seed}: {outcome}")
    with land("webster") as here:
        gateway = here.gateway()
        time.sleep(2)
        resident = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * 4096 / 2**20
    return [
        Figure("answers that do not stand once and whole", len(outcome.wrong), "", limit=0),
        Figure("dead letters", outcome.letters, "", limit=0),
        Figure("connected and idle, RSS", resident, "MiB", limit=CONNECTED_MIB),
    ]
