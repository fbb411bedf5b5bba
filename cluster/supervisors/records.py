"""What a supervisor remembers beyond its own death: the desired state, and one record for each child."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import msgspec

from cluster.supervisors.supervisor import State
from runtime.home import Home, write_atomic

T = TypeVar("T")


class Desired(msgspec.Struct, kw_only=True):
    """run/desired.json: who shall run. Empty: the cluster is meant to be down."""

    agents: list[str] = msgspec.field(default_factory=list)
    program: list[str] = msgspec.field(default_factory=list)
    """Another program in the gateway's place, given the same `--home DIR --agent NAME`; for tests."""


class ChildRecord(msgspec.Struct, kw_only=True):
    """run/agents/<agent>.json: the process of one agent, so that the next supervisor knows it again."""

    agent: str
    port: int
    state: State = "stopped"
    pid: int | None = None
    started: int | None = None
    """Start time of `pid` in clock ticks since boot."""
    started_at: float = 0.0
    """Unix seconds."""
    since: float = 0.0
    restarts: int = 0
    detail: str = ""


def load_desired(home: Home) -> Desired:
    """The desired state; nobody, if there is none or it cannot be read."""
    return _load(home.run / "desired.json", Desired) or Desired()


def save_desired(home: Home, desired: Desired) -> None:
    """Raises OSError; that nobody shall run can be recorded even on a full disk."""
    if not (desired.agents or desired.program):
        (home.run / "desired.json").unlink(missing_ok=True)
        return
    home.run.mkdir(mode=0o700, exist_ok=True)
    write_atomic(home.run / "desired.json", msgspec.json.encode(desired), mode=0o600)


def load_record(home: Home, agent: str) -> ChildRecord | None:
    record = _load(_path(home, agent), ChildRecord)
    return record if record is not None and record.agent == agent else None


def load_records(home: Home) -> list[ChildRecord]:
    """Every child's record, by name."""
    found = (_load(path, ChildRecord) for path in sorted((home.run / "agents").glob("*.json")))
    return [record for record in found if record is not None]


def save_record(home: Home, record: ChildRecord) -> None:
    """Raises OSError."""
    path = _path(home, record.agent)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomic(path, msgspec.json.encode(record), mode=0o600)


def drop_record(home: Home, agent: str) -> None:
    with contextlib.suppress(OSError):
        _path(home, agent).unlink()


def _path(home: Home, agent: str) -> Path:
    return home.run / "agents" / f"{agent}.json"


def _load(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
