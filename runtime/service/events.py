"""The event bus and its SSE endpoint. Memory is bounded by the ring alone: a reader is only a cursor into it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec
from aiohttp import web

from protocols.errors import ProtocolError
from protocols.events import Event, GapEvent, HelloEvent, StatusEvent
from protocols.status import AgentStatus

RING_EVENTS = 4000
RING_BYTES = 1024 * 1024
"""Events kept for readers that come back, by count and by size."""
KEEPALIVE_SECONDS = 15.0
STATUS_SECONDS = 1.0
"""A reader gets the whole status at most so often, and only if something changed."""
MAX_READERS = 32
"""Connections that may follow at one time; one more gets 503."""
SEND_BUFFER_BYTES = 64 * 1024
"""What the kernel keeps for a reader that does not read."""
LAST_WORD_SECONDS = 0.5
"""What a reader has to take the end of its stream; one that does not read is then cut off."""
_BATCH = 200
_SEQUENCE = re.compile("[0-9]{1,18}")

_encode = msgspec.json.Encoder().encode


class _Item(msgspec.Struct, gc=False):
    sequence: int
    name: str
    data: bytes


class EventBus:
    """Events of one process in order, the newest kept. Publishing never waits for a reader."""

    def __init__(
        self, agent: str, instance: str, *, max_events: int = RING_EVENTS, max_bytes: int = RING_BYTES
    ) -> None:
        self.agent = agent
        self.instance = instance
        self._ring: deque[_Item] = deque()
        self._bytes = 0
        self._next = 1
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiters: set[asyncio.Future[None]] = set()
        self.dirty = 0
        """Grows with every change of `/status`; readers compare."""

    def publish(self, event: Event, *, changes_status: bool = True) -> None:
        data = _encode(event)
        self._ring.append(_Item(self._next, type(event).__struct_config__.tag, data))  # type: ignore[arg-type]
        self._next += 1
        self._bytes += len(data)
        # The newest stays, whatever its size: readers take the ring's end for where they are.
        while len(self._ring) > 1 and (len(self._ring) > self._max_events or self._bytes > self._max_bytes):
            self._bytes -= len(self._ring.popleft().data)
        if changes_status:
            self.dirty += 1
        self._wake()

    def touch(self) -> None:
        """Say that `/status` changed although nothing else happened."""
        self.dirty += 1
        self._wake()

    @property
    def newest(self) -> int:
        """The sequence number of the newest event; 0 before the first."""
        return self._next - 1

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def after(self, sequence: int, limit: int = _BATCH) -> tuple[int, list[_Item]]:
        """(events missed, the next events after `sequence`)."""
        if not self._ring or sequence >= self.newest:
            return 0, []
        first = self._ring[0].sequence
        missed = max(0, first - sequence - 1)
        start = max(0, sequence + 1 - first)
        return missed, [self._ring[i] for i in range(start, min(start + limit, len(self._ring)))]

    async def wait(self, timeout: float) -> None:
        """Until something is published or touched, at most `timeout` seconds."""
        future = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await future
        finally:
            self._waiters.discard(future)

    def _wake(self) -> None:
        for future in self._waiters:
            if not future.done():
                future.set_result(None)
        self._waiters.clear()


class EventStream:
    """Serves `/events` from a bus until the reader goes or the process stops."""

    def __init__(self, bus: EventBus, status: Callable[[], AgentStatus], version: str) -> None:
        self._bus = bus
        self._status = status
        self._version = version
        self._stopping = False
        self._connections: set[asyncio.Transport] = set()
        self.readers = 0

    def stop(self) -> None:
        """End every stream; called on the loop's thread."""
        self._stopping = True
        self._bus.touch()
        if self._connections:
            asyncio.get_running_loop().call_later(LAST_WORD_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        for connection in self._connections:
            connection.abort()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.readers >= MAX_READERS:
            raise ProtocolError(
                503,
                "too_many_readers",
                f"{MAX_READERS} readers follow the events already; close one and try again",
                headers={"Retry-After": "5"},
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        connection = request.transport
        if connection is None:  # gone already
            return response
        self.readers += 1
        self._connections.add(connection)
        try:
            with contextlib.suppress(ConnectionResetError, ConnectionError):
                _bound_buffer(connection)
                await response.prepare(request)
                await self._feed(response, request.headers.get("Last-Event-ID"))
        finally:
            self.readers -= 1
            self._connections.discard(connection)
        return response

    async def _feed(self, response: web.StreamResponse, last_id: str | None) -> None:
        bus = self._bus
        cursor, missed = self._resume(last_id)
        hello = HelloEvent(at=time.time(), agent=bus.agent, instance=bus.instance, version=self._version)
        await response.write(_frame(None, "hello", _encode(hello)))
        seen_dirty, last_status, last_write = -1, float("-inf"), time.monotonic()
        while not self._stopping:
            more, items = bus.after(cursor)
            missed += more
            out: list[bytes] = []
            if missed:
                gap = GapEvent(at=time.time(), agent=bus.agent, missed=missed)
                out.append(_frame(None, "gap", _encode(gap)))
                missed = 0
            for item in items:
                out.append(_frame(f"{bus.instance}-{item.sequence}", item.name, item.data))
                cursor = item.sequence
            now = time.monotonic()
            status_due = bus.dirty != seen_dirty
            if status_due and now - last_status >= STATUS_SECONDS:
                seen_dirty, last_status, status_due = bus.dirty, now, False
                event = StatusEvent(at=time.time(), agent=bus.agent, status=self._status())
                out.append(_frame(None, "status", _encode(event)))
            if not out and now - last_write >= KEEPALIVE_SECONDS:
                out.append(b": alive\n\n")
            if out:
                await response.write(b"".join(out))
                last_write = now
                continue
            pause = KEEPALIVE_SECONDS - (now - last_write)
            if status_due:
                pause = min(pause, STATUS_SECONDS - (now - last_status))
            if cursor >= bus.newest:
                await bus.wait(max(0.01, pause))

    def _resume(self, last_id: str | None) -> tuple[int, int]:
        """(cursor, events missed) for a reader that last saw `last_id`."""
        bus = self._bus
        if last_id:
            instance, _, number = last_id.rpartition("-")
            if instance == bus.instance and _SEQUENCE.fullmatch(number) and int(number) <= bus.newest:
                return int(number), 0
            return 0, 0  # another life of this agent: everything that this one still has
        return bus.newest, 0


def _bound_buffer(connection: asyncio.Transport) -> None:
    """Keep the kernel from storing megabytes for a reader that does not read."""
    sock = connection.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def _frame(ident: str | None, name: str, data: bytes) -> bytes:
    head = f"id: {ident}\nevent: {name}\ndata: " if ident else f"event: {name}\ndata: "
    return head.encode() + data + b"\n\n"
