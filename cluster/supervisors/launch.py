"""Starting one gateway as a process of its own: session, environment, and where its words go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.supervisors.processes import SCOPE, scope_of
from runtime.home import Home

CONSOLE_LOG = "console.log"
CONSOLE_LOG_BYTES = 1024 * 1024
"""A larger console.log is put aside as console.log.1 before the next start."""
PROGRAM = (sys.executable, "-P", "-X", "no_debug_ranges", "-m", "gateway")
"""Without the columns of each instruction, which a traceback would underline: half a MiB of every process."""

TUNING = {"MALLOC_ARENA_MAX": "1"}
"""One heap for all threads of a gateway, of which only one runs at a time anyway; glibc gives each its own."""

_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONTZPATH", "PYTHONHASHSEED"}
)
_KEPT_PREFIX = "LC_"


def command(home: Home, agent: str, program: list[str] | None = None) -> list[str]:
    return [*(program or PROGRAM), *command_tail(home, agent)]


def command_tail(home: Home, agent: str) -> list[str]:
    """The end of a gateway's argv, by which it is known again."""
    return ["--home", str(home.root), "--agent", agent]


def environment(home: Home, agent: str, source: Mapping[str, str]) -> dict[str, str]:
    """What a gateway sees of `source`: an allow-list, so that no key of the operator's shell reaches an agent."""
    return {**clean(source), **TUNING, SCOPE: scope_of(home, agent)}


def clean(source: Mapping[str, str]) -> dict[str, str]:
    """The variables of `source` that a process of the cluster may see."""
    return {name: value for name, value in source.items() if name in _KEPT or name.startswith(_KEPT_PREFIX)}


def console_log(home: Home, agent: str) -> Path:
    """Where a gateway's stdout and stderr go: a file, since a pipe would die with its reader."""
    return home.logs(agent) / CONSOLE_LOG


def launch(home: Home, agent: str, program: list[str] | None = None) -> tuple[subprocess.Popen[bytes], int]:
    """Start the gateway of `agent`; answers the process and where in its console.log this start begins.

    Raises OSError.
    """
    path = console_log(home, agent)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > CONSOLE_LOG_BYTES:
        path.replace(path.with_name(CONSOLE_LOG + ".1"))
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        offset = os.fstat(output).st_size
        process = subprocess.Popen(
            command(home, agent, program),
            cwd=home.instance(agent),
            env=environment(home, agent, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    return process, offset


def last_words(home: Home, agent: str, offset: int) -> str:
    """The last line a gateway wrote since `offset`, cut to 500 characters; empty if it wrote none."""
    try:
        with open(console_log(home, agent), "rb") as file:
            file.seek(max(offset, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")
