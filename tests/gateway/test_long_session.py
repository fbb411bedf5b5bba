"""A session of 50,000 messages: read a page at a time, exported whole, never held whole by its gateway."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.conversations import EXPORT_MESSAGES, PAGE_CHARS
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running

KEY = "agent:webster:main"
PATH = f"/sessions/{KEY}"
MESSAGES = 50_000


def fill(file: Path, messages: int, chars: int = 200, markers: tuple[int, ...] = ()) -> None:
    """A session as if it had been talked in for long; its numbers are every second one of the table's."""
    with contextlib.closing(sqlite3.connect(file, timeout=10)) as db, db:
        db.execute("INSERT INTO sessions(key, created_at, updated_at) VALUES (?, 1, 2)", (KEY,))
        for session, first in ((KEY, 1), ("another", 2)):
            db.executemany(
                "INSERT INTO messages(seq, session_key, run_id, role, content, at) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        first + 2 * i,
                        session,
                        f"run-{i // 10}",
                        ("user", "assistant")[i % 2],
                        json.dumps([{"type": "text", "text": f"number {i}".ljust(chars, ".")}]),
                        float(i),
                    )
                    for i in range(messages)
                ),
            )
        db.executemany(
            "INSERT INTO compactions(session_key, upto_seq, summary, checkpoint, tokens_before, tokens_after, at)"
            " VALUES (?, ?, ?, '', 0, 0, 0)",
            [(KEY, 1 + 2 * i, f"summary up to {i}") for i in markers],
        )


def said(message: Any) -> str:
    return str(message["content"][0]["text"].rstrip("."))


@pytest.fixture(scope="module")
def long() -> Iterator[GatewayProcess]:
    home = ClusterHome(("webster",))
    try:
        with running(home, "webster") as (gateway,):
            fill(home.home.state_db("webster"), MESSAGES)
            yield gateway
    finally:
        home.close()


def test_its_newest_page_is_bounded_and_costs_no_memory(long: GatewayProcess) -> None:
    get = lambda query: long.raw("GET", PATH + query, None, long.headers("viewer"))  # noqa: E731
    get("?limit=1")
    before = long.status().rss_bytes
    for _ in range(3):
        status, headers, page = get("")
        assert status == 200
        assert int(headers["content-length"]) < 200 * 500
        assert [said(m) for m in page["messages"]] == [f"number {i}" for i in range(MESSAGES - 200, MESSAGES)]
    assert len(get("?limit=7")[2]["messages"]) == 7
    assert long.status().rss_bytes - before < 4 * 2**20
    for wrong in ("limit=0", "limit=1001", "limit=x", "before=-1", "before=x"):
        assert get(f"?{wrong}")[0] == 400


def test_it_is_paged_back_and_exported_whole_and_in_order(long: GatewayProcess, tmp_path: Path) -> None:
    home = long.home
    expected = [f"number {i}" for i in range(MESSAGES)]
    rss = long.status().rss_bytes
    file = tmp_path / "talk.jsonl"
    home.cli("sessions", "webster", KEY, "--export", str(file))
    assert [said(json.loads(line)) for line in file.read_text().splitlines()] == expected
    assert [said(m) for m in home.json("sessions", "webster", KEY)["messages"]] == expected
    assert [said(m) for m in home.json("sessions", "webster", KEY, "--last", "3")["messages"]] == expected[-3:]
    markdown = home.cli("sessions", "webster", KEY)
    assert markdown.startswith(f"# Session `{KEY}` of webster\n")
    assert markdown.count("# Session") == 1
    assert markdown.count("\n## run-") == MESSAGES // 10
    assert markdown.count("number ") == MESSAGES
    last = home.cli("sessions", "webster", KEY, "--last", "2")
    assert last.count("number ") == 2
    assert long.status().rss_bytes - rss < 12 * 2**20


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    file = tmp_path / "state.db"
    ledger = Ledger(file, "webster")
    ledger.start()
    ledger.close()
    made = Reader(file, "webster")
    yield made
    made.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_meet_without_gap_or_overlap_also_at_a_summary(tmp_path: Path, reader: Reader, limit: int) -> None:
    fill(tmp_path / "state.db", 9, markers=(0, 3, 4, 8))
    whole = [m for page in reader.conversations.pages(KEY) for m in page]
    order = ["n0", "s0", "n1", "n2", "n3", "s3", "n4", "s4", "n5", "n6", "n7", "n8", "s8"]
    texts = [said({"content": m.content}) for m in whole]
    assert [f"{text[0]}{text.split()[-1]}" for text in texts] == order
    assert [m.seq for m in whole] == sorted({m.seq for m in whole})
    back: list[Any] = []
    before: int | None = None
    while True:
        page, before = reader.conversations.page(KEY, limit, before)
        assert len(page) <= limit
        back = page + back
        if before is None:
            break
    assert back == whole


async def test_an_export_leaves_nothing_out_before_a_marker_far_behind_a_page(tmp_path: Path, reader: Reader) -> None:
    messages = 2 * EXPORT_MESSAGES + 50
    fill(tmp_path / "state.db", messages, markers=(EXPORT_MESSAGES + 20, messages - 1))
    whole = [said({"content": m.content}) for page in reader.conversations.pages(KEY) for m in page]
    assert [text for text in whole if text.startswith("number")] == [f"number {i}" for i in range(messages)]
    assert len(whole) == messages + 2


async def test_a_page_of_large_messages_ends_sooner_and_always_has_one(tmp_path: Path, reader: Reader) -> None:
    fill(tmp_path / "state.db", 5, chars=PAGE_CHARS // 2)
    page, before = reader.conversations.page(KEY, 200)
    assert [len(page), before is None] == [1, False]
    assert len([m for piece in reader.conversations.pages(KEY) for m in piece]) == 5
    fill_one = PAGE_CHARS * 3
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as db, db:
        db.execute("UPDATE messages SET content = ?", (json.dumps([{"type": "text", "text": "x" * fill_one}]),))
    assert len(reader.conversations.page(KEY, 200)[0]) == 1


async def test_a_page_reads_no_more_rows_than_it_shows(tmp_path: Path, reader: Reader) -> None:
    """The database's own plan: by the index, and nothing sorted."""
    fill(tmp_path / "state.db", 10)
    statements: list[str] = []
    reader._db.set_trace_callback(statements.append)
    reader.conversations.page(KEY, 5)
    next(reader.conversations.pages(KEY))
    reader._db.set_trace_callback(None)
    queries = [s for s in statements if "content" in s or "summary" in s]
    assert len(queries) == 4
    for query in queries:
        plan = " ".join(row["detail"] for row in reader._db.execute(f"EXPLAIN QUERY PLAN {query}"))
        if "FROM messages" in query:
            assert "USING INDEX messages_session" in plan, plan
            assert "TEMP B-TREE" not in plan, plan


def test_an_end_is_told_where_nothing_is(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        fill(home.home.state_db("webster"), 3)
        get = lambda query: gateway.raw("GET", PATH + query, None, gateway.headers())[2]  # noqa: E731
        page = get("?limit=2")
        assert [said(m) for m in page["messages"]] == ["number 1", "number 2"]
        page = get(f"?before={page['before']}")
        assert [said(m) for m in page["messages"]] == ["number 0"]
        assert page["before"] is None
        assert get("?before=0") == {"key": KEY, "messages": [], "before": None}
