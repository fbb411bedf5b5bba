"""Who holds a TCP port of this machine, for an error that names its owner."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_LISTEN = "0A"


def owner_of(port: int) -> str | None:
    """`python (pid 123): its command line` of the process that listens on `port`, or None if it cannot be seen."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for link in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(link) in wanted:
                        return _describe(entry)
    return "a process of another user"


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    found.add(fields[9])
    return found


def _describe(process: Path) -> str:
    """The command line is cut before anything that could be a secret grows long."""
    name = (process / "comm").read_text().strip()
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        shown = " ".join(w.decode(errors="replace") for w in words[:6] if w)
        return f"{name} (pid {process.name}): {shown[:120]}"
    return f"{name} (pid {process.name})"
