"""`project_log.md`: shared by all agents, appended to by code, one keyed line per entry, whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

from protocols.runs import one_line

_TAIL = 512 * 1024
"""Bytes from the end that are searched for a key: a replay comes soon after."""
_LOCK_SECONDS = 10.0


class ProjectLog:
    """Appends to the cluster's project log. Blocking: call in a thread."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path = path
        self._lock = lock

    def append(self, key: str, agent: str, text: str, *, at: float | None = None) -> bool:
        """Write one line, once for a key; False if it already stood there. Raises OSError."""
        from filelock import FileLock  # 25 ms that a start need not pay

        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at if at is not None else time.time()))
        line = f"- {stamp} UTC | {agent} | {one_line(text, 600)} | {key}\n".encode()
        self._lock.parent.mkdir(exist_ok=True)
        with FileLock(self._lock, timeout=_LOCK_SECONDS):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                size = os.fstat(fd).st_size
                tail = os.pread(fd, min(size, _TAIL), max(0, size - _TAIL))
                if f"| {key}\n".encode() in tail:
                    return False
                os.write(fd, line if not tail or tail.endswith(b"\n") else b"\n" + line)
                os.fsync(fd)
            finally:
                os.close(fd)
        return True
