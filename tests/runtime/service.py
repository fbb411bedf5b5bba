"""A real server made with the service kit, and a way to say anything to it byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from protocols.control import Acted
from protocols.errors import ProtocolError
from protocols.health import Health
from protocols.hooks import MAX_BODY_BYTES, AgentAccepted, AgentHook
from runtime.secrets import token_hash
from runtime.service.app import Access, Call, Route, StorageFull, build_app
from runtime.service.auth import Auth
from runtime.sqlite_writer import DiskFull
from tests.ports import Lease

TOKENS = {"operator": "operator-token", "viewer": "viewer-token", "webster": "webster-token"}
LIMIT = MAX_BODY_BYTES


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refused(self) -> tuple[int, str]:
        """(status, code); fails unless the body is our error and nothing more."""
        assert self.headers["content-type"].startswith("application/json")
        assert set(self.json) == {"ok", "error"}
        assert set(self.json["error"]) == {"code", "message"}
        assert self.json["ok"] is False
        return self.status, self.json["error"]["code"]

    @property
    def message(self) -> str:
        return self.json["error"]["message"]


class Service:
    """The server and its parts; `say` is one request on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clock = Clock()
        self.auth = Auth({token_hash(token): owner for owner, token in TOKENS.items()}, clock=self.clock)
        self.allowed_hosts: list[str] = []
        self.bodies: list[AgentHook] = []

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/health", self.health, Access.OPEN, "open", Health),
            Route("GET", "/anyone", self.who, Access.ANY, "any token", Acted, query={"limit": "1 to 5"}),
            Route("GET", "/watch", self.who, Access.WATCH, "watchers", Acted),
            Route("POST", "/hooks/agent", self.hook, Access.WORK, "work", AgentAccepted, body=AgentHook),
            Route("PUT", "/control", self.who, Access.OPERATOR, "operator", Acted),
            Route("DELETE", "/control", self.who, Access.OPERATOR, "operator", Acted),
            Route("GET", "/items/{key:.+}", self.item, Access.ANY, "an item"),
            Route("POST", "/fail/{how}", self.fail, Access.ANY, "fails"),
        ]

    async def health(self, call: Call) -> Health:
        return Health(ok=True, status="live", service="s", agent="a", instance="i", version="v")

    async def who(self, call: Call) -> Acted:
        call.number("limit", 3, 1, 5)
        return Acted(ok=True, outcome=call.caller)

    async def hook(self, call: Call) -> tuple[int, AgentAccepted]:
        self.bodies.append(await call.body(AgentHook))
        return 202, AgentAccepted(ok=True, run_id="run-0001", status="queued", status_url="/")

    async def item(self, call: Call) -> web.Response:
        return web.Response(text=call.part("key"))

    async def fail(self, call: Call) -> None:
        errors = {
            "storage": StorageFull("the disk is full; free some space"),
            "ledger": DiskFull("the ledger cannot be written"),
            "refused": ProtocolError(409, "stale", "the revision is 3", headers={"X-More": "yes"}),
            "bug": RuntimeError("a secret of the inside"),
        }
        raise errors[call.part("how")]

    async def say(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = TOKENS["operator"],
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        sent |= headers or {}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items() if v != "absent")
        return await self.raw(head.encode("latin-1") + b"\r\n" + (body or b""))

    async def raw(self, request: bytes) -> Answer:
        """The answer to `request`; what the server does not read is not pressed on it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                status, _, lines = head.decode().partition("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines.strip().split("\r\n"))}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(status.split()[1]), headers, body)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def service() -> AsyncIterator[Service]:
    with Lease() as lease:
        made = Service(lease.ports[0])
        app = build_app(made.routes(), made.auth, allowed_hosts=lambda: made.allowed_hosts)
        async with serving(app, made.port):
            yield made
