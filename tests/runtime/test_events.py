"""The event stream: resumable, bounded, and never held up by a reader."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from protocols.client import GatewayClient
from protocols.errors import ProtocolError, Unreachable
from protocols.events import DeltaEvent, Event, GapEvent, HelloEvent, LogEvent, StatusEvent
from protocols.status import AgentStatus, HeartbeatStatus, ModelStatus, QueueStatus
from runtime.secrets import token_hash
from runtime.service import events as module
from runtime.service.app import Access, Call, Route, build_app
from runtime.service.auth import Auth
from runtime.service.events import MAX_READERS, EventBus, EventStream
from tests.ports import Lease
from tests.runtime.service import serving


def status() -> AgentStatus:
    return AgentStatus(
        agent="webster",
        title="Webster",
        state="up",
        instance="life",
        version="v",
        pid=1,
        port=1,
        started_at=0.0,
        now=time.time(),
        profile="offline",
        model=ModelStatus(configured="a/b", active="a/b", origin="configured", usable=True),
        heartbeat=HeartbeatStatus(enabled=False, every_seconds=0.0, state="off"),
        queue=QueueStatus(),
    )


def line(text: str) -> LogEvent:
    return LogEvent(at=1.0, agent="webster", level="info", logger="x", message=text)


class Stream:
    """One bus served on a port, and readers of it."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self.port = port
        self.bus = EventBus("webster", "life", max_events=100, max_bytes=50_000)
        self.events = EventStream(self.bus, status, "v")
        self.client = GatewayClient(session, port, "t")

    def say(self, *texts: str) -> None:
        for text in texts:
            self.bus.publish(line(text), changes_status=False)

    async def handler(self, call: Call) -> object:
        return await self.events.serve(call.request)

    @contextlib.asynccontextmanager
    async def reader(self, last_id: str | None = None) -> AsyncIterator[AsyncIterator[tuple[str | None, Event]]]:
        """A reader that has been greeted."""
        async with asyncio.timeout(10):
            async with contextlib.aclosing(self.client.events(last_id)) as events:
                assert isinstance((await anext(events))[1], HelloEvent)
                yield events

    async def count(self, readers: int) -> None:
        """Wait until there are so many readers. A lost one is noticed when something is written to it."""
        async with asyncio.timeout(5):
            while self.events.readers != readers:
                self.say("is anybody there?")
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serve_stream() -> AsyncIterator[Stream]:
    connections = aiohttp.TCPConnector(limit=0)
    with Lease() as lease:
        async with aiohttp.ClientSession(connector=connections) as session:
            made = Stream(lease.ports[0], session)
            route = Route("GET", "/events", made.handler, Access.ANY, "events")
            app = build_app([route], Auth({token_hash("t"): "operator"}), allowed_hosts=list)
            async with serving(app, made.port):
                yield made
                made.events.stop()


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with serve_stream() as made:
        yield made


async def texts(events: AsyncIterator[tuple[str | None, Event]], count: int) -> list[str]:
    """The next `count` log lines; `gap N` stands for a gap."""
    found: list[str] = []
    while len(found) < count:
        _, event = await anext(events)
        if isinstance(event, LogEvent):
            found.append(event.message)
        elif isinstance(event, GapEvent):
            found.append(f"gap {event.missed}")
    return found


class TestReading:
    async def test_hello_then_the_status_then_what_happens(self, stream: Stream) -> None:
        stream.say("before anybody listened")
        async with stream.reader() as events:
            assert isinstance((await anext(events))[1], StatusEvent)
            stream.say("one", "two")
            assert [(await anext(events))[0] for _ in range(2)] == ["life-2", "life-3"]

    async def test_it_goes_on_after_the_last_id(self, stream: Stream) -> None:
        stream.say("one", "two", "three")
        async with stream.reader("life-1") as events:
            assert await texts(events, 2) == ["two", "three"]
        async with stream.reader("life-3") as events:
            stream.say("four")
            assert await texts(events, 1) == ["four"]

    @pytest.mark.parametrize(
        "last_id",
        ["other-2", "life-99", "life-", "life", "life--1", "life-1.5", "life-" + "9" * 5000, "life-\u00b2", "-"],
    )
    async def test_an_id_of_another_life_or_of_none_gives_all_there_is(self, stream: Stream, last_id: str) -> None:
        stream.say("one", "two")
        async with stream.reader(last_id) as events:
            assert await texts(events, 2) == ["one", "two"]

    async def test_who_comes_back_too_late_is_told_how_much_is_gone(self, stream: Stream) -> None:
        stream.say(*(str(n) for n in range(250)))
        async with stream.reader("life-1") as events:
            assert await texts(events, 101) == ["gap 149", *(str(n) for n in range(150, 250))]

    async def test_many_readers_each_get_everything_in_order(self, stream: Stream) -> None:
        async def follow(ready: asyncio.Semaphore) -> list[str]:
            async with stream.reader() as events:
                ready.release()
                return await texts(events, 50)

        ready = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(ready)) for _ in range(20)]
            for _ in tasks:
                await ready.acquire()
            for n in range(50):
                stream.say(str(n))
                await asyncio.sleep(0)
        assert all(task.result() == [str(n) for n in range(50)] for task in tasks)

    async def test_the_status_comes_at_most_once_a_second_and_only_after_a_change(
        self, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "STATUS_SECONDS", 0.2)
        times: list[float] = []
        began = time.time()
        async with stream.reader() as events:
            for n in range(40):
                stream.bus.touch()
                stream.say(str(n))
                await asyncio.sleep(0.01)
            stream.say("end")
            async for _, event in events:
                if isinstance(event, StatusEvent):
                    times.append(event.at)
                elif isinstance(event, LogEvent) and event.message == "end":
                    break
            assert 2 <= len(times) <= (time.time() - began) / 0.2 + 1
            assert all(later - sooner > 0.15 for sooner, later in itertools.pairwise(times))
            touched = time.time()
            stream.bus.touch()
            async with asyncio.timeout(5):  # a change is not forgotten
                async for _, event in events:
                    if isinstance(event, StatusEvent) and event.at >= touched:
                        break
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await anext(events)

    async def test_silence_is_filled_with_comments(self, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "KEEPALIVE_SECONDS", 0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", stream.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Atomizer-Token: t\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b": alive\n\n")
            await reader.readuntil(b": alive\n\n")
        writer.close()
        await stream.count(0)


class TestBounds:
    async def test_the_ring_holds_so_many_bytes_and_no_more(self) -> None:
        bus = EventBus("webster", "life", max_events=1000, max_bytes=10_000)
        for n in range(500):
            bus.publish(line(f"{n} " + "x" * 300))
            assert bus.size_bytes <= 10_000
        missed, items = bus.after(0)
        assert missed + len(items) == 500
        assert items[-1].sequence == bus.newest == 500

    async def test_one_event_larger_than_the_ring_reaches_its_readers_and_holds_nobody_up(self, stream: Stream) -> None:
        async with stream.reader() as events:
            stream.say("small")
            stream.bus.publish(DeltaEvent(at=1.0, agent="webster", run_id="run-1", text="x" * 300_000))
            found = [event async for event in _until(events, DeltaEvent)]
            assert len(found[-1].text) == 300_000
            stream.say("after")
            assert await texts(events, 1) == ["after"]

    async def test_a_reader_that_stops_reading_costs_nothing_and_then_sees_the_gap(self, stream: Stream) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", stream.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=8192)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Atomizer-Token: t\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"event: hello\n")
        async with stream.reader() as other:
            for n in range(4000):
                stream.say(f"{n} " + "x" * 1000)
                if n % 20 == 0:
                    await asyncio.sleep(0)
            assert stream.bus.size_bytes <= 50_000
            stream.say("the end")
            while (await texts(other, 1)) != ["the end"]:
                pass
        async with asyncio.timeout(20):
            seen = b""
            while b"the end" not in seen:
                seen = seen[-1000:] + await reader.read(65536)
                if b"event: gap" in seen:
                    break
            assert b"event: gap" in seen
        writer.close()
        await stream.count(0)

    async def test_there_is_a_limit_of_readers_and_a_place_is_free_again_once_one_leaves(self, stream: Stream) -> None:
        async with contextlib.AsyncExitStack() as stack:
            readers = [stream.reader() for _ in range(MAX_READERS)]
            for reader in readers:
                await stack.enter_async_context(reader)
            with pytest.raises(ProtocolError) as caught:
                await anext(stream.client.events())
            assert (caught.value.status, caught.value.code) == (503, "too_many_readers")
        await stream.count(0)
        async with stream.reader():
            assert stream.events.readers == 1


class TestStopping:
    async def test_readers_are_ended_at_once(self, stream: Stream) -> None:
        async def follow() -> float:
            with pytest.raises(Unreachable, match="ended"):
                async with stream.reader() as events:
                    await texts(events, 1000)
            return time.monotonic()

        tasks = [asyncio.create_task(follow()) for _ in range(5)]
        await stream.count(5)
        stopped = time.monotonic()
        stream.events.stop()
        assert max(await asyncio.gather(*tasks)) - stopped < 1.0
        assert stream.events.readers == 0

    async def test_one_that_does_not_read_holds_nobody_up(self) -> None:
        async with serve_stream() as stream:
            _, writer = await asyncio.open_connection("127.0.0.1", stream.port, limit=1024)
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Atomizer-Token: t\r\n\r\n")
            await stream.count(1)
            for _ in range(400):
                stream.say("x" * 20_000)
                await asyncio.sleep(0)
            began = time.monotonic()
        assert time.monotonic() - began < 1.5, "half a second of patience, then it is cut off"
        assert stream.events.readers == 0
        writer.close()


async def _until(events: AsyncIterator[tuple[str | None, Event]], kind: type[Event]) -> AsyncIterator[Event]:
    async for _, event in events:
        yield event
        if isinstance(event, kind):
            return
