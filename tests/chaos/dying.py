"""Real gateways, one after the other, that kill themselves with SIGKILL at a changing commit of their ledger.

python dying.py FUSE MODULE... -- --home DIR --agent NAME

Each line on stdin starts one; its pid comes out, and what it ended with. They are forked from this process, which has
imported what a gateway imports (and each MODULE): to enumerate deaths takes hundreds of starts.

The file FUSE arms the one that lives: `N before` or `N after` the commit, counted from when the file is there.
"""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from gateway.__main__ import main


class Fuse:
    """Counts changing commits once it is lit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._order = ""
        self._seen = 0

    def count(self) -> str:
        """`before` or `after` if this changing commit is the one to die at, else nothing."""
        order = self._path.read_text() if self._path.exists() else ""
        if order != self._order:
            self._order, self._seen = order, 0
        if not order:
            return ""
        self._seen += 1
        number, when = order.split()
        return when if self._seen == int(number) else ""


def die_by(fuse: Fuse) -> None:
    """Commits that change nothing (a look at what is due) do not count."""

    class Dying(sqlite3.Connection):
        changes_before = 0

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                self.changes_before = self.total_changes
            if sql != "COMMIT":
                return super().execute(sql, *values)
            when = fuse.count() if self.total_changes > self.changes_before else ""
            if when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = super().execute(sql, *values)
            if when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return done

    connect = sqlite3.connect

    def dying_connect(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if str(database).endswith("state.db"):
            options["factory"] = Dying
        return connect(database, *arguments, **options)

    sqlite3.connect = dying_connect


def bear(arguments: list[str]) -> int:
    """Start a gateway and wait for its end: its exit code, or minus the signal."""
    pid = os.fork()
    if not pid:
        os.setsid()
        os.close(0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os._exit(main(arguments))
    print(pid, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    fuse, *modules = sys.argv[1 : sys.argv.index("--")]
    for module in ("gateway.gateway", *modules):
        importlib.import_module(module)
    die_by(Fuse(Path(fuse)))
    for _ in iter(sys.stdin.readline, ""):
        print(bear(sys.argv[sys.argv.index("--") + 1 :]), flush=True)
