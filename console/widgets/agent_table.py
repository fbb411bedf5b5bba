"""The fleet: one line per agent, repainted only where something changed."""

from __future__ import annotations

from collections.abc import Iterable

from console.filters import Filter
from console.rows import AgentState, Link
from console.show import STATE_STYLES, URGENCY, Segments, age, short_model, span
from console.widgets.lines import LineList, cut
from protocols.states import GLYPHS

SORTS = ("port", "state", "name", "cost")

Column = tuple[str, int]
_WIDE: tuple[Column, ...] = (("state", 11), ("agent", 15), ("port", 6), ("model", 19), ("beat", 8), ("q", 3))
_NARROW: tuple[Column, ...] = (("state", 11), ("agent", 15), ("port", 6), ("model", 18), ("beat", 8), ("q", 3))
_TINY: tuple[Column, ...] = (("state", 11), ("agent", 15), ("port", 6), ("beat", 8), ("q", 3))
MODEL_FROM, WIDE_FROM = 66, 96
"""Widths from which the model fits, and from which columns are generous."""


class AgentTable(LineList):
    """Rows of agents. Marks, sort order and filter are its own; the agents are the store's."""

    heads = 2
    empty = "no agent passes the filter; esc clears it"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.filter = Filter()
        self.sort = SORTS[0]
        self.marks: set[str] = set()
        self.range_from: str | None = None
        self._agents: list[AgentState] = []
        self._head: tuple[Segments, ...] = ((), ())

    def head(self, place: int) -> Segments:
        return self._head[place]

    def columns(self) -> tuple[Column, ...]:
        width = self.room
        return _WIDE if width >= WIDE_FROM else _NARROW if width >= MODEL_FROM else _TINY

    def show(self, agents: Iterable[AgentState], now: float) -> None:
        """Show these agents as of `now`; what passes the filter, in order."""
        everyone = list(agents)
        self.marks &= {agent.name for agent in everyone}
        self._agents = [a for a in everyone if self.filter.matches(row_text(a), a.word)]
        self._agents.sort(key=self._order)
        columns = self.columns()
        rest = max(0, self.room - 3 - sum(width for _, width in columns))
        self.set_rows([(a.name, self._row(a, now, columns, rest)) for a in self._agents])
        head = self._heads(columns, len(everyone))
        if head != self._head:
            self._head = head
            self.repaint((), heads=True)

    def toggle(self, name: str) -> None:
        self.marks ^= {name}

    def between(self, name: str, other: str) -> set[str]:
        """The agents shown from one to the other, both with it."""
        first, last = sorted((self.keys.index(name), self.keys.index(other)))
        return set(self.keys[first : last + 1])

    def _order(self, agent: AgentState) -> tuple[object, ...]:
        shown = not agent.enabled and not agent.live
        if self.sort == "state":
            return (URGENCY[agent.word], agent.port)
        if self.sort == "name":
            return (shown, agent.name)
        if self.sort == "cost":
            cost = agent.status.cost_today_usd if agent.status else None
            return (shown, -(cost or 0.0), agent.port)
        return (shown, agent.port)

    def _heads(self, columns: tuple[Column, ...], total: int) -> tuple[Segments, ...]:
        filtered = f"{len(self._agents)} of {total}  filter: {self.filter.source}" if self.filter else f"{total}"
        notes = [f"sort: {self.sort}"]
        if self.marks:
            notes.append(f"marked: {len(self.marks)}")
        if self.range_from:
            notes.append("range: move, then V again")
        if self.filter.problem:
            notes.append(self.filter.problem)
        title = f" AGENTS {filtered}  "
        names = "   " + "".join(cut(name, width, "") for name, width in columns) + "task"
        return (
            ((title, "head"), ("  ".join(notes), "warn" if self.marks or self.range_from else "dim")),
            ((names, "dim"),),
        )

    def _row(self, agent: AgentState, now: float, columns: tuple[Column, ...], rest: int) -> Segments:
        word = agent.word
        mark = ("m", "key") if agent.name in self.marks else (" ", "")
        cells: list[tuple[str, str]] = [mark, (" ", "")]
        faint = "dim" if not agent.live else ""
        status = agent.status
        for name, width in columns:
            if name == "state":
                cells.append((cut(f"{GLYPHS[word]} {word}", width), STATE_STYLES[word]))
            elif name == "agent":
                cells.append((cut(agent.name, width - 1, self.app.dots) + " ", faint or "bold"))
            elif name == "port":
                cells.append((cut(str(agent.port), width), faint))
            elif name == "model":
                text, style = _model(agent)
                cells.append((cut(text, width - 1, self.app.dots) + " ", faint or style))
            elif name == "beat" and not agent.live:
                rest += width + columns[-1][1]
                break
            elif name == "beat":
                cells.append((cut(_beat(agent, now), width), faint))
            elif name == "q":
                waiting = status.queue.queued + status.queue.waiting if status else 0
                cells.append((cut(str(waiting), width), faint))
        if rest > 4:
            text, style = _task(agent, now)
            cells.append((cut(text, rest, self.app.dots), style))
        return tuple(cells)


def row_text(agent: AgentState) -> str:
    """What a filter's plain words search."""
    status = agent.status
    parts = [agent.name, str(agent.port), agent.word, agent.reason]
    if status:
        parts += [status.title, status.model.active, *(run.task for run in status.current)]
    return " ".join(parts)


def _model(agent: AgentState) -> tuple[str, str]:
    if agent.status is None:
        return "-", "dim"
    model = agent.status.model
    return short_model(model.active) + ("" if model.usable else " !"), "" if model.usable else "bad"


def _beat(agent: AgentState, now: float) -> str:
    if agent.status is None:
        return "-"
    beat = agent.status.heartbeat
    if beat.state == "beating":
        return "beating"
    if not beat.enabled:
        return "off"
    if beat.state == "paused":
        return "paused"
    return age(now - beat.last_at) if beat.last_at else "never"


def _task(agent: AgentState, now: float) -> tuple[str, str]:
    """What it does now, or what is wrong."""
    if not agent.live:
        if agent.word == "off":
            return "switched off", "dim"
        if agent.word in ("stopped", "starting", "draining"):
            return agent.detail or agent.word, "dim"
        text = f"{agent.word} {span(now - agent.since, coarse=True)}: " if agent.link is Link.DOWN else ""
        supervisor = f" ({agent.supervised}: {agent.detail})" if agent.detail else ""
        certain = agent.link in (Link.DOWN, Link.DENIED)
        return text + (agent.reason or "not heard yet") + supervisor, "bad" if certain else "dim"
    status = agent.status
    if status is None:
        return "", ""
    if status.current:
        run = status.current[0]
        more = f" (+{len(status.current) - 1})" if len(status.current) > 1 else ""
        return run.task + more, ""
    if status.failing:
        return status.failing[0], "bad"
    if status.budget.state == "over":
        return f"over budget: {status.budget.reason}", "warn"
    if status.heartbeat.state in ("overdue", "paused"):
        return status.heartbeat.reason or f"heartbeat {status.heartbeat.state}", "warn"
    return status.config_error or "", "warn"
