"""A program on a terminal of our own, for measuring the console as its user runs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path


class Terminal:
    """The console of a home, on a pty of the given size."""

    def __init__(self, home: Path, columns: int = 120, rows: int = 40) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
            environment.pop("SSH_CONNECTION", None)
            os.execve(sys.executable, [sys.executable, "-P", "-m", "console", "--home", str(home)], environment)
        self.bytes = 0
        self._recent = b""

    def read_for(self, seconds: float, until: bytes | None = None) -> bool:
        """Read what it paints for so long; True as soon as `until` was among it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._fd], [], [], left)
            if not ready:
                break
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return False
            self.bytes += len(data)
            self._recent = (self._recent + data)[-400_000:]
            if until is not None and until in self._recent:
                return True
        return False

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def forget(self) -> None:
        self._recent = b""

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def console(home: Path, columns: int = 120, rows: int = 40) -> Iterator[Terminal]:
    """A running console; ended by pid."""
    terminal = Terminal(home, columns, rows)
    try:
        yield terminal
    finally:
        terminal.close()
