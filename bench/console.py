"""The console beside eight gateways: its first paint, its memory, and what it costs when nothing or much happens."""

from __future__ import annotations

from bench.fleet import cpu_seconds, memory_mib
from bench.report import Figure
from bench.terminal import console
from protocols.registry import AGENTS
from tests.conftest import ClusterHome
from tests.e2e.flood import flood_log
from tests.e2e.test_slow_reader import with_debug_log
from tests.gateway.process import running

IDLE_SECONDS = 20.0
BUSY_LINES = 10_000


def measure() -> list[Figure]:
    names = tuple(e.name for e in AGENTS if e.default_on)
    home = ClusterHome(names)
    with_debug_log(home, "webster")
    try:
        with running(home, *names) as gateways, console(home.root) as terminal:
            assert terminal.read_for(20, b"webster"), "the console never painted"
            paint = cpu_seconds(terminal.pid)
            terminal.read_for(6)
            before = cpu_seconds(terminal.pid)
            terminal.read_for(IDLE_SECONDS)
            idle = (cpu_seconds(terminal.pid) - before) / IDLE_SECONDS * 100
            resident = memory_mib(terminal.pid)[0]
            webster = next(g for g in gateways if g.agent == "webster")
            terminal.type("eee")
            terminal.read_for(1)
            painted, before = terminal.bytes, cpu_seconds(terminal.pid)
            for _ in range(10):
                flood_log(webster.port, BUSY_LINES // 10)
                terminal.read_for(0.2)
            terminal.read_for(2)
            busy = cpu_seconds(terminal.pid) - before
            after = memory_mib(terminal.pid)[0]
            return [
                Figure("console, first paint", paint, "CPU-s", limit=0.75),
                Figure("console, resident memory", resident, "MiB", limit=48),
                Figure("console, idle", idle, "%", limit=0.5),
                Figure(f"console, CPU for {BUSY_LINES} log lines", busy, "CPU-s"),
                Figure("console, resident memory after them", after, "MiB", limit=48),
                Figure("console, painted for them", (terminal.bytes - painted) / 1024, "KiB"),
            ]
    finally:
        home.close()
