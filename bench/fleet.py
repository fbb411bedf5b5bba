"""Eight gateways: how long until they answer, and what they cost when idle."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.report import Figure
from protocols.registry import AGENTS
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess

IDLE_SECONDS = 20.0
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_mib(pid: int) -> tuple[float, float]:
    """(resident, proportional) memory of a process in MiB."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Rss"].split()[0]) / 1024, int(rows["Pss"].split()[0]) / 1024


def measure() -> list[Figure]:
    names = tuple(e.name for e in AGENTS if e.default_on)
    home = ClusterHome(names)
    gateways = [GatewayProcess(home, name) for name in names]
    try:
        alone, alone_cpu = _one(gateways[0])
        begun = time.monotonic()
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            gateway.wait_healthy()
        together = time.monotonic() - begun
        time.sleep(3)
        before = sum(cpu_seconds(g.pid) for g in gateways)
        time.sleep(IDLE_SECONDS)
        idle = (sum(cpu_seconds(g.pid) for g in gateways) - before) / IDLE_SECONDS / len(gateways) * 100
        memory = [memory_mib(g.pid) for g in gateways]
    finally:
        for gateway in gateways:
            gateway.close()
        home.close()
    return [
        Figure("spawn to /health, one", alone, "s", limit=0.8),
        Figure("spawn to /health, one, CPU", alone_cpu, "CPU-s", limit=0.7),
        Figure("spawn to /health, eight at once", together, "s", limit=4.0),
        Figure("idle gateway, RSS, the largest of eight", max(m[0] for m in memory), "MiB", limit=50),
        Figure("eight gateways, PSS in all", sum(m[1] for m in memory), "MiB", limit=320),
        Figure("idle gateway, CPU", idle, "%", limit=0.3),
    ]


def _one(gateway: GatewayProcess) -> tuple[float, float]:
    """(wall, CPU) seconds from spawn to a healthy answer, the best of three."""
    rounds = []
    for _ in range(3):
        begun = time.monotonic()
        gateway.start()
        rounds.append((time.monotonic() - begun, cpu_seconds(gateway.pid)))
        gateway.stop()
    return min(r[0] for r in rounds), min(r[1] for r in rounds)
