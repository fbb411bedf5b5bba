"""Durable accept: a hook's way onto the disk, beside the same server without a store and one measured commit."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec

from bench.load import Timing, post_many
from bench.report import Figure
from protocols.hooks import AgentHook
from runtime.secrets import token_hash
from runtime.sqlite_writer import open_database
from tests.conftest import ClusterHome
from tests.gateway.process import running
from tests.ports import Lease

ROUNDS = 5
REQUESTS = {1: 400, 8: 2000, 64: 2000}


def measure() -> list[Figure]:
    home = ClusterHome(("webster",))
    try:
        with Lease(1) as lease, running(home, "webster") as (gateway,):
            port, token = lease.ports[0], home.token()
            floor = subprocess.Popen(
                [sys.executable, "-m", "bench.storeless", str(port), token_hash(token)], stdout=subprocess.PIPE
            )
            try:
                assert floor.stdout is not None
                floor.stdout.readline()
                commit = _commit_ms(home.home.instance("webster") / "floor.db")
                rounds = {
                    c: [_pair(port, gateway.port, token, c, n) for _ in range(ROUNDS)] for c, n in REQUESTS.items()
                }
            finally:
                floor.terminate()
                floor.wait(10)
                if floor.stdout is not None:
                    floor.stdout.close()
    finally:
        home.close()
    return _figures(commit, rounds)


def _pair(bare_port: int, stored_port: int, token: str, concurrency: int, count: int) -> tuple[Timing, Timing]:
    """The storeless server and the gateway, one right after the other, so that both see the same machine."""
    bare = asyncio.run(_round(bare_port, token, concurrency, count))
    return bare, asyncio.run(_round(stored_port, token, concurrency, count))


async def _round(port: int, token: str, concurrency: int, count: int) -> Timing:
    """Held runs: accepted and on disk, but not begun, so that only the accept is measured."""
    bodies = [
        msgspec.json.encode(AgentHook(message="measure", wake_mode="next-heartbeat", idempotency_key=uuid.uuid4().hex))
        for _ in range(count)
    ]
    return await post_many(port, "/hooks/agent", token, bodies, concurrency, 202)


def _commit_ms(path: Path, count: int = 300) -> float:
    """One row per FULL commit on the ledger's own disk, p50 in milliseconds."""
    db = open_database(path)
    db.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, text TEXT)")
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO rows(text) VALUES (?)", ("x" * 300,))
        db.execute("COMMIT")
        times.append((time.perf_counter() - begun) * 1000)
    db.close()
    return statistics.median(times)


def _figures(commit: float, rounds: dict[int, list[tuple[Timing, Timing]]]) -> list[Figure]:
    """Ratios are medians over the rounds' pairs; values are those of the gateway's best round."""
    figures = [Figure("one FULL commit, p50", commit, "ms")]
    for concurrency, pairs in rounds.items():
        best = min((stored for _, stored in pairs), key=lambda t: t.p50)
        floor = commit if concurrency == 1 else 0.0
        ratio = statistics.median(stored.p50 / (bare.p50 + floor) for bare, stored in pairs)
        label = "one at a time" if concurrency == 1 else f"{concurrency} at once"
        of = "the storeless server" + (" + one commit" if floor else "")
        limit = {1: 1.5, 8: 2.0}.get(concurrency)
        rate = statistics.median(stored.rate / bare.rate for bare, stored in pairs)
        figures += [
            Figure(f"durable accept, {label}, p50", best.p50, "ms", ratio=ratio, limit=limit, of=of),
            Figure(f"durable accept, {label}, p99", best.p99, "ms"),
            Figure(f"accepts per second, {label}", best.rate, "/s", ratio=rate, of="the storeless server"),
        ]
    return figures
