"""Has anything changed that a heartbeat could speak of? Told without a model, so that an idle agent costs nothing."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

from gateway.agent.inside import read_inside

_ALWAYS = ("SOUL.md", "HEARTBEAT.md")
_NAMED = re.compile(r"[\w][\w./-]*\.\w{1,8}")
"""What looks like a file's name in HEARTBEAT.md."""
_MAX_NAMED = 50
_WHOLE = 256 * 1024
"""Bytes of a file that is read for this; of a larger one, size and time."""


def fingerprint(facts: list[Any], workspace: Path, shared: Path) -> str:
    """Of how the agent's work stands and of the files a beat is about: those it reads, and those HEARTBEAT.md names."""
    files = [(str(path), _stamp(path, (workspace, shared))) for path in watched_files(workspace, shared)]
    return hashlib.sha256(msgspec.json.encode([facts, files])).hexdigest()


def watched_files(workspace: Path, shared: Path) -> list[Path]:
    """SOUL.md, HEARTBEAT.md, and every file of the workspace or the shared folder whose name stands in HEARTBEAT.md."""
    found = [workspace / name for name in _ALWAYS]
    try:
        text = read_inside(workspace / "HEARTBEAT.md", (workspace, shared), _WHOLE).decode(errors="replace")
    except OSError:
        return found
    for name in sorted(set(_NAMED.findall(text)))[:_MAX_NAMED]:
        if ".." not in name.split("/"):
            found += [path for root in (workspace, shared) if (path := root / name.removeprefix("shared/")).is_file()]
    return list(dict.fromkeys(found))


def _stamp(path: Path, roots: tuple[Path, Path]) -> str:
    """What the file says; of a large one, when and how it was written."""
    try:
        about = path.stat()
        if about.st_size > _WHOLE:
            return f"{about.st_size}:{about.st_mtime_ns}"
        return hashlib.sha256(read_inside(path, roots, _WHOLE)).hexdigest()
    except OSError:
        return ""
