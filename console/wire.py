"""The console's way to one gateway, without aiohttp: ten MiB and a third of a CPU second less than with it.

Single calls go through `protocols.ask` in a thread; the event stream is read from a plain asyncio connection.
What a gateway says passes `printable_json` here, before it is decoded: nothing in the console holds a control
character that a model, a web page or a log wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from protocols.approvals import Approval, ApprovalAnswer, ApprovalList
from protocols.ask import Ask, refusal
from protocols.control import Acted, HeartbeatChange, LogList, ModelChange, ModelChanged
from protocols.errors import Unreachable
from protocols.events import Event
from protocols.hooks import AgentAccepted, AgentHook
from protocols.runs import Run, RunList
from protocols.status import AgentStatus
from protocols.text import printable, printable_json

T = TypeVar("T")

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 45.0
"""A stream silent for so long is dead: gateways send a comment every 15 s."""
CHUNK_BYTES = 64 * 1024
LARGEST_EVENT = 4 * 1024 * 1024

_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class AgentClient:
    """Calls one gateway. Raises ProtocolError for a refusal, Unreachable if nobody answers."""

    def __init__(self, port: int, token: str, host: str = "127.0.0.1") -> None:
        self._host, self._port, self._token = host, port, token
        self._ask = Ask(port, token, host, CONNECT_SECONDS, to_show=True)

    async def status(self) -> AgentStatus:
        return await self._get("/status", AgentStatus)

    async def runs(self, limit: int = 50) -> RunList:
        return await self._get(f"/hooks/runs?limit={limit}", RunList)

    async def run(self, run_id: str, whole: bool = False) -> Run:
        """`whole`: with the steps' outputs uncut."""
        return await self._get(f"/hooks/runs/{quote(run_id, safe='')}{'?whole=1' if whole else ''}", Run)

    async def logs(self, limit: int) -> LogList:
        return await self._get(f"/logs?limit={limit}&level=debug", LogList)

    async def approvals(self, every: bool = False) -> ApprovalList:
        """What waits for an answer; with `every` also what was answered."""
        return await self._get("/approvals?all=1" if every else "/approvals", ApprovalList)

    async def delegate(self, hook: AgentHook) -> AgentAccepted:
        return await self._send("POST", "/hooks/agent", hook, AgentAccepted)

    async def cancel(self, run_id: str) -> Acted:
        return await self._send("POST", f"/hooks/runs/{quote(run_id, safe='')}/cancel", {}, Acted)

    async def set_model(self, model: str | None) -> ModelChanged:
        return await self._send("PUT", "/control/model", ModelChange(model=model), ModelChanged)

    async def set_heartbeat(self, change: HeartbeatChange) -> Acted:
        return await self._send("PUT", "/control/heartbeat", change, Acted)

    async def beat_now(self) -> Acted:
        return await self._send("POST", "/control/heartbeat/now", {}, Acted)

    async def answer(
        self, approval_id: str, decision: Literal["approve", "reject"], revision: int, reason: str
    ) -> Approval:
        """Answer a question; a `revision` that is no longer current is refused with 409."""
        body = ApprovalAnswer(decision=decision, revision=revision, reason=reason)
        return await self._send("POST", f"/approvals/{quote(approval_id, safe='')}", body, Approval)

    async def events(self, last_id: str | None = None) -> AsyncGenerator[tuple[str | None, Event]]:
        """(id, event) as they come, until the connection ends: then Unreachable. Reconnecting is the caller's."""
        address = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=4 * CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            raise Unreachable(_reason(error)) from None
        try:
            lines = [f"GET /events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {self._token}"]
            lines += ["Accept: text/event-stream", *([f"Last-Event-ID: {last_id}"] if last_id else [])]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            chunked = await self._check(reader)
            async for block in _blocks(reader, chunked):
                ident, data = _fields(block)
                if data:
                    yield ident, _EVENT.decode(printable_json(data))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            raise Unreachable(_reason(error)) from None
        finally:
            writer.close()
        raise Unreachable("the event stream ended")

    async def _check(self, reader: asyncio.StreamReader) -> bool:
        """Read the answer's head; true if its body comes in chunks. Raises ProtocolError for a refusal."""
        async with asyncio.timeout(CONNECT_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            version, _, rest = head[0].partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
                raise Unreachable(f"what listens on port {self._port} does not speak HTTP")
            headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
            if int(rest[:3]) >= 400:
                length = int(headers.get("content-length", "0") or 0)
                body = await reader.readexactly(min(length, CHUNK_BYTES))
                raise refusal(int(rest[:3]), printable_json(body))
        return headers.get("transfer-encoding", "").lower() == "chunked"

    async def _get(self, path: str, kind: type[T]) -> T:
        return await asyncio.to_thread(self._ask.get, path, kind)

    async def _send(self, method: str, path: str, body: Any, kind: type[T]) -> T:
        return await asyncio.to_thread(self._ask.send, method, path, body, kind)


async def _blocks(reader: asyncio.StreamReader, chunked: bool) -> AsyncIterator[bytes]:
    """The stream's events as blocks of lines, without the empty line that ends each."""
    rest = b""
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            data = await _chunk(reader) if chunked else await reader.read(CHUNK_BYTES)
        if not data:
            return
        *whole, rest = (rest + data.replace(b"\r\n", b"\n")).split(b"\n\n")
        for block in whole:
            yield block
        await asyncio.sleep(0)  # buffered data is read without waiting: let the screen have its turn
        if len(rest) > LARGEST_EVENT:
            raise ValueError("an event without an end")


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


def _fields(block: bytes) -> tuple[str | None, bytes]:
    """(id, data) of one event; comments have neither."""
    ident: str | None = None
    data: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"id:"):
            ident = line[3:].strip().decode()
    return ident, b"\n".join(data)


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the event stream ended"
    return printable(str(error)) or type(error).__name__
