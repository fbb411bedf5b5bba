"""The async client: its calls, and server-sent events as they really arrive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from protocols.client import GatewayClient
from protocols.control import HeartbeatChange
from protocols.errors import ProtocolError, Unreachable
from protocols.events import Event, GapEvent, HelloEvent, LogEvent
from protocols.hooks import AgentHook
from tests.ports import Lease
from tests.protocols.standin import Standin, standin

LOG = {"type": "log", "at": 1.0, "agent": "a", "level": "info", "logger": "x", "message": "one"}


@pytest.fixture
async def server() -> AsyncIterator[Standin]:
    async with standin() as running:
        yield running


@pytest.fixture
async def client(server: Standin) -> AsyncIterator[GatewayClient]:
    async with aiohttp.ClientSession() as session:
        yield GatewayClient(session, server.port, "secret-token", timeout=2)


def frame(event: dict[str, object], ident: str | None = None) -> bytes:
    head = f"id: {ident}\n" if ident else ""
    return f"{head}event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def read(client: GatewayClient, last_id: str | None = None) -> tuple[list[tuple[str | None, Event]], str]:
    """Everything the stream gives, and why it ended."""
    got = []
    try:
        async for item in client.events(last_id):
            got.append(item)
    except Unreachable as error:
        return got, str(error)
    raise AssertionError("a stream that ends must say so")


class TestCalls:
    async def test_a_refusal_keeps_status_code_and_message(self, server: Standin, client: GatewayClient) -> None:
        server.answer(409, b'{"ok":false,"error":{"code":"stale","message":"the revision is 3"}}')
        with pytest.raises(ProtocolError) as caught:
            await client.cancel("run-1/x")
        assert (caught.value.status, caught.value.code) == (409, "stale")
        assert server.requests[0].startswith(b"POST /hooks/runs/run-1%2Fx/cancel HTTP")

    async def test_a_stranger_is_no_gateway(self, server: Standin, client: GatewayClient) -> None:
        server.answer(200, b"<html>", "text/html")
        with pytest.raises(Unreachable, match="not ours"):
            await client.status()

    async def test_a_redirect_is_not_followed(self, server: Standin, client: GatewayClient) -> None:
        server.answer(307, b"", Location=f"http://127.0.0.1:{server.port}/elsewhere")
        with pytest.raises(Unreachable, match="not ours"):
            await client.delegate(AgentHook(message="x"))
        assert len(server.requests) == 1

    async def test_nobody_there_is_said(self) -> None:
        with Lease() as lease:
            async with aiohttp.ClientSession() as session:
                client = GatewayClient(session, lease.ports[0], "t")
                with pytest.raises(Unreachable, match="connection refused"):
                    await client.status()
                with pytest.raises(Unreachable, match="connection refused"):
                    await anext(client.events())

    async def test_silence_ends_at_the_timeout(self, server: Standin) -> None:
        server.raw, server.hold = b"", True
        async with aiohttp.ClientSession() as session:
            with pytest.raises(Unreachable, match="no answer in time"):
                await GatewayClient(session, server.port, "t", timeout=0.1).status()

    async def test_a_connection_cut_is_said(self, server: Standin, client: GatewayClient) -> None:
        server.raw = b""
        with pytest.raises(Unreachable):
            await client.set_heartbeat(HeartbeatChange(enabled=False))


class TestEvents:
    async def test_ids_keepalives_and_segments_that_split_lines(self, server: Standin, client: GatewayClient) -> None:
        hello = {"type": "hello", "at": 0.5, "agent": "a", "instance": "i", "version": "v"}
        whole = (
            frame(hello)
            + b": alive\n\n"
            + frame(LOG, "i-7")
            + frame({"type": "gap", "at": 2, "agent": "a", "missed": 3})
        )
        server.stream(*(whole[n : n + 7] for n in range(0, len(whole), 7)))
        got, why = await read(client)
        assert [type(event) for _, event in got] == [HelloEvent, LogEvent, GapEvent]
        assert [ident for ident, _ in got] == [None, "i-7", "i-7"], "an event without an id leaves the place as it was"
        assert "stream ended" in why

    async def test_data_over_several_lines_is_one_event(self, server: Standin, client: GatewayClient) -> None:
        lines = json.dumps(LOG, indent=1).splitlines()
        server.stream(b"".join(f"data: {line}\n".encode() for line in lines) + b"\n")
        got, _ = await read(client)
        assert len(got) == 1

    async def test_carriage_returns_and_a_missing_space_are_fine(self, server: Standin, client: GatewayClient) -> None:
        server.stream(b"id:i-1\r\ndata:" + json.dumps(LOG).encode() + b"\r\n\r\n")
        got, _ = await read(client)
        assert [ident for ident, _ in got] == ["i-1"]

    async def test_an_event_cut_in_the_middle_is_dropped(self, server: Standin, client: GatewayClient) -> None:
        server.stream(frame(LOG, "i-1"), frame(LOG, "i-2")[:-9])
        got, why = await read(client)
        assert [ident for ident, _ in got] == ["i-1"]
        assert "stream ended" in why

    async def test_a_line_may_be_longer_than_a_buffer(self, server: Standin, client: GatewayClient) -> None:
        server.stream(frame({**LOG, "message": "x" * 600_000}, "i-1"))
        got, _ = await read(client)
        assert len(got[0][1].message) == 600_000

    async def test_a_line_without_end_is_given_up(self, server: Standin, client: GatewayClient) -> None:
        server.stream(b"data: " + b"x" * 9_000_000)
        got, why = await read(client)
        assert got == []
        assert "a line of more than" in why

    @pytest.mark.parametrize("data", [b"not json", b'{"type":"unheard"}', b"{}", b"\xff"])
    async def test_an_event_that_is_not_ours_ends_the_stream(
        self, server: Standin, client: GatewayClient, data: bytes
    ) -> None:
        server.stream(frame(LOG, "i-1"), b"data: " + data + b"\n\n")
        got, why = await read(client)
        assert len(got) == 1
        assert "not ours" in why

    async def test_it_asks_to_go_on_where_it_was(self, server: Standin, client: GatewayClient) -> None:
        server.stream()
        await read(client, "i-41")
        assert b"Last-Event-ID: i-41\r\n" in server.requests[0]

    async def test_a_refused_stream_is_a_refusal(self, server: Standin, client: GatewayClient) -> None:
        server.answer(401, b'{"ok":false,"error":{"code":"unauthorized","message":"no token"}}')
        with pytest.raises(ProtocolError, match="no token"):
            await anext(client.events())

    async def test_the_reader_may_leave_at_any_time(self, server: Standin, client: GatewayClient) -> None:
        server.stream(frame(LOG, "i-1"), hold=True)
        events = client.events()
        assert (await anext(events))[0] == "i-1"
        await events.aclose()
