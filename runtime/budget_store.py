"""What a day's money is reserved for and spent on, in one file that all processes of a host share.

A reservation is an upper bound, written before a model is asked; it is settled with what the answer really cost. Both
happen in one SQLite transaction under the file's write lock, so that however many processes ask at once, spending and
reservations together never pass a limit. Synchronous: call it from a thread, always the same one.

What is committed survives a SIGKILL of any of the processes. After a power cut the last transactions may be missing
(`synchronous=NORMAL`: no wait for the disk on the way of every answer); reservations are void then anyway, and what was
spent is made good from the agents' own ledgers, which do wait.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from protocols.errors import AtomizerError, StorageFull

BUSY_SECONDS = 15.0
"""How long one process waits for the others' transactions, which take milliseconds."""
STALE_SECONDS = 86400.0
"""No model call lasts so long: an older reservation belongs to nobody."""
KEPT_DAYS = 40

Over = Literal["wait", "fail"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent(
  day TEXT NOT NULL,
  agent TEXT NOT NULL,
  usd REAL NOT NULL DEFAULT 0,
  tokens INTEGER NOT NULL DEFAULT 0,
  unpriced_tokens INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(day, agent)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations(
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  instance TEXT NOT NULL,
  at REAL NOT NULL,
  usd REAL NOT NULL,
  tokens INTEGER NOT NULL,
  unpriced_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""
_SUMS = "coalesce(sum(usd), 0), coalesce(sum(tokens), 0), coalesce(sum(unpriced_tokens), 0)"


class BudgetStoreError(AtomizerError):
    """The file cannot be used; the message says which and what to do."""


class Amount(msgspec.Struct, frozen=True):
    """What a call costs, or may cost at most."""

    usd: float
    tokens: int
    unpriced_tokens: int = 0
    """Those whose price is not known: they are in `tokens` and not in `usd`."""


class Limits(msgspec.Struct, frozen=True):
    """What one scope (an agent, or the cluster) may spend a day; None: as much as it likes."""

    usd: float | None = None
    tokens: int | None = None
    unpriced_tokens: int | None = None
    """Tokens of models without a known price."""
    over: Over = "wait"
    """What becomes of a run that would pass it."""

    @property
    def any(self) -> bool:
        return self.usd is not None or self.tokens is not None


class Totals(msgspec.Struct, frozen=True):
    """One scope's day so far."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    spent_tokens: int = 0
    reserved_tokens: int = 0
    spent_unpriced: int = 0
    reserved_unpriced: int = 0


class Standing(msgspec.Struct, frozen=True):
    """The day so far: of the agent that asks, and of all agents of the cluster."""

    day: str
    agent: Totals
    cluster: Totals


class Refused(msgspec.Struct, frozen=True):
    """Why a reservation was not made."""

    scope: Literal["agent", "cluster"]
    message: str
    over: Over
    passing: bool
    """What is spent leaves room: only calls under way, which may cost less than reserved, stand in the way."""
    never: bool
    """Not even an unspent day would have room for it."""


def day_of(at: float) -> str:
    """The UTC day of a time, as an ISO date."""
    return dt.datetime.fromtimestamp(at, dt.UTC).date().isoformat()


def next_day(at: float) -> float:
    """When the day of a time ends, in unix seconds."""
    return (int(at // 86400) + 1) * 86400.0


class BudgetStore:
    """One process's view of the shared file. Every method is one transaction; raises BudgetStoreError, StorageFull."""

    def __init__(self, path: Path, agent: str, instance: str, *, clock: Callable[[], float] = time.time) -> None:
        """`instance` is this life of the agent's process; the file is opened, and made, by the first call."""
        self.path = path
        self._agent = agent
        self._instance = instance
        self._clock = clock
        self._db: sqlite3.Connection | None = None

    def take_over(self) -> int:
        """Release what earlier lives of this agent's process had reserved when they were killed; how many."""
        with self._transaction() as db:
            return db.execute(
                "DELETE FROM reservations WHERE agent = ? AND instance <> ?", (self._agent, self._instance)
            ).rowcount

    def make_good(self, day: str, usd: float, tokens: int, unpriced_tokens: int) -> None:
        """Raise what the agent has spent on `day` to what its own ledger knows: it began before there was a budget."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO spent(day, agent, usd, tokens, unpriced_tokens) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT(day, agent) DO UPDATE SET usd = max(usd, excluded.usd),"
                " tokens = max(tokens, excluded.tokens),"
                " unpriced_tokens = max(unpriced_tokens, excluded.unpriced_tokens)",
                (day, self._agent, usd, tokens, unpriced_tokens),
            )

    def reserve(self, id: str, most: Amount, agent: Limits, cluster: Limits) -> tuple[Refused | None, Standing]:
        """Set `most` aside under `id`, or say why not; nothing is set aside then. With the day as it stands now."""
        now = self._clock()
        with self._transaction() as db:
            db.execute("DELETE FROM reservations WHERE at < ?", (now - STALE_SECONDS,))
            standing = self._standing(db, day_of(now))
            refused = _refusal("agent", agent, standing.agent, most) or _refusal(
                "cluster", cluster, standing.cluster, most
            )
            if refused is None:
                db.execute(
                    "INSERT INTO reservations(id, agent, instance, at, usd, tokens, unpriced_tokens)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (id, self._agent, self._instance, now, most.usd, most.tokens, most.unpriced_tokens),
                )
                standing = self._standing(db, standing.day)
            return refused, standing

    def settle(self, id: str, cost: Amount) -> Standing:
        """Put what the call really cost in the place of its reservation. A second time changes nothing."""
        now = self._clock()
        with self._transaction() as db:
            if db.execute("DELETE FROM reservations WHERE id = ?", (id,)).rowcount:
                db.execute(
                    "INSERT INTO spent(day, agent, usd, tokens, unpriced_tokens) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT(day, agent) DO UPDATE SET usd = usd + excluded.usd,"
                    " tokens = tokens + excluded.tokens,"
                    " unpriced_tokens = unpriced_tokens + excluded.unpriced_tokens",
                    (day_of(now), self._agent, cost.usd, cost.tokens, cost.unpriced_tokens),
                )
                db.execute("DELETE FROM spent WHERE day < ?", (day_of(now - KEPT_DAYS * 86400.0),))
            return self._standing(db, day_of(now))

    def release(self, id: str) -> Standing:
        """Give a reservation back: the call brought no answer. Harmless if it was settled."""
        with self._transaction() as db:
            db.execute("DELETE FROM reservations WHERE id = ?", (id,))
            return self._standing(db, day_of(self._clock()))

    def standing(self) -> Standing:
        with self._transaction() as db:
            return self._standing(db, day_of(self._clock()))

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _standing(self, db: sqlite3.Connection, day: str) -> Standing:
        fresh = self._clock() - STALE_SECONDS
        mine = (self._agent,)
        return Standing(
            day=day,
            agent=_totals(
                db.execute(f"SELECT {_SUMS} FROM spent WHERE day = ? AND agent = ?", (day, *mine)).fetchone(),
                db.execute(f"SELECT {_SUMS} FROM reservations WHERE at >= ? AND agent = ?", (fresh, *mine)).fetchone(),
            ),
            cluster=_totals(
                db.execute(f"SELECT {_SUMS} FROM spent WHERE day = ?", (day,)).fetchone(),
                db.execute(f"SELECT {_SUMS} FROM reservations WHERE at >= ?", (fresh,)).fetchone(),
            ),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that holds the write lock; committed at the end, rolled back by an error."""
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self.close()
            raise self._explain(error) from None

    def _open(self) -> sqlite3.Connection:
        until = time.monotonic() + BUSY_SECONDS
        while self._db is None:
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute("PRAGMA cache_size=-256")
                db.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                db.close()
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.02)  # the switch to WAL does not wait for others by itself
            else:
                self._db = db
        return self._db

    def _explain(self, error: sqlite3.Error) -> AtomizerError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
            return StorageFull(f"{self.path}: the budget cannot be written ({error}); free some space on its disk")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return BudgetStoreError(f"{self.path} was held by another process for {BUSY_SECONDS:.0f} s; try again")
        return BudgetStoreError(
            f"{self.path}: {error}; move the file away, it is made again from what the agents' ledgers know"
        )


def _totals(spent: Sequence[float], reserved: Sequence[float]) -> Totals:
    return Totals(
        spent_usd=float(spent[0]),
        reserved_usd=float(reserved[0]),
        spent_tokens=int(spent[1]),
        reserved_tokens=int(reserved[1]),
        spent_unpriced=int(spent[2]),
        reserved_unpriced=int(reserved[2]),
    )


_PENNY = 1e-9
"""Sums of dollars are floats: so much is no excess."""


def _refusal(scope: Literal["agent", "cluster"], limits: Limits, now: Totals, most: Amount) -> Refused | None:
    """The first of the scope's limits that `most` would pass, or None."""
    whose = "the agent's" if scope == "agent" else "the cluster's"
    if limits.usd is not None and most.usd and now.spent_usd + now.reserved_usd + most.usd > limits.usd + _PENNY:
        message = (
            f"{whose} budget of ${limits.usd:.2f} a day: ${now.spent_usd:.2f} spent, ${now.reserved_usd:.2f}"
            f" reserved, the next call may cost ${most.usd:.2f} ([budget] daily_usd)"
        )
        passing = now.spent_usd + most.usd <= limits.usd + _PENNY
        return Refused(scope, message, limits.over, passing, never=most.usd > limits.usd + _PENNY)
    for name, limit, spent, reserved, want in (
        ("tokens", limits.tokens, now.spent_tokens, now.reserved_tokens, most.tokens),
        (
            "tokens for models without a known price",
            limits.unpriced_tokens,
            now.spent_unpriced,
            now.reserved_unpriced,
            most.unpriced_tokens,
        ),
    ):
        if limit is not None and want and spent + reserved + want > limit:
            message = (
                f"{whose} budget of {limit:,} {name} a day: {spent:,} spent, {reserved:,} reserved, the next call may"
                f" take {want:,} ([budget] daily_tokens)"
            )
            return Refused(scope, message, limits.over, passing=spent + want <= limit, never=want > limit)
    return None
