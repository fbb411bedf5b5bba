"""Ending a whole cluster for certain, with its supervisor or, where that is dead or hung, without it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

import msgspec

from cluster.supervisors import processes
from cluster.supervisors.records import Desired, load_desired, load_records, save_desired, save_record
from cluster.supervisors.supervisor import LOCK, SupervisorClient, SupervisorDown, SupervisorError, SupervisorHung
from runtime.home import Home

DRAIN_SECONDS = 20.0


class Ended(msgspec.Struct):
    agents: list[str]
    """Agents that ran."""
    leftovers: int
    """Processes that were found and ended after the gateways had gone."""


def stop_everything(home: Home) -> Ended:
    """Stop every agent and the supervisor; no process of this home is left. Raises OSError, SupervisorError."""
    client = SupervisorClient(home)
    agents: list[str] = []
    try:
        agents = [child.agent for child in client.list() if child.pid is not None]
        client.shutdown()
    except SupervisorDown:
        agents = _without_supervisor(home) or agents
    except SupervisorHung:
        _kill_holder(home)
        agents = _without_supervisor(home) or agents
    return Ended(agents=agents, leftovers=processes.sweep(home))


def _without_supervisor(home: Home) -> list[str]:
    if not home.run.is_dir():
        return []
    lock = os.open(home.run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(lock)
        desired = load_desired(home)
        if desired.agents:
            save_desired(home, Desired(program=desired.program))
        gateways = [process for process in processes.scoped(home) if process.session == process.pid]
        names = [scope.partition("/")[2] for p in gateways if (scope := processes.scope_in(p.pid))]
        below = processes.descendants([process.pid for process in gateways])
        processes.end(gateways, DRAIN_SECONDS)
        processes.sweep(home, also=below)
        for record in load_records(home):
            record.state, record.pid, record.started, record.detail = "stopped", None, None, ""
            with contextlib.suppress(OSError):
                save_record(home, record)
        return list(dict.fromkeys(names))
    finally:
        os.close(lock)


def _take(lock: int) -> None:
    """The supervisor's own lock, so that none starts meanwhile; waits for one that is just ending."""
    until = time.monotonic() + 5.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise SupervisorError("another supervisor is starting; try again") from None
            time.sleep(0.05)


def _kill_holder(home: Home) -> None:
    """End a supervisor that holds the lock and does not answer."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((home.run / LOCK).read_text())
        if "cluster.supervisors.embedded" in processes.command_of(pid):
            process = processes.find(pid)
            if process is not None:
                processes.end([process], 0.5)
