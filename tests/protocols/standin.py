"""An honest little server that answers what a test tells it to, byte for byte, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from tests.ports import Lease


class Standin:
    """Answers every connection with `raw`; then holds it open if `hold`, else closes it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.raw = b""
        self.parts: list[bytes] = []
        """Sent one by one after `raw`, each in a segment of its own."""
        self.hold = False
        self.requests: list[bytes] = []

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.raw = head.encode() + body

    def stream(self, *parts: bytes, hold: bool = False) -> None:
        self.raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        self.parts, self.hold = list(parts), hold

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.requests.append(head + await reader.readexactly(length))
            for part in (self.raw, *self.parts):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if self.hold:
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def standin() -> AsyncIterator[Standin]:
    with Lease() as lease:
        server = Standin(lease.ports[0])
        listening = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
        try:
            yield server
        finally:
            listening.close()


@contextlib.contextmanager
def standin_in_thread() -> Iterator[Standin]:
    """The same for a caller without an event loop."""
    ready: threading.Event = threading.Event()
    stop = asyncio.Event()
    made: list[tuple[Standin, asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        async with standin() as server:
            made.append((server, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield made[0][0]
    finally:
        made[0][1].call_soon_threadsafe(stop.set)
        thread.join(10)
