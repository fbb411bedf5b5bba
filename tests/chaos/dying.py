"""A real gateway that kills itself with SIGKILL at its Nth changing commit: just before it, or just after.

python dying.py N before|after --home DIR --agent NAME
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from gateway.__main__ import main
from runtime.sqlite_writer import SqliteWriter


def die_at(number: int, when: str) -> None:
    """Arm the writer. Commits that change nothing (a look at what is due) do not count."""
    transact = SqliteWriter._transact
    seen = 0

    class Dying(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            nonlocal seen
            if sql != "COMMIT":
                return super().execute(sql, *values)
            changed = self.total_changes != self.changes_before
            seen += changed
            if changed and seen == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = super().execute(sql, *values)
            if changed and seen == number and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        changes_before = 0

    def watched(self: SqliteWriter, connection: sqlite3.Connection, batch: Any) -> None:
        assert isinstance(connection, Dying)
        connection.changes_before = connection.total_changes
        transact(self, connection, batch)

    connect = sqlite3.connect

    def dying_connect(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if str(database).endswith("state.db"):
            options["factory"] = Dying
        return connect(database, *arguments, **options)

    sqlite3.connect = dying_connect
    SqliteWriter._transact = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    die_at(int(sys.argv[1]), sys.argv[2])
    sys.exit(main(sys.argv[3:]))
