"""A raw keep-alive client for measuring: no library between the stopwatch and the socket."""

from __future__ import annotations

import asyncio
import statistics
import time

import msgspec


class Timing(msgspec.Struct):
    """Latencies of one round, in milliseconds, and its rate."""

    p50: float
    p99: float
    rate: float
    """Requests per second."""


async def post_many(port: int, path: str, token: str, bodies: list[bytes], concurrency: int, expect: int) -> Timing:
    """Send every body once over `concurrency` connections, each one request at a time."""
    latencies: list[float] = []
    fixed = "Host: 127.0.0.1\r\nContent-Type: application/json"
    head = f"POST {path} HTTP/1.1\r\n{fixed}\r\nAuthorization: Bearer {token}\r\n"
    queue = list(reversed(bodies))
    begun = time.perf_counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while queue:
            body = queue.pop()
            start = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append((time.perf_counter() - start) * 1000)
            assert answer.startswith(f"HTTP/1.1 {expect}".encode()), answer
        writer.close()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds = time.perf_counter() - begun
    latencies.sort()
    return Timing(
        p50=statistics.median(latencies),
        p99=latencies[int(len(latencies) * 0.99) - 1],
        rate=len(latencies) / seconds,
    )
