"""Processes as the kernel shows them: who they are, who they belong to, and how to end them for certain.

A pid alone proves nothing, since pids are reused; a pid and its start time do. Every gateway carries its scope
(`ATOMIZER_SCOPE=<home id>/<agent>`) in its environment, and whatever a tool starts inherits it: so what an agent left
behind is found even if it moved into another session and lost its parent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from collections.abc import Iterable

import msgspec

from runtime.home import Home

SCOPE = "ATOMIZER_SCOPE"
TERM_SECONDS = 2.0
"""What leftovers get between SIGTERM and SIGKILL."""


class Process(msgspec.Struct, frozen=True):
    """One process, beyond confusion with a later one of the same pid."""

    pid: int
    started: int
    """Start time in clock ticks since boot."""
    parent: int
    session: int

    @property
    def alive(self) -> bool:
        """Still the same process, and not a zombie."""
        now = find(self.pid)
        return now is not None and now.started == self.started


def find(pid: int) -> Process | None:
    """The living process `pid`, or None if there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            raw = file.read()
    except OSError:
        return None
    # The name may hold spaces and brackets; what follows its last bracket does not.
    fields = raw[raw.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid=pid, started=int(fields[19]), parent=int(fields[1]), session=int(fields[3]))


def all_processes() -> list[Process]:
    """Every living process, zombies left out."""
    found = (find(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def home_id(home: Home) -> str:
    """A short name for this home, the same for every process that works on it."""
    return hashlib.sha256(os.fsencode(home.root.resolve())).hexdigest()[:12]


def scope_of(home: Home, agent: str) -> str:
    return f"{home_id(home)}/{agent}"


def scope_in(pid: int) -> str | None:
    """The scope in the environment of `pid`, or None; another user's process has none that we could see."""
    for entry in _read(pid, "environ").split(b"\0"):
        if entry.startswith(b"ATOMIZER_SCOPE="):
            return entry.partition(b"=")[2].decode("utf-8", "replace")
    return None


def command_of(pid: int) -> list[str]:
    """The argv of `pid`; empty if it has gone."""
    return [os.fsdecode(word) for word in _read(pid, "cmdline").split(b"\0")[:-1]]


def scoped(home: Home, agent: str | None = None) -> list[Process]:
    """The processes that carry this home's scope, or one agent's; never the caller itself."""
    prefix = f"{home_id(home)}/"
    found = []
    for process in all_processes():
        if process.pid == os.getpid():
            continue
        scope = scope_in(process.pid)
        if scope is not None and (scope == prefix + agent if agent else scope.startswith(prefix)):
            found.append(process)
    return found


def descendants(pids: Iterable[int]) -> list[Process]:
    """Every living process below `pids`, whatever session it moved to."""
    children: dict[int, list[Process]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = list(pids)
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child.pid)
    return found


def listens(process: Process, port: int) -> bool:
    """Is it this very process that listens on TCP `port`? Another cluster's agent of the same name may hold it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _read(process.pid, f"net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == b"0A" and int(fields[1].rpartition(b":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9].decode()}]")
    if not inodes:
        return False
    try:
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/fd/{name}") in inodes:
                    return True
    except OSError:
        pass
    return False


def send(process: Process, number: int) -> bool:
    """Signal exactly this process, not a later one of its pid; false if it has gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not process.alive:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until they have ended, at most `seconds`; answers those that have not."""
    until = time.monotonic() + seconds
    left = [process for process in processes if process.alive]
    while left and time.monotonic() < until:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(left[0].pid)
            try:
                # Readable once it has ended. A short turn, since a zombie that nobody reaps must not hold us.
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(min(200.0, max(1.0, (until - time.monotonic()) * 1000)))
            finally:
                os.close(handle)
        left = [process for process in left if process.alive]
    return left


def end(processes: Iterable[Process], grace: float = TERM_SECONDS) -> list[Process]:
    """SIGTERM, `grace` seconds, SIGKILL; answers those that even so are left (stuck in the kernel)."""
    left = [process for process in processes if send(process, signal.SIGTERM)]
    for process in left:
        send(process, signal.SIGCONT)
    left = wait_gone(left, grace)
    for process in left:
        send(process, signal.SIGKILL)
    return wait_gone(left, 5.0)


def sweep(home: Home, agent: str | None = None, also: Iterable[Process] = ()) -> int:
    """End everything that carries the scope, and `also`, until nothing new turns up; answers how many were ended."""
    ended: set[tuple[int, int]] = set()
    extra = [process for process in also if process.alive]
    for _ in range(5):
        found = {(p.pid, p.started): p for p in [*scoped(home, agent), *extra]}
        if not found:
            break
        ended.update(found)
        end(found.values())
        extra = []
    return len(ended)


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
