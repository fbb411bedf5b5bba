"""Commands that only ask: what each costs in CPU time."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.report import Figure
from tests.conftest import ClusterHome

COMMANDS = (
    ("status",),
    ("runs", "webster"),
    ("approvals",),
    ("token", "operator"),
    ("model", "webster"),
    ("logs", "--limit", "50"),
)


def measure() -> list[Figure]:
    home = ClusterHome(("manager", "webster"))
    try:
        home.cli("start")
        return [Figure(f"atomizer {c[0]}", _cpu(home, *c), "CPU-s", limit=0.25) for c in COMMANDS]
    finally:
        home.close()


def _cpu(home: ClusterHome, *arguments: str) -> float:
    """User and system seconds of one command, the least of five."""
    best = float("inf")
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.cli", *arguments, "--home", str(home.root)],
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        assert process.returncode == 0, arguments
        best = min(best, usage.ru_utime + usage.ru_stime)
    return best
