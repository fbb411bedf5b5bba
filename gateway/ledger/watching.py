"""What the heartbeat looks at before it asks a model, read from the ledger."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from runtime.sqlite_writer import open_reader

_FACTS = (
    # work that ended, and work that stands: of people, other agents and schedules, never of beats
    "SELECT max(finished_at), max(seq) FROM runs WHERE source <> 'heartbeat'",
    "SELECT id, state FROM runs WHERE state IN ('queued', 'running', 'waiting') AND held = 0"
    " AND source <> 'heartbeat' ORDER BY seq",
    "SELECT state, count(*) FROM children GROUP BY state ORDER BY state",
    "SELECT count(*), max(e.id) FROM effects e JOIN runs r ON r.id = e.run_id"
    " WHERE e.state IN ('dead', 'unknown') AND r.source <> 'heartbeat'",
    "SELECT id, revision FROM approvals WHERE state = 'pending' ORDER BY id",
)


class BeatReader:
    """Each call opens the ledger's file by itself, so that it may be made from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def facts(self) -> list[Any]:
        """How the agent's work stands; equal if and only if nothing has happened that a beat could speak of."""
        with contextlib.closing(open_reader(self._path)) as db:
            return [[list(row) for row in db.execute(query)] for query in _FACTS]

    def notes_waiting(self) -> int:
        """Notes that no beat has been given yet."""
        with contextlib.closing(open_reader(self._path)) as db:
            (count,) = db.execute("SELECT count(*) FROM notes WHERE run_id IS NULL").fetchone()
            return int(count)

    def last_fingerprint(self) -> str:
        """Of what the newest beat that came to an end had seen; empty if there was none."""
        with contextlib.closing(open_reader(self._path)) as db:
            row = db.execute(
                "SELECT fingerprint FROM beats WHERE outcome IN ('ok', 'alert', 'duplicate') ORDER BY id DESC LIMIT 1"
            ).fetchone()
            return str(row[0]) if row else ""

    def last_run(self) -> str | None:
        """The newest beat's run that asked a model, if the ledger still has it."""
        with contextlib.closing(open_reader(self._path)) as db:
            row = db.execute(
                "SELECT b.run_id FROM beats b JOIN runs r ON r.id = b.run_id ORDER BY b.id DESC LIMIT 1"
            ).fetchone()
            return str(row[0]) if row else None

    def alerts(self, since: float, *, but: str) -> list[str]:
        """Texts of the alerts told since then, without that of the run `but`."""
        with contextlib.closing(open_reader(self._path)) as db:
            rows = db.execute(
                "SELECT r.text FROM beats b JOIN runs r ON r.id = b.run_id"
                " WHERE b.outcome = 'alert' AND b.at >= ? AND r.id <> ?",
                (since, but),
            )
            return [str(row[0]) for row in rows]
