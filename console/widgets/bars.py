"""The three single lines: what the cluster is like (top), what was just done, and which keys there are (bottom)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.strip import Strip
from textual.widget import Widget

from console.actions import Action, key_name
from console.rows import Totals, Write, WriteState
from console.show import Segments, clock, money, span
from console.widgets.lines import cut, draw
from protocols.approvals import Approval

if TYPE_CHECKING:
    from console.app import ConsoleApp

_WRITE_STYLES = {
    WriteState.SENT: "busy",
    WriteState.ACCEPTED: "busy",
    WriteState.DONE: "ok",
    WriteState.REFUSED: "bad",
    WriteState.UNKNOWN: "warn",
}
_ORDER = (
    "up",
    "busy",
    "late",
    "down",
    "denied",
    "degraded",
    "paused",
    "draining",
    "starting",
    "stale",
    "stopped",
    "off",
)
_LOUD = {"late": "warn", "down": "bad", "denied": "bad", "degraded": "warn", "paused": "warn"}


_FAILED = (WriteState.REFUSED, WriteState.UNKNOWN)
_WRITES_SHOWN = 3
_AT_ONCE = 2.0
"""Seconds between the first and the last of what was sent to several agents in one go."""


class Bar(Widget):
    """One line of segments, painted only when they differ."""

    app: ConsoleApp

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.segments: Segments = ()
        self.painted = 0

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.segments)

    def set(self, segments: Segments) -> None:
        if segments != self.segments:
            self.segments = segments
            self.refresh()

    def render_line(self, y: int) -> Strip:
        self.painted += 1
        base, palette = self.rich_style, self.app.palette
        if y:
            return Strip.blank(self.size.width, base)
        return draw(self.segments, self.size.width, base, palette)


def status_segments(
    totals: Totals, host: str, width: int, now: float, read_only: bool, supervisor: bool | None
) -> Segments:
    """The top line; at fewer than 100 columns the short form."""
    short = width < 100
    gap = "" if short else " "
    left: list[tuple[str, str]] = [(" atomizer", "head"), (f" @{host} ", "dim")]
    if read_only:
        left.append(("read-only ", "warn"))
    if supervisor is False:
        left.append(("no supervisor ", "bad"))
    left.append((f"{totals.agents}: " if short else f" {totals.agents} agents: ", ""))
    for word in _ORDER:
        count = totals.words.get(word, 0)
        if count:
            left.append((f"{count}{gap}{word} ", _LOUD.get(word, "")))
    left.append(("| ", "dim"))
    left.append((f"gates {totals.gates} ", "warn" if totals.gates else ""))
    left.append(("| ", "dim"))
    if short:
        left.append((f"run {totals.running + totals.waiting} ", ""))
    else:
        tasks = f"tasks {totals.running} run"
        tasks += f" {totals.waiting} wait" if totals.waiting else ""
        tasks += f" {totals.queued} queued" if totals.queued else ""
        left.append((tasks + " ", ""))
    left.append(("| ", "dim"))
    left.append((f"{money(totals.cost_usd)} " if short else f"{money(totals.cost_usd)} today ", ""))
    if totals.profile in ("offline", "mixed"):
        left.append(("| ", "dim"))
        left.append((totals.profile + " ", "warn"))
    right = clock(now, seconds=False) + " "
    free = width - sum(cell_len(text) for text, _ in left) - len(right)
    if free < 0:
        return tuple(left)
    return (*left, (" " * free, ""), (right, "dim"))


def write_segments(writes: list[Write], hint: str) -> Segments:
    """The line above the footer: the last write and what became of it, or a hint. What was sent to several agents at
    once is told in numbers."""
    if not writes:
        return ((" " + hint, "dim"),)
    parts: list[tuple[str, str]] = []
    for together in _together(writes)[:_WRITES_SHOWN]:
        write = together[0]
        if len(together) > 1:
            parts += [(f" {len(together)} agents ", "bold"), (f"{write.label}:", "dim")]
            for state in reversed(WriteState):
                names = sorted(w.agent for w in together if w.state is state)
                if names:
                    parts.append((f" {len(names)} {state.value}", _WRITE_STYLES[state]))
                    parts.append((f" ({', '.join(names)})" if state in _FAILED else "", "dim"))
            parts.append(("  ", ""))
            continue
        parts.append((f" {write.agent} ", "bold"))
        parts.append((f"{write.label}: ", "dim"))
        parts.append((write.state.value, _WRITE_STYLES[write.state]))
        parts.append((f" {write.detail}  " if write.detail else "  ", "dim"))
    return tuple(parts)


def _together(writes: list[Write]) -> list[list[Write]]:
    """The same thing, sent to several agents in one go, is one list."""
    groups: list[list[Write]] = []
    for write in writes:
        first = groups[-1][0] if groups else None
        agents = {w.agent for w in groups[-1]} if groups else set()
        if first and first.label == write.label and first.at - write.at < _AT_ONCE and write.agent not in agents:
            groups[-1].append(write)
        else:
            groups.append([write])
    return groups


def gate_segments(pending: list[Approval], now: float, dots: str, width: int) -> Segments:
    """The line between the agents and the log: the oldest question that waits for a human."""
    if not pending:
        return ()
    asked = pending[0]
    since = f" {span(now - asked.created_at, coarse=True)}"
    more = f"  +{len(pending) - 1} more" if len(pending) > 1 else ""
    keys = "  g answers "
    room = max(8, width - len(" GATE ") - len(asked.agent) - 2 - len(since) - len(more) - len(keys))
    question = cut(asked.question, min(room, cell_len(asked.question)), dots)
    return (
        (" GATE ", "hit"),
        (f" {asked.agent} ", "bold"),
        (question, "warn"),
        (since, "warn"),
        (more, "dim"),
        (keys, "key"),
    )


def footer_segments(actions: list[Action], width: int, gates: int) -> Segments:
    """Keys and labels, as many as fit; `? Help` is always among them."""
    shown: list[tuple[str, str]] = []
    last = [(" ?", "key"), (" Help ", "dim")]
    used = 8
    for action in actions:
        if action.id == "help":
            continue
        label = f"Gates({gates})" if action.id == "approvals" and gates else action.label
        key = key_name(action.keys[0])
        need = cell_len(key) + cell_len(label) + 3
        if used + need > width:
            continue
        used += need
        shown += [(f" {key}", "key"), (f" {label} ", "warn" if action.id == "approvals" and gates else "dim")]
    return (*shown, *last)
