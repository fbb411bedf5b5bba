"""One writer thread for one SQLite file, with group commit.

Operations that arrive while a commit is under way share the next one. Each runs in a savepoint of its own, so that
one which fails among sixty-four fails alone. An operation is a function of a connection; it may be run again from
the start, so it does nothing but SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from protocols.errors import AtomizerError, StorageFull

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

MAX_BATCH = 256
"""Operations that share one commit at most."""

MAX_GATHER_TURNS = 8
"""Turns of the event loop for which operations are gathered at most; a turn takes microseconds."""


class DiskFull(StorageFull):
    """SQLite could not write: no room, or another program holds the file. Nothing of the operation was kept."""


class WriterClosed(AtomizerError):
    """The writer has stopped; nothing more is accepted."""


class _Job:
    __slots__ = ("error", "future", "loop", "operation", "result")

    def __init__(self, operation: Operation[Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteWriter:
    """The only writer of `path`. `submit` returns when the operation is durable."""

    def __init__(self, path: Path, setup: Operation[None]) -> None:
        """`setup` makes the tables; it runs in a transaction of its own when the thread starts."""
        self.path = path
        self._setup = setup
        self._gathered: list[_Job] = []
        self._batches: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._closed = False
        self.commits = 0
        self.operations = 0

    def start(self) -> None:
        """Open the file and make the tables; raises sqlite3.Error, DiskFull or OSError."""
        self._thread = threading.Thread(target=self._main, name=f"writer-{self.path.name}", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._closed = True
            self._thread.join()
            raise self._failure

    async def submit(self, operation: Operation[T]) -> T:
        """Run `operation` and return its result once it is on disk. Called from one thread, whichever loop it runs.

        Raises what the operation raised, DiskFull, or WriterClosed. Cancelling the caller does not undo it.
        """
        if self._closed:
            raise WriterClosed("the ledger is closed; the gateway is stopping")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._gathered or self._gathered[-1].loop is not loop:  # a loop that has closed gathers no more
            loop.call_soon(self._gather, loop, 0, 0)
        self._gathered.append(_Job(operation, loop, future))
        return await future

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        if self._closed or self._thread is None:
            return
        self._closed = True
        self._hand_over()
        self._batches.put(None)
        self._thread.join()

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        """Hand over once a turn of the loop brings nothing more: requests that arrive together share one commit."""
        count = len(self._gathered)
        if count > seen and turns < MAX_GATHER_TURNS:
            loop.call_soon(self._gather, loop, count, turns + 1)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._batches.put(gathered)

    def _main(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = open_database(self.path)
            connection.execute("BEGIN IMMEDIATE")
            self._setup(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._failure = _translate(error)
            if connection is not None:
                connection.close()
            self._ready.set()
            return
        self._ready.set()
        open_ = True
        while open_:
            batch: list[_Job] = []
            gathered = self._batches.get()
            while gathered is not None:
                batch += gathered
                if len(batch) >= MAX_BATCH or self._batches.empty():
                    break
                gathered = self._batches.get()
            open_ = gathered is not None
            if batch:
                self._commit(connection, batch)
                _publish(batch)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        """Run a batch in one transaction: bare at first, and only if something fails with a savepoint for each.

        A savepoint costs two more statements, and each statement is a chance to lose the interpreter lock to a busy
        event loop; nearly all batches have no failure. Operations may be run again, so beginning anew is safe.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.result = job.operation(connection)
            self._end(connection, batch)
        except Exception as error:
            _roll_back(connection)
            if len(batch) == 1 or _code(error) in _HELD:  # then it is none's fault, and each would wait as long again
                for job in batch:
                    job.error = _translate(error)
            else:
                self._commit_apart(connection, batch)

    def _commit_apart(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        """A savepoint for each. If the transaction is lost as a whole, each operation gets one of its own."""
        try:
            self._transact(connection, batch)
        except sqlite3.Error:
            _roll_back(connection)
            for job in batch:
                job.error = None
                self._commit(connection, [job])

    def _transact(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for job in batch:
            connection.execute("SAVEPOINT op")
            try:
                job.result = job.operation(connection)
            except Exception as error:
                if not connection.in_transaction:  # SQLite gave up the whole transaction (disk full, I/O error)
                    raise error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(str(error)) from error
                connection.execute("ROLLBACK TO op")
                job.error = _translate(error)
            connection.execute("RELEASE op")
        self._end(connection, batch)

    def _end(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        connection.execute("COMMIT")
        self.commits += 1
        self.operations += len(batch)


def open_database(path: Path) -> sqlite3.Connection:
    """A writing connection: WAL, synchronous=FULL, foreign keys off, transactions by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-1024")
    connection.execute("PRAGMA journal_size_limit=8388608")
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can only read."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA cache_size=-1024")
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # after an I/O error SQLite may have done so already
            connection.execute("ROLLBACK")


def _code(error: BaseException) -> int:
    """SQLite's primary code, its low byte; 0 for an error of the sqlite3 module itself, or another."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0


def _translate(error: BaseException) -> BaseException:
    if _code(error) in _NO_ROOM:
        return DiskFull(f"the ledger cannot be written ({error}); free some space on its disk")
    if _code(error) in _HELD:
        return DiskFull(f"the ledger cannot be written ({error}); another program holds the file: end it")
    return error


def _publish(batch: list[_Job]) -> None:
    """Hand the results to their loops, one wake-up per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in batch:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:  # that loop has closed: nobody is waiting any more
            continue


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        job.resolve()
