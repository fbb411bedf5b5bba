"""An agent's state as one word with its glyph, made here for `atomizer status` and the console alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocols.status import AgentStatus

GLYPHS = {
    "up": "+",
    "busy": "*",
    "late": "!",
    "down": "x",
    "stale": "?",
    "paused": "=",
    "degraded": "~",
    "draining": "v",
    "starting": "^",
    "denied": "#",
    "stopped": "o",
    "off": "-",
}
"""Every word, in the order of the help page."""


def heard(status: AgentStatus) -> str:
    """The word for an agent that answers: its own, but for what it does not count as its state."""
    word = status.state if status.state in GLYPHS else "up"
    troubled = status.heartbeat.state == "overdue" or status.budget.state == "over" or not status.model.usable
    return "late" if troubled and word in ("up", "busy") else word


def unheard(process: str, enabled: bool) -> str:
    """The word for one that does not answer. `process` is the supervisor's word for it; empty: it is not known."""
    if process in ("", "stopped") and not enabled:
        return "off"
    words = {"up": "stale", "starting": "starting", "stopping": "draining", "stopped": "stopped"}
    return words.get(process, "down")
