"""The writer: durable, grouped, and alone with its failures."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.sqlite_writer import DiskFull, SqliteWriter, WriterClosed, open_database, open_reader
from tests.runtime.conftest import fill


def setup(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS notes (n INTEGER UNIQUE, fullname TEXT UNIQUE)")


def cramped(db: sqlite3.Connection) -> None:
    """No room for more than a few pages: SQLite itself then says that the disk is full."""
    setup(db)
    db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0] + 8}")


def insert(n: int, text: str | None = None) -> Callable[[sqlite3.Connection], int]:
    def operation(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO notes VALUES (?, ?)", (n, text))
        return n

    return operation


def stored(path: Path) -> list[int]:
    reader = open_reader(path)
    try:
        return [row["n"] for row in reader.execute("SELECT n FROM notes ORDER BY n")]
    finally:
        reader.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SqliteWriter]:
    made = SqliteWriter(tmp_path / "state.db", setup)
    made.start()
    yield made
    made.close()


class Gate:
    """Holds the writer inside an operation until it is opened, so that what follows shares a commit."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, db: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.open.wait(10)

    async def hold(self, writer: SqliteWriter) -> asyncio.Task[None]:
        task = asyncio.create_task(writer.submit(self))
        await asyncio.to_thread(self.entered.wait, 10)
        return task


class TestDurability:
    async def test_synchronous_is_full_and_the_journal_is_a_wal(self, writer: SqliteWriter) -> None:
        def pragmas(db: sqlite3.Connection) -> tuple[int, str]:
            return db.execute("PRAGMA synchronous").fetchone()[0], db.execute("PRAGMA journal_mode").fetchone()[0]

        assert await writer.submit(pragmas) == (2, "wal")

    async def test_what_was_answered_is_seen_by_another_connection(self, writer: SqliteWriter) -> None:
        assert await writer.submit(insert(7)) == 7
        assert stored(writer.path) == [7]

    async def test_a_reader_cannot_write(self, writer: SqliteWriter) -> None:
        reader = open_reader(writer.path)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM notes")
        reader.close()

    @pytest.mark.parametrize("name", ["100% mine", "what?", "a#b", "a%20b", "ünï"])
    async def test_any_folder_s_name_can_be_read(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        writer = SqliteWriter(tmp_path / name / "state.db", setup)
        writer.start()
        await writer.submit(insert(1))
        assert stored(writer.path) == [1]
        writer.close()


class TestGroups:
    async def test_many_operations_share_one_commit(self, writer: SqliteWriter) -> None:
        gate = Gate()
        held = await gate.hold(writer)
        tasks = [asyncio.create_task(writer.submit(insert(n))) for n in range(64)]
        await asyncio.sleep(0)
        before = writer.commits
        gate.open.set()
        assert await asyncio.gather(*tasks) == list(range(64))
        await held
        assert writer.commits - before == 2, "the held one's, and one for all of them"
        assert stored(writer.path) == list(range(64))

    async def test_one_that_fails_among_64_fails_alone(self, writer: SqliteWriter) -> None:
        await writer.submit(insert(31))
        gate = Gate()
        held = await gate.hold(writer)
        tasks = [asyncio.create_task(writer.submit(insert(n))) for n in range(64)]
        await asyncio.sleep(0)
        before = writer.commits
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await held
        assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [31]
        assert isinstance(results[31], sqlite3.IntegrityError)
        assert writer.commits - before == 2
        assert stored(writer.path) == list(range(64))

    async def test_half_of_a_failed_operation_is_undone(self, writer: SqliteWriter) -> None:
        def half(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO notes VALUES (1, NULL)")
            raise ValueError("thought better of it")

        with pytest.raises(ValueError, match="better"):
            await writer.submit(half)
        await writer.submit(insert(2))
        assert stored(writer.path) == [2]

    async def test_a_unique_failure_is_no_full_disk_whatever_its_column_is_called(self, writer: SqliteWriter) -> None:
        await writer.submit(insert(1, "x"))
        with pytest.raises(sqlite3.IntegrityError, match="fullname"):
            await writer.submit(insert(2, "x"))

    async def test_cancelling_the_caller_does_not_undo_it(self, writer: SqliteWriter) -> None:
        gate = Gate()
        held = await gate.hold(writer)
        task = asyncio.create_task(writer.submit(insert(5)))
        await asyncio.sleep(0)
        task.cancel()
        gate.open.set()
        await held
        await writer.submit(insert(6))
        assert stored(writer.path) == [5, 6]


class TestFullDisk:
    async def test_sqlite_s_own_limit_is_told_and_the_writer_works_on(self, tmp_path: Path) -> None:
        writer = SqliteWriter(tmp_path / "state.db", cramped)
        writer.start()
        await writer.submit(insert(0))
        with pytest.raises(DiskFull, match="free some space"):
            async with asyncio.timeout(10):
                await writer.submit(insert(1, "x" * 200_000))
        await writer.submit(insert(2))
        assert stored(writer.path) == [0, 2]
        writer.close()

    async def test_the_big_one_among_64_fails_alone(self, tmp_path: Path) -> None:
        writer = SqliteWriter(tmp_path / "state.db", cramped)
        writer.start()
        gate = Gate()
        held = await gate.hold(writer)
        sizes = ["x" * 200_000 if n == 40 else None for n in range(64)]
        tasks = [asyncio.create_task(writer.submit(insert(n, text))) for n, text in enumerate(sizes)]
        await asyncio.sleep(0)
        gate.open.set()
        async with asyncio.timeout(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await held
        assert [(n, type(r)) for n, r in enumerate(results) if isinstance(r, BaseException)] == [(40, DiskFull)]
        assert stored(writer.path) == [n for n in range(64) if n != 40]
        writer.close()

    async def test_a_disk_that_is_really_full_never_hangs_and_works_again_once_there_is_room(
        self, tiny_disk: Path
    ) -> None:
        writer = SqliteWriter(tiny_disk / "state.db", setup)
        writer.start()
        await writer.submit(insert(0))
        ballast = fill(tiny_disk)
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(writer.submit(insert(n, f"{n}" * 3000)) for n in range(1, 65)), return_exceptions=True
            )
        assert all(isinstance(result, DiskFull) for result in results), results
        ballast.unlink()
        async with asyncio.timeout(20):
            await writer.submit(insert(100))
        assert stored(writer.path) == [0, 100]
        writer.close()

    def test_no_room_to_begin_is_told_at_the_start(self, tiny_disk: Path) -> None:
        fill(tiny_disk)
        writer = SqliteWriter(tiny_disk / "state.db", setup)
        with pytest.raises((DiskFull, sqlite3.OperationalError)):
            writer.start()


class TestLife:
    def test_a_setup_that_fails_is_raised_and_nothing_is_accepted(self, tmp_path: Path) -> None:
        def bad(db: sqlite3.Connection) -> None:
            db.execute("CREATE TABLE half (n)")
            db.execute("NONSENSE")

        writer = SqliteWriter(tmp_path / "state.db", bad)
        with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
            writer.start()
        with pytest.raises(WriterClosed):
            asyncio.run(writer.submit(insert(1)))
        db = open_database(writer.path)
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        db.close()

    async def test_closing_finishes_what_was_submitted(self, writer: SqliteWriter) -> None:
        gate = Gate()
        held = await gate.hold(writer)
        tasks = [asyncio.create_task(writer.submit(insert(n))) for n in range(300)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.to_thread(writer.close)
        assert await asyncio.gather(*tasks) == list(range(300))
        await held
        assert stored(writer.path) == list(range(300))
        with pytest.raises(WriterClosed):
            await writer.submit(insert(301))
        writer.close()

    def test_results_for_a_loop_that_has_closed_harm_nobody(self, writer: SqliteWriter) -> None:
        gate = Gate()

        async def submit_and_leave() -> None:
            await gate.hold(writer)
            asyncio.get_running_loop().create_task(writer.submit(insert(1)))
            await asyncio.sleep(0)

        asyncio.run(submit_and_leave())
        gate.open.set()
        assert asyncio.run(writer.submit(insert(2))) == 2
        assert stored(writer.path) == [1, 2]

    def test_a_loop_that_closes_before_it_has_handed_over_keeps_nobody_waiting(self, writer: SqliteWriter) -> None:
        loop = asyncio.new_event_loop()
        submitting = writer.submit(insert(1))
        loop.call_soon(submitting.send, None)
        loop.call_soon(loop.stop)
        loop.run_forever()  # one turn: what would hand it over in the next is dropped with the loop
        loop.close()
        submitting.close()
        assert asyncio.run(asyncio.wait_for(writer.submit(insert(2)), 5)) == 2
        assert stored(writer.path) == [1, 2]
