"""Async client of one gateway, on aiohttp: what the console and the gateways themselves call each other with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from protocols.ask import refusal
from protocols.control import (
    Acted,
    HeartbeatChange,
    LogList,
    ModelChange,
    ModelChanged,
    SessionList,
    Transcript,
)
from protocols.errors import Unreachable
from protocols.events import Event
from protocols.hooks import AgentAccepted, AgentHook, ChildReport, DelegationRequest
from protocols.runs import Run, RunList
from protocols.status import AgentStatus

T = TypeVar("T")

_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
IDLE_SECONDS = 45.0
"""A stream silent for so long is dead: gateways send a comment every 15 s."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A line of a stream that is longer comes from no gateway."""


class GatewayClient:
    """Calls one gateway. Raises ProtocolError for a refusal, Unreachable if nobody answers.

    The session is the caller's: it may serve many clients, and the caller closes it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        port: int,
        token: str,
        host: str = "127.0.0.1",
        timeout: float = 5.0,
    ) -> None:
        self._session = session
        self._base = f"http://{host}:{port}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout = timeout

    async def status(self) -> AgentStatus:
        return await self._call("GET", "/status", AgentStatus)

    async def delegate(self, hook: AgentHook) -> AgentAccepted:
        return await self._call("POST", "/hooks/agent", AgentAccepted, hook)

    async def request_delegation(self, request: DelegationRequest) -> AgentAccepted:
        return await self._call("POST", "/hooks/request", AgentAccepted, request)

    async def report(self, report: ChildReport) -> Acted:
        return await self._call("POST", "/hooks/report", Acted, report)

    async def run(self, run_id: str, wait: float = 0) -> Run:
        """The run, after waiting at most `wait` seconds for its end."""
        path = f"/hooks/runs/{quote(run_id, safe='')}" + (f"?wait={wait:g}" if wait else "")
        return await self._call("GET", path, Run, timeout=self._timeout + wait)

    async def runs(self, limit: int = 50) -> RunList:
        return await self._call("GET", f"/hooks/runs?limit={limit}", RunList)

    async def cancel(self, run_id: str) -> Acted:
        return await self._call("POST", f"/hooks/runs/{quote(run_id, safe='')}/cancel", Acted, {})

    async def set_model(self, model: str | None) -> ModelChanged:
        return await self._call("PUT", "/control/model", ModelChanged, ModelChange(model=model))

    async def set_heartbeat(self, change: HeartbeatChange) -> Acted:
        return await self._call("PUT", "/control/heartbeat", Acted, change)

    async def beat_now(self) -> Acted:
        return await self._call("POST", "/control/heartbeat/now", Acted, {})

    async def drain(self) -> Acted:
        return await self._call("POST", "/control/drain", Acted, {})

    async def reload(self) -> Acted:
        return await self._call("POST", "/control/reload", Acted, {})

    async def logs(self, limit: int = 200, level: str = "info") -> LogList:
        return await self._call("GET", f"/logs?limit={limit}&level={level}", LogList)

    async def sessions(self) -> SessionList:
        return await self._call("GET", "/sessions", SessionList)

    async def transcript(self, key: str, limit: int = 200, before: int | None = None) -> Transcript:
        """The newest messages, or those next before `before`: `Transcript.before` of another page."""
        page = f"limit={limit}" + ("" if before is None else f"&before={before}")
        return await self._call("GET", f"/sessions/{quote(key, safe='')}?{page}", Transcript)

    async def events(self, last_id: str | None = None) -> AsyncIterator[tuple[str | None, Event]]:
        """(id, event) as they come, until the connection ends: then Unreachable. Reconnecting is the caller's."""
        headers = dict(self._headers)
        if last_id:
            headers["Last-Event-ID"] = last_id
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=IDLE_SECONDS)
        try:
            async with self._session.get(
                f"{self._base}/events", headers=headers, timeout=limits, allow_redirects=False
            ) as answer:
                if answer.status >= 400:
                    raise refusal(answer.status, await answer.read())
                ident: str | None = None
                data: list[bytes] = []
                async for line in _lines(answer.content):
                    if line.startswith(b"data:"):
                        data.append(line[5:].removeprefix(b" "))
                    elif line.startswith(b"id:"):
                        ident = line[3:].strip().decode()
                    elif not line and data:
                        yield ident, _EVENT.decode(b"\n".join(data))
                        data.clear()
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{self._base}/events sent something that is not ours: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(f"{self._base}: {_reason(error)}") from None
        raise Unreachable(f"{self._base}: the event stream ended")

    async def _call(self, method: str, path: str, kind: type[T], body: Any = None, timeout: float | None = None) -> T:
        headers, data = self._headers, None
        if body is not None:
            data = msgspec.json.encode(body)
            headers = {**headers, "Content-Type": "application/json"}
        limit = aiohttp.ClientTimeout(total=timeout or self._timeout)
        try:
            async with self._session.request(
                method, self._base + path, data=data, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{self._base}: {_reason(error)}") from None
        if answer.status >= 400:
            raise refusal(answer.status, raw)
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Unreachable(f"{self._base}{path} answered something that is not ours: {error}") from None


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of `stream` without their ends; raises ValueError for one that does not end.

    aiohttp's own iteration gives up at 128 KiB, which one event may exceed.
    """
    rest = bytearray()
    async for chunk in stream.iter_any():
        searched = len(rest)
        rest += chunk
        start = 0
        while (end := rest.find(b"\n", max(start, searched))) >= 0:
            yield bytes(rest[start:end]).removesuffix(b"\r")
            start = end + 1
        del rest[:start]
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connection refused" if isinstance(error.os_error, ConnectionRefusedError) else str(error.os_error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
