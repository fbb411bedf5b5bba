"""The last known statuses, kept in the home so that the next console has rows at its first paint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from protocols.status import AgentStatus
from protocols.text import printable_json
from runtime.home import Home, write_atomic

NAME = "console-snapshot.json"


def load(home: Home) -> list[AgentStatus]:
    """The statuses of the last console; none if there are none or they cannot be read."""
    try:
        raw = (home.run / NAME).read_bytes()
        return msgspec.json.decode(printable_json(raw), type=list[AgentStatus])
    except (OSError, msgspec.DecodeError):
        return []


def save(home: Home, statuses: Iterable[AgentStatus]) -> None:
    """Keep them; a home that cannot be written to has no snapshot, which harms nobody."""
    with contextlib.suppress(OSError):
        home.run.mkdir(mode=0o700, exist_ok=True)
        write_atomic(home.run / NAME, msgspec.json.encode(list(statuses)), mode=0o600)
