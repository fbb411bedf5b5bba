"""Changing an agent's overrides: gateway and command line both do, so each change is read, made and written alone."""

from __future__ import annotations

from typing import Any

import msgspec

from protocols.errors import AtomizerError
from runtime.config import Overrides, load_overrides, save_overrides
from runtime.home import Home

LOCK_SECONDS = 2.0
"""Others hold the lock for milliseconds."""


class OverridesBusy(AtomizerError):
    """Another process keeps the lock."""


def change_overrides(home: Home, name: str, **changed: Any) -> Overrides:
    """Set these fields of one agent's overrides and keep the others as they then are; all of them as they stand now.

    Nothing another process writes meanwhile is lost. Blocks; raises ConfigError, OverridesBusy or OSError.
    """
    from filelock import FileLock, Timeout  # 25 ms that a start need not pay

    home.run.mkdir(exist_ok=True)
    lock = FileLock(home.run / f"overrides-{name}.lock", timeout=LOCK_SECONDS, poll_interval=0.01)
    try:
        with lock:
            overrides = msgspec.structs.replace(load_overrides(home, name), **changed)
            save_overrides(home, name, overrides)
            return overrides
    except Timeout:
        raise OverridesBusy(
            f"{home.overrides_toml(name)}: another process has been changing it for {LOCK_SECONDS:.0f} s; try again"
        ) from None
