"""Pairings: people whose direct messages an agent answers because somebody approved them, as `GET /pairings` shows."""

from __future__ import annotations

from protocols.hooks import Wire


class Pairing(Wire):
    """One person."""

    target: str
    """Who: `discord:user:<id>`."""
    name: str
    """As they called themselves when they were approved."""
    approved_by: str
    """`operator`, or a person's target."""
    approved_at: float
    """Unix seconds."""


class PairingList(Wire):
    pairings: list[Pairing]
