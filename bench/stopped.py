"""A console stopped for a minute while 100,000 log lines pass: the gateway stays small, and the gap is shown."""

from __future__ import annotations

import os
import signal
import time

from bench.report import Figure
from bench.terminal import console
from tests.conftest import ClusterHome
from tests.e2e.flood import flood_log
from tests.e2e.test_slow_reader import with_debug_log
from tests.gateway.process import running

SECONDS = 60.0
LINES = 100_000


def measure() -> list[Figure]:
    home = ClusterHome(("webster",))
    with_debug_log(home, "webster")
    try:
        with running(home, "webster") as (gateway,), console(home.root) as terminal:
            assert terminal.read_for(20, b"webster"), "the console never painted"
            flood_log(gateway.port, 5000)
            terminal.read_for(3)
            before = gateway.status().rss_bytes
            os.kill(terminal.pid, signal.SIGSTOP)
            begun = time.monotonic()
            flood_log(gateway.port, LINES)
            time.sleep(max(0.0, SECONDS - (time.monotonic() - begun)))
            grown = (gateway.status().rss_bytes - before) / 2**20
            stopped = time.monotonic() - begun
            terminal.forget()
            os.kill(terminal.pid, signal.SIGCONT)
            shown = terminal.read_for(30, b"dropped")
            return [
                Figure("console stopped", stopped, "s"),
                Figure(f"gateway's growth over {LINES} log lines", grown, "MiB", limit=2),
                Figure("the gap is not shown afterwards", float(not shown), "", limit=0),
            ]
    finally:
        home.close()
