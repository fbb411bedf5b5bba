"""What can be told of a cluster whose configuration cannot be read: its agents may run all the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cluster.cli import exits
from cluster.cli.context import Invocation, classify
from protocols.text import printable

if TYPE_CHECKING:
    from cluster.supervisors.supervisor import ChildState
    from protocols.errors import AtomizerError


def problem_of(call: Invocation) -> AtomizerError | None:
    """What is wrong with the configuration of this home, which is there; raises HomeError if there is none."""
    from runtime.config import ConfigError

    try:
        call.cluster  # noqa: B018
    except ConfigError as error:
        return error
    return None


def show_known(call: Invocation, problem: AtomizerError) -> NoReturn:
    """The agents that run, by the supervisor or by its records, below what is wrong; ends with 78."""
    from cluster.cli.status import ask_all, row, table
    from protocols.ask import Ask
    from protocols.registry import parse_agent_name
    from runtime.config import AgentSpec
    from runtime.secrets import Secrets

    children, supervised = _children(call)
    told = {child.agent: child for child in children if child.pid is not None or child.desired == "up"}
    ports = {name: child.port or 0 for name, child in told.items()}
    token = Secrets(call.home).token("operator")
    running = [name for name, child in told.items() if child.pid is not None]
    answers = ask_all(running, lambda name, seconds: Ask(ports[name], token, timeout=seconds))
    rows = []
    for name, child in told.items():
        # Whether it is enabled, and on which host, stands in the file that cannot be read.
        spec = AgentSpec(name=parse_agent_name(name), port=ports[name], host="127.0.0.1", enabled=True)
        rows.append(row(spec, child, answers.get(name)))
        if child.pid is not None:
            rows[-1].notes.insert(0, f"pid {child.pid}")

    def text() -> str:
        if not rows:
            return "no agent runs"
        whose = "the supervisor" if supervised else "the last supervisor's records (none is running)"
        return "\n".join([f"what runs, by {whose}, which needs no configuration:", *table(rows)])

    end(call, problem, {"supervisor": supervised, "agents": rows}, text())


def begin(call: Invocation, problem: AtomizerError) -> None:
    """The error, before anything else; with --json it is in the document."""
    if not call.json:
        click.echo(f"atomizer: {printable(str(problem))}", err=True)


def end(call: Invocation, problem: AtomizerError, document: dict[str, Any], text: str) -> NoReturn:
    """The error and what can be told all the same; ends with 78."""
    begin(call, problem)
    error = {"code": classify(problem)[1], "message": str(problem)}
    call.answer({"ok": False, "error": error, "home": str(call.home.root), **document}, text)
    sys.exit(exits.CONFIG)


def _children(call: Invocation) -> tuple[list[ChildState], bool]:
    """Each process, and whether a supervisor answers."""
    from cluster.supervisors.processes import find
    from cluster.supervisors.records import load_records
    from cluster.supervisors.supervisor import ChildState, SupervisorError

    try:
        return call.supervisor().list(), True
    except SupervisorError:
        pass
    found = []
    for record in load_records(call.home):
        process = find(record.pid) if record.pid is not None else None
        if process is not None and process.started == record.started:
            found.append(ChildState(agent=record.agent, state="up", pid=record.pid, port=record.port))
    return found, False
