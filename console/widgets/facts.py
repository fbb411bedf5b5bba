"""An agent written out as lines of text: for the detail pane and the detail screen; and a run as one row."""

from __future__ import annotations

from rich.cells import cell_len

from console.rows import AgentState
from console.show import (
    CHANNEL_GLYPHS,
    CHANNEL_STYLES,
    RUN_GLYPHS,
    RUN_STYLES,
    STATE_STYLES,
    Segments,
    age,
    clock,
    money,
    plural,
    size,
    span,
    tokens,
)
from console.widgets.lines import cut, wrap
from protocols.runs import RunSummary
from protocols.states import GLYPHS
from protocols.status import AgentStatus, McpServerStatus

LABEL = 13


def field(label: str, text: str, width: int, style: str = "") -> list[Segments]:
    """`label  text`, the text wrapped under itself."""
    lines = wrap(text, width - LABEL, style)
    return [
        ((cut(" " + label if place == 0 else "", LABEL - 1) + " ", "dim"), *line)
        for place, line in enumerate(lines or [()])
    ]


def heading(text: str, width: int) -> list[Segments]:
    return [(), ((" " + text, "head"),)]


def agent_lines(
    agent: AgentState,
    runs: list[RunSummary],
    deltas: dict[str, str],
    now: float,
    width: int,
    *,
    full: bool,
    read_only: bool = False,
) -> list[Segments]:
    """One agent. `full` adds what the pane beside the table has no room for; `read_only` tells no key that writes."""
    word = agent.word
    status = agent.status
    title = status.title if status else agent.name
    lines: list[Segments] = [
        ((f" {title} ", "head"), (f"{GLYPHS[word]} {word}", STATE_STYLES[word]), (f"  :{agent.port}", "dim"))
    ]
    if not agent.live:
        lines += _absence(agent, now, width, read_only)
    if status is None:
        return lines
    if agent.live:
        uptime = span(now - status.started_at, coarse=True)
        lines += field("process", f"pid {status.pid}, up {uptime}, {size(status.rss_bytes)}", width)
    lines += _model(status, width)
    lines += _heartbeat(status, now, width)
    spent = tokens(status.usage_today.input_tokens + status.usage_today.output_tokens)
    lines += field(
        "today", f"{plural(status.runs_today, 'run')}, {spent} tokens, {money(status.cost_today_usd)}", width
    )
    # What one that was stopped said while it drained is no news: it does nothing, as it was told to.
    for problem in status.failing if agent.word != "stopped" else ():
        lines += field("failing", problem, width, "bad")
    if status.config_error:
        lines += field("config", f"reload refused: {status.config_error}", width, "bad")
    if status.last_error:
        lines += field("last error", status.last_error, width, "warn")
    lines += _channels(status, now, width, full)
    lines += _reach(status, width, full)
    if status.dead_letters:
        lines += field("undelivered", plural(status.dead_letters, "dead letter"), width, "warn")
    lines += heading("RUNS" + ("" if runs else "  none yet" if read_only else "  none yet; `d` gives it one"), width)
    lines += _runs(runs, deltas, now, width, 12 if full else 4, 30 if full else 12)
    if full:
        lines += _more(status, width)
    return lines


def _absence(agent: AgentState, now: float, width: int, read_only: bool) -> list[Segments]:
    if agent.word == "off":
        then = "" if read_only else ", then `s` starts it"
        return field("", f"switched off; `atomizer agent enable {agent.name}` switches it on{then}", width, "dim")
    if agent.word == "stopped":
        starts = f"`atomizer start {agent.name}`" if read_only else "`s`"
        return field("", f"stopped by the operator; {starts} starts it", width, "dim")
    lines = []
    if agent.reason:
        when = f"for {span(now - agent.since, coarse=True)}: " if agent.since else ""
        lines += field(agent.word, when + agent.reason, width, "bad")
    if agent.supervised:
        detail = f": {agent.detail}" if agent.detail else ""
        lines += field("supervisor", agent.supervised + detail, width, "warn")
    if agent.status:
        lines += field("", f"below is what it last said, at {clock(agent.status.now)}", width, "dim")
    return lines


def _model(status: AgentStatus, width: int) -> list[Segments]:
    model = status.model
    note = "" if model.origin == "configured" else f" ({model.origin})"
    lines = field("model", model.active + note, width, "" if model.usable else "bad")
    if model.reason:
        lines += field("", model.reason, width, "dim" if model.usable else "bad")
    if model.retires:
        after = f", then {model.successor}" if model.successor else ""
        lines += field("retires", model.retires + after, width, "warn")
    return lines


def _heartbeat(status: AgentStatus, now: float, width: int) -> list[Segments]:
    beat = status.heartbeat
    if not beat.enabled:
        return field("heartbeat", "off", width)
    text = f"{beat.state}, every {span(beat.every_seconds)}"
    if beat.last_at:
        ago = age(now - beat.last_at)
        text += f", last {ago if ago == 'now' else f'{ago} ago'}"
        text += f" ({beat.last_outcome})" if beat.last_outcome else ""
    if beat.reason:
        text += f": {beat.reason}"
    return field("heartbeat", text, width, "warn" if beat.state in ("overdue", "paused") else "")


def _channels(status: AgentStatus, now: float, width: int, full: bool) -> list[Segments]:
    """Where people talk to it; what is wrong there is among what fails. `full` shows those that are off too."""
    lines: list[Segments] = []
    for channel in status.channels:
        if channel.state == "off" and not full:
            continue
        text = f"{CHANNEL_GLYPHS.get(channel.state, '?')} {channel.state}"
        if channel.state == "ready":
            text += f" as {channel.name}, {plural(channel.guilds, 'server')}"
        elif channel.since and channel.state != "off":
            text += f" for {span(now - channel.since, coarse=True)}"
        if channel.next_at and channel.next_at > now:
            text += f", next try in {span(channel.next_at - now, coarse=True)}"
        elif channel.state in ("auth_failed", "intents_refused"):
            text += ", waits for you"
        lines += field(channel.provider, text, width, CHANNEL_STYLES.get(channel.state, ""))
        if channel.detail and not any(channel.detail in problem for problem in status.failing):
            lines += field("", channel.detail, width, "dim" if channel.state == "off" else "warn")
    return lines


def _reach(status: AgentStatus, width: int, full: bool) -> list[Segments]:
    """MCP servers and skills: a line each, longer only for what does not work. `full` adds the names."""
    lines: list[Segments] = []
    down = [server for server in status.mcp if server.state != "ready"]
    if status.mcp:
        shown = [f"{server.name} {_tools(server, status.tools)}" for server in status.mcp if server.state == "ready"]
        lines += field("mcp", ", ".join([*shown, *(f"{server.name} {server.state}" for server in down)]), width)
    for server in down:
        if server.reason:
            reason = f"{server.name}: {server.reason}"
            lines += field("", reason if full else cut(reason, width - LABEL), width, "bad")
    missing = [skill for skill in status.skills if not skill.available]
    usable = [skill.name for skill in status.skills if skill.available]
    if status.skills:
        text = f"{len(usable)}{f', {len(missing)} unusable' if missing else ''}: {', '.join(usable) or 'none'}"
        lines += field("skills", text if full else cut(text, min(width - LABEL, cell_len(text))), width)
    if full:
        for skill in missing:
            lines += field("", f"{skill.name}: {skill.reason}", width, "warn")
    return lines


def _tools(server: McpServerStatus, tools: list[str]) -> str:
    """How many of a server's tools the agent has."""
    has = sum(name.startswith(f"mcp__{server.name}__") for name in tools)
    return plural(has, "tool") if has == len(server.tools) else f"{has} of {plural(len(server.tools), 'tool')}"


def _runs(
    runs: list[RunSummary], deltas: dict[str, str], now: float, width: int, limit: int, room: int
) -> list[Segments]:
    lines = [run_row(run, now, width, agent=False) for run in runs[:limit]]
    if runs:
        run = runs[0]
        text = deltas.get(run.run_id) or run.reason or run.preview
        if text:
            lines.append(())
            shown = text[:1500] if run.state.ended else text[-1500:]
            answer = wrap(shown, width - 2, "", " ")
            lines += answer[:room] if run.state.ended else answer[-room:]
    return lines


def run_row(run: RunSummary, now: float, width: int, agent: bool = True, dots: str = "…") -> Segments:
    """One run on one line."""
    cells: list[tuple[str, str]] = [
        (" " + cut(f"{RUN_GLYPHS[run.state]} {run.state.value}", 12), RUN_STYLES[run.state])
    ]
    if agent:
        cells.append((cut(run.agent, 15), "bold"))
    cells.append((cut(age(now - run.created_at), 5), "dim"))
    if agent and width >= 100:
        cells.append((cut(run.source.value, 10), "dim"))
        cells.append((cut(run.caller, 11), "dim"))
    used = sum(len(text) for text, _ in cells)
    cells.append((cut(run.task, max(0, width - used), dots), ""))
    return tuple(cells)


def _more(status: AgentStatus, width: int) -> list[Segments]:
    lines = heading("MORE", width)
    reach = ", ".join(status.can_delegate_to) or "nobody"
    lines += field("delegates", f"to {reach}", width)
    lines += field("fallbacks", ", ".join(status.model.fallbacks) or "none", width)
    lines += field("tools", ", ".join(status.tools) or "none", width)
    for file in status.prompt:
        state = (
            "missing" if file.missing else f"about {tokens(file.tokens)} tokens" + (" (cut)" if file.truncated else "")
        )
        lines += field("prompt", f"{file.name}: {state}", width, "warn" if file.missing or file.truncated else "")
    lines += field("sessions", str(status.sessions), width)
    lines += field("ledger", size(status.ledger_bytes), width)
    lines += field("version", f"{status.version}, instance {status.instance}", width)
    return lines
