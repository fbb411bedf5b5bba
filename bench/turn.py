"""A turn's overhead: everything a run costs beyond the time its model takes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.report import Figure
from protocols.runs import Run
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Reply

RUNS = 60


def measure() -> list[Figure]:
    figures = [_offline()]
    for agent, label in (("manager", "Anthropic's SDK"), ("webster", "Google's SDK")):
        figures.append(_through_sdk(agent, label))
    return figures


def _offline() -> Figure:
    home = ClusterHome(("webster",))
    try:
        with running(home, "webster") as (gateway,):
            gateway.raw("PUT", "/control/model", b'{"model":"offline/echo"}', gateway.headers())
            return Figure("a turn's overhead, offline, p50", _median(gateway), "ms", limit=15)
    finally:
        home.close()


def _through_sdk(agent: str, label: str) -> Figure:
    """The local server answers at once, so what is left of the run's time is ours and the SDK's."""
    home = ClusterHome((agent,))
    with tempfile.TemporaryDirectory() as folder:
        server = ModelProcess(Path(folder), Reply(text="A short answer.", piece=80, times=0))
        try:
            use_models(home, server)
            with running(home, agent) as (gateway,):
                return Figure(f"a turn's overhead, {label}, p50", _median(gateway), "ms", limit=25)
        finally:
            server.close()
            home.close()


def _median(gateway: GatewayProcess) -> float:
    """Milliseconds from a run's start to its end, without the first ones (they import and connect)."""
    for _ in range(5):
        gateway.result(gateway.delegate("warm up"))
    runs: list[Run] = [gateway.result(gateway.delegate(f"question {n}")) for n in range(RUNS)]
    return statistics.median((r.finished_at - r.started_at) * 1000 for r in runs if r.finished_at and r.started_at)
