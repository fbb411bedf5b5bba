"""`atomizer status`: every agent in one table, asked all at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from cluster.cli.context import Invocation, pass_invocation, shared_options
from protocols.states import GLYPHS, heard, unheard

if TYPE_CHECKING:
    from cluster.supervisors.supervisor import ChildState
    from protocols.ask import Ask
    from protocols.errors import AtomizerError
    from protocols.status import AgentStatus
    from runtime.config import AgentSpec

ASK_SECONDS = 2.0
"""A gateway that does not answer for so long is shown as stale."""
SETTLE_SECONDS = 10.0
"""How long to wait for agents that a revived supervisor is starting again."""


class Row(msgspec.Struct, kw_only=True):
    """One agent, as the table and --json show it."""

    agent: str
    state: str
    """A word of `protocols.states.GLYPHS`."""
    port: int
    enabled: bool
    pid: int | None = None
    model: str = ""
    heartbeat: str = ""
    queue: str = ""
    task: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    supervisor: ChildState | None = None
    status: AgentStatus | None = None


@click.command()
@shared_options
@pass_invocation
def status(call: Invocation) -> None:
    """Show every agent: state, port, model, heartbeat, queue, current task.

    States, as in the console: + up, * busy, ! late (heartbeat, budget or model), ~ degraded, = paused, v draining,
    ^ starting, o stopped, x down, ? stale (no answer), # denied, - off.

    \b
    Examples:
      atomizer status
      atomizer status --json | jq '.agents[] | {agent, state}'
    """
    from cluster.cli.unconfigured import problem_of, show_known

    if problem := problem_of(call):
        show_known(call, problem)
    show_status(call)


def show_status(call: Invocation) -> None:
    """Print the table, or the document."""
    rows, supervised = collect(call)
    cluster = call.cluster
    profile = cluster.file.models.profile
    document = {
        "ok": True,
        "name": cluster.name,
        "home": str(cluster.home.root),
        "profile": profile,
        "supervisor": supervised,
        "agents": rows,
    }

    def text() -> str:
        lines = [f"{cluster.name}: {summary(rows)}; profile {profile}"]
        if profile == "offline":
            lines[0] += " (answers come from the workspace files; to leave it: atomizer secrets set anthropic)"
        if not supervised:
            lines.append("the cluster is not running; `atomizer up` starts it")
        return "\n".join([*lines, *table(rows)])

    call.answer(document, text)


def collect(call: Invocation) -> tuple[list[Row], bool]:
    """A row for each agent, and whether a supervisor answers."""
    from cluster.supervisors.records import load_desired
    from cluster.supervisors.supervisor import SupervisorError

    agents = list(call.cluster.agents.values())
    children: dict[str, ChildState] = {}
    supervised = True
    client = call.supervisor()
    try:
        states = client.list()
        if call.revived:
            until = time.monotonic() + SETTLE_SECONDS
            while any(c.desired == "up" and c.state == "starting" for c in states) and time.monotonic() < until:
                time.sleep(0.1)
                states = client.list()
        children = {child.agent: child for child in states}
        asked = [child.agent for child in states if child.pid is not None]
    except SupervisorError:
        supervised = False
        # Whoever still runs goes on without a supervisor.
        asked = load_desired(call.home).agents
    answers = ask_all(
        [spec.name for spec in agents if spec.name in asked], lambda name, seconds: call.ask(name, timeout=seconds)
    )
    return [row(spec, children.get(spec.name), answers.get(spec.name)) for spec in agents], supervised


def ask_all(names: list[str], client: Callable[[str, float], Ask]) -> dict[str, AgentStatus | AtomizerError]:
    """The status of each, or why there is none; all at once, so that one slow gateway delays no other. `client(name,
    seconds)`: of its gateway, with that much patience."""
    import threading

    answers: dict[str, AgentStatus | AtomizerError] = {}

    def ask(name: str) -> None:
        answers[name] = _ask(client(name, ASK_SECONDS))

    if names:
        client(names[0], ASK_SECONDS)  # imports what all of them need, once and before the threads
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _ask(client: Ask) -> AgentStatus | AtomizerError:
    from protocols.errors import AtomizerError
    from protocols.status import AgentStatus

    try:
        return client.get("/status", AgentStatus)
    except AtomizerError as error:
        return error


def row(spec: AgentSpec, child: ChildState | None, answer: AgentStatus | AtomizerError | None) -> Row:
    """What the supervisor and the gateway say about one agent, as one row."""
    from protocols.errors import ProtocolError

    process = child.state if child is not None else ""
    made = Row(agent=spec.name, state=unheard(process, spec.enabled), port=spec.port, enabled=spec.enabled)
    if child is not None:
        made.supervisor, made.pid = child, child.pid
        if child.detail:
            made.notes.append(child.detail)
        if child.pid is not None and child.port not in (None, spec.port):
            made.notes.append(f"still on port {child.port}; `atomizer restart {spec.name}` moves it to {spec.port}")
        if child.state not in ("up", "starting", "stopping", "stopped"):
            made.notes.append(_mend(child))
        if made.state == "stopped" and not child.detail:
            made.notes.append(f"`atomizer start {spec.name}` starts it")
    if process not in ("", "up"):
        return made
    if isinstance(answer, Exception) or answer is None:
        made.state = "denied" if isinstance(answer, ProtocolError) else made.state
        if made.state in ("denied", "stale"):
            made.notes.append(str(answer or "not asked"))
        return made
    if child is None:
        made.notes.append("runs without a supervisor")
    _fill(made, answer)
    return made


def _mend(child: ChildState) -> str:
    if child.state == "crash-loop":
        return f"`atomizer logs {child.agent} --console` shows why; `atomizer start {child.agent}` tries again"
    if child.state == "config-error":
        return f"mend it, then `atomizer start {child.agent}`"
    if child.retry_at is None:
        return "trying again now"
    return f"next try in {max(0.0, child.retry_at - time.time()):.0f} s"


def _fill(made: Row, answer: AgentStatus) -> None:
    made.status = answer
    model, beat = answer.model, answer.heartbeat
    made.model = model.active
    made.heartbeat = (
        "off" if not beat.enabled else f"{ago(answer.now - beat.last_at)} ago" if beat.last_at else "none yet"
    )
    made.queue = f"{answer.queue.queued} q {answer.queue.running} r" + (
        f" {answer.queue.waiting} w" if answer.queue.waiting else ""
    )
    made.task = answer.current[0].task if answer.current else ""
    made.state = heard(answer)
    if beat.state in ("overdue", "paused"):
        made.notes.append(f"heartbeat {beat.state}" + (f": {beat.reason}" if beat.reason else ""))
    if model.reason:
        made.notes.append(model.reason)
    elif model.retires:
        made.notes.append(
            f"{model.configured} ends on {model.retires}" + (f", then {model.successor}" if model.successor else "")
        )
    if answer.budget.state == "over":
        waits = f"; {answer.budget.waiting} run(s) wait" if answer.budget.waiting else ""
        made.notes.append(f"over budget: {answer.budget.reason}{waits}")
    if answer.config_error:
        made.notes.append(answer.config_error)
    made.notes.extend(text for text in answer.failing if text not in made.notes and text != model.reason)
    if answer.dead_letters:
        made.notes.append(f"{answer.dead_letters} dead letter{'s' * (answer.dead_letters != 1)}")


def ago(seconds: float) -> str:
    """A span of time in at most four characters: `42s`, `7m`, `3h`, `12d`."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def summary(rows: list[Row]) -> str:
    """`8 agents: 7 up, 1 down` without those that are off."""
    from cluster.cli.lifecycle import count_agents

    shown = [made for made in rows if made.state != "off"]
    counts = [(word, sum(made.state == word for made in shown)) for word in GLYPHS]
    return f"{count_agents(len(shown))}" + "".join(f", {count} {word}" for word, count in counts if count)


def table(rows: list[Row]) -> list[str]:
    """Aligned lines: a heading, a row for each agent that is not off, its notes beneath."""
    shown = [made for made in rows if made.state != "off"]
    cells = [["", "AGENT", "PORT", "MODEL", "BEAT", "QUEUE", "TASK"]]
    for made in shown:
        state = f"{GLYPHS[made.state]} {made.state}"
        cells.append([state, made.agent, str(made.port), made.model, made.heartbeat, made.queue, made.task])
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    room = _width() - sum(widths) - 12
    lines = []
    for number, line in enumerate(cells):
        task = line[6] if room <= 0 or len(line[6]) <= room else line[6][: max(1, room - 1)] + "~"
        lines.append(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line[:6], widths, strict=True)), task]).rstrip()
        )
        if number:
            lines.extend(f"           {note}" for note in shown[number - 1].notes if note)
    hidden = [made.agent for made in rows if made.state == "off"]
    if hidden:
        lines.append(f"- off: {', '.join(hidden)}")
    return lines


def _width() -> int:
    if not sys.stdout.isatty():
        return 10_000
    import shutil

    return shutil.get_terminal_size().columns
