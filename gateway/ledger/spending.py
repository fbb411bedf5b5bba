"""What the models used and cost, summed from the ledger's steps: by day and model, by session, by run."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from protocols.runs import RunSource, Usage
from protocols.usage import RunUsage, SessionUsage, UsageRow
from runtime.sqlite_writer import open_reader

_TOKENS = (
    "coalesce(sum(s.input_tokens), 0) AS input, coalesce(sum(s.output_tokens), 0) AS output,"
    " coalesce(sum(s.cache_read_tokens), 0) AS cache_read, coalesce(sum(s.cache_write_tokens), 0) AS cache_write,"
    " sum(s.cost_usd) AS cost, count(*) AS calls, count(s.cost_usd) AS priced"
)
_PAID = "s.input_tokens IS NOT NULL AND s.finished_at >= ?"


class Spent(msgspec.Struct, frozen=True):
    """What paid models used in a span of time."""

    usd: float
    tokens: int
    unpriced_tokens: int
    """Those of models whose price is not known; in `tokens`, not in `usd`."""


class Spending:
    """Each call opens the ledger's file by itself, so that it may be made from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def since(self, at: float) -> Spent:
        """What paid models (not the offline ones) have used since `at`."""
        with contextlib.closing(open_reader(self._path)) as db:
            row = db.execute(
                "SELECT coalesce(sum(s.cost_usd), 0) AS usd,"
                " coalesce(sum(s.input_tokens + s.output_tokens), 0) AS tokens,"
                " coalesce(sum(CASE WHEN s.cost_usd IS NULL THEN s.input_tokens + s.output_tokens END), 0) AS unpriced"
                f" FROM steps s WHERE {_PAID} AND s.name NOT LIKE 'offline/%'",
                (at,),
            ).fetchone()
            return Spent(float(row["usd"]), int(row["tokens"]), int(row["unpriced"]))

    def report(self, at: float, limit: int) -> tuple[list[UsageRow], list[SessionUsage], list[RunUsage]]:
        """Since `at`: (each day and model; the sessions and the runs that used most, at most `limit` of each)."""
        with contextlib.closing(open_reader(self._path)) as db:
            days = db.execute(
                f"SELECT date(s.finished_at, 'unixepoch') AS day, s.name AS model, {_TOKENS} FROM steps s"
                f" WHERE {_PAID} GROUP BY day, model ORDER BY day DESC, cost DESC, input DESC",
                (at,),
            ).fetchall()
            sessions = db.execute(
                f"SELECT r.session_key AS session, count(DISTINCT r.id) AS runs, {_TOKENS} FROM steps s"
                f" JOIN runs r ON r.id = s.run_id WHERE {_PAID} GROUP BY session"
                " ORDER BY cost DESC, input DESC LIMIT ?",
                (at, limit),
            ).fetchall()
            runs = db.execute(
                f"SELECT r.id AS run, r.session_key AS session, r.source AS source,"
                f" date(max(s.finished_at), 'unixepoch') AS day, {_TOKENS} FROM steps s"
                f" JOIN runs r ON r.id = s.run_id WHERE {_PAID} GROUP BY r.id ORDER BY cost DESC, input DESC LIMIT ?",
                (at, limit),
            ).fetchall()
        return (
            [
                UsageRow(day=r["day"], model=r["model"], calls=r["calls"], usage=_usage(r), cost_usd=_cost(r))
                for r in days
            ],
            [
                SessionUsage(
                    session_key=r["session"], runs=r["runs"], calls=r["calls"], usage=_usage(r), cost_usd=_cost(r)
                )
                for r in sessions
            ],
            [
                RunUsage(
                    run_id=r["run"],
                    session_key=r["session"],
                    source=RunSource(r["source"]),
                    day=r["day"],
                    calls=r["calls"],
                    usage=_usage(r),
                    cost_usd=_cost(r),
                )
                for r in runs
            ],
        )


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(
        input_tokens=row["input"],
        output_tokens=row["output"],
        cache_read_tokens=row["cache_read"],
        cache_write_tokens=row["cache_write"],
    )


def _cost(row: sqlite3.Row) -> float | None:
    """Null as soon as one call's price is unknown: a sum of the others would look like the whole."""
    return None if row["calls"] > row["priced"] else float(row["cost"] or 0.0)
