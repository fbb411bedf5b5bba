"""What the store holds and hands out: one agent's row, one write, the sums, the changes. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from protocols.approvals import Approval
from protocols.states import heard, unheard
from protocols.status import AgentStatus


class Link(StrEnum):
    """What is known about the way to a gateway."""

    UNKNOWN = "unknown"
    """Not asked yet: what is shown is the last snapshot."""
    LIVE = "live"
    LOST = "lost"
    """The stream has just ended; the next try decides."""
    DOWN = "down"
    DENIED = "denied"
    """Somebody answers, but refuses us or is not this agent."""


class AgentState(msgspec.Struct, frozen=True):
    """One row: where the agent is, how well we hear it, and the last it said."""

    name: str
    port: int
    host: str = "127.0.0.1"
    enabled: bool = True
    link: Link = Link.UNKNOWN
    since: float = 0.0
    """When the link was lost, Unix seconds; 0 while it is live."""
    reason: str = ""
    """Why it is not live."""
    status: AgentStatus | None = None
    """The last that was heard, however old."""
    supervised: str = ""
    """The supervisor's word for its process, if the link is not live."""
    detail: str = ""
    """What the supervisor says about it."""

    @property
    def live(self) -> bool:
        return self.link is Link.LIVE

    @property
    def word(self) -> str:
        """The state as one word of `protocols.states.GLYPHS`."""
        if self.live:
            return heard(self.status) if self.status else "up"
        word = unheard(self.supervised, self.enabled)
        if word != "off" and self.link is Link.DENIED:
            return "denied"
        unknown = word == "down" and not self.supervised and self.link is not Link.DOWN
        return "stale" if unknown else word


class WriteState(StrEnum):
    """What became of something the operator sent."""

    SENT = "sent"
    ACCEPTED = "accepted"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """No answer came: it may or may not have been carried out. Never repeated by itself."""


class Write(msgspec.Struct, frozen=True):
    """One write of this console."""

    key: str
    """Its idempotency key."""
    agent: str
    label: str
    state: WriteState
    at: float
    detail: str = ""
    run_id: str | None = None


class Changes(msgspec.Struct):
    """What changed since the last time it was asked."""

    agents: set[str]
    runs: set[str]
    steps: set[str]
    """Runs of which steps were written."""
    deltas: set[str]
    logs: bool
    approvals: bool
    asked: list[Approval]
    """Questions that were not known before."""
    writes: bool
    rows: bool
    """Agents were added or removed."""


class Totals(msgspec.Struct, frozen=True):
    """The line at the top of the screen."""

    agents: int
    words: dict[str, int]
    gates: int
    running: int
    waiting: int
    queued: int
    cost_usd: float | None
    profile: str
    """`offline`, `live`, `mixed` or empty."""
