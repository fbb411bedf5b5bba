"""Liveness and readiness, both open: `GET /health` and `GET /ready`."""

from __future__ import annotations

import msgspec

from protocols.hooks import Wire

SERVICE = "atomizer-gateway"


class Health(Wire):
    """This process, this agent: a probe that any server's 200 would satisfy proves nothing."""

    ok: bool
    status: str
    service: str
    agent: str
    instance: str
    """Fresh for every start of the process."""
    version: str


class Ready(Wire):
    ready: bool
    failing: list[str] = msgspec.field(default_factory=list)
    """One plain sentence for each thing that fails; empty when ready."""
