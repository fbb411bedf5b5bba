"""Port families for tests, leased so that parallel workers and parallel runs never meet.

A lease is a file lock in the system's temporary folder, held for as long as the `Lease` lives: it ends with the
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType

FIRST, LAST, STEP = 20000, 32000, 4
BROWSER_OFFSET = 3


class Lease:
    """`count` port families, by their base ports. Close it, or use it as a context, to give them back."""

    def __init__(self, count: int = 1) -> None:
        self._locks: list[int] = []
        self.ports: list[int] = []
        folder = Path(tempfile.gettempdir()) / f"atomizer-test-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        bases = range(FIRST, LAST, STEP)
        start = random.randrange(len(bases))
        for base in [*bases[start:], *bases[:start]]:
            if len(self.ports) == count:
                return
            lock = os.open(folder / str(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            if not (_free(base) and _free(base + BROWSER_OFFSET)):
                os.close(lock)
                continue
            self._locks.append(lock)
            self.ports.append(base)
        if len(self.ports) < count:
            self.close()
            raise RuntimeError(f"no {count} free port families between {FIRST} and {LAST}")

    def close(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
