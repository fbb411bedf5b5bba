"""What goes wrong when a test asks for it: over REST by rules on requests, at the gateway by bot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from tests.standins.discord.model import Application

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """One rule. Of those that match a request the first that is not used up applies."""

    method: str = "*"
    path: str = "*"
    """Below /api/v10, such as `/channels/*/messages`; `*` matches slashes too, so end a pattern where the path ends."""
    bot: str | None = None
    """Only requests of this bot (user id)."""
    times: int = 1
    """How many requests; 0: all, until it is cleared."""
    skip: int = 0
    """Let so many matching requests pass first."""
    status: int | None = None
    """Answer this instead."""
    code: int = 0
    """Discord's error code in the body."""
    message: str = "injected"
    body: Any = None
    """Instead of the JSON of `message` and `code`: text as it is, anything else as JSON."""
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float = 0.3
    """Seconds; with status 429."""
    via: bool = True
    """With status 429: as Discord says it; without, as Cloudflare does."""
    everywhere: bool = False
    """With status 429: the global limit."""
    delay: float = 0.0
    """Seconds to wait: before the request is carried out, or with `after` before it is answered."""
    cut: str | None = None
    """`reset` (RST), `close` (FIN without an answer) or `hang` (never an answer)."""
    after: bool = False
    """True: the request is carried out, and then its answer is replaced: stored, but the sender is not told."""
    used: int = 0
    id: int = 0

    def matches(self, method: str, path: str, bot: str | None) -> bool:
        if self.times and self.used >= self.times:
            return False
        right = self.method in ("*", method) and fnmatchcase(path, self.path) and self.bot in (None, bot)
        if right and self.skip > 0:
            self.skip -= 1
            return False
        return right


class RestFaults:
    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self.hung = asyncio.Event()
        """Set when the server stops: ends what hangs."""
        self._count = 0

    def add(self, fault: Fault) -> int:
        self._count += 1
        fault.id = self._count
        self.rules.append(fault)
        return fault.id

    def clear(self, id: int | None = None) -> None:
        """One rule, or all."""
        self.rules = [rule for rule in self.rules if id is not None and rule.id != id]

    def take(self, method: str, path: str, bot: str | None) -> Fault | None:
        for rule in self.rules:
            if rule.matches(method, path, bot):
                rule.used += 1
                return rule
        return None

    def rows(self) -> list[dict[str, Any]]:
        return [asdict(rule) for rule in self.rules]

    async def apply(self, fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not fault.after:
            await asyncio.sleep(fault.delay)
        else:
            done = await handler(request)
            await asyncio.sleep(fault.delay)
            if fault.cut is None and fault.status is None:
                return done
        if fault.cut is not None:
            await self.cut(request, fault.cut)
            return web.Response(status=500)
        if fault.status is None:
            return await handler(request)
        return answer(fault)

    async def cut(self, request: web.Request, how: str) -> None:
        transport = request.transport
        if how == "hang":
            with contextlib.suppress(TimeoutError):
                await self.hung.wait()
        elif transport is not None:
            if how == "reset":
                reset_on_close(transport)
                transport.abort()
            else:
                transport.close()


def reset_on_close(transport: asyncio.Transport | asyncio.BaseTransport) -> None:
    """Have the kernel send RST instead of FIN."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(fault: Fault) -> web.Response:
    assert fault.status is not None
    body: Any = {"message": fault.message, "code": fault.code} if fault.body is None else fault.body
    headers = dict(fault.headers)
    if fault.status == 429:
        headers = {"Retry-After": str(max(1, round(fault.retry_after)))} | headers
        if fault.via:
            scope = "global" if fault.everywhere else "user"
            headers = {"Via": "1.1 google", "X-RateLimit-Scope": scope} | headers
            if fault.everywhere:
                headers["X-RateLimit-Global"] = "true"
            if fault.body is None:
                body = {"message": "You are being rate limited.", "global": fault.everywhere}
                body["retry_after"] = fault.retry_after
        elif fault.body is None:
            body = "error code: 1015"
    kind = "text/plain" if isinstance(body, str) else "application/json"
    data = body if isinstance(body, str) else json.dumps(body)
    return web.Response(body=data.encode(), status=fault.status, headers={"Content-Type": kind} | headers)


class GatewayFaults:
    """By bot (user id)."""

    def __init__(self) -> None:
        self._withheld: set[str] = set()
        self._refusals: dict[str, list[int]] = {}
        self._repeated: dict[str, int] = {}

    def withhold(self, app: Application, on: bool) -> None:
        (self._withheld.add if on else self._withheld.discard)(app.user_id)

    def withheld(self, app: Application) -> bool:
        return app.user_id in self._withheld

    def refuse(self, app: Application, code: int, times: int) -> None:
        """Close its next IDENTIFYs with `code`."""
        self._refusals.setdefault(app.user_id, []).extend([code] * times)

    def refusal(self, app: Application) -> int | None:
        waiting = self._refusals.get(app.user_id)
        return waiting.pop(0) if waiting else None

    def repeat(self, app: Application, count: int) -> None:
        """At its next RESUME, replay so many dispatches that it has had already."""
        self._repeated[app.user_id] = count

    def take_repeated(self, app: Application) -> int:
        return self._repeated.pop(app.user_id, 0)
