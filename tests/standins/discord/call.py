"""One REST request as the handlers see it, and the way every request goes: log, faults, limits, refusals."""

from __future__ import annotations

import asyncio
import json
import math
import mimetypes
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import BodyPartReader, web

from tests.standins.discord.faults import RestFaults
from tests.standins.discord.model import Application, Attachment, Refused
from tests.standins.discord.state import State
from tests.standins.discord.wire import SIZE_LIMIT

API = "/api/v10"
LOGGED_BODY = 8000


@dataclass
class Call:
    """A request: who asks, the JSON body (of a form: its payload_json), the files by their number in the form."""

    request: web.Request
    app: Application | None
    body: Any = None
    files: dict[int, tuple[str, str, bytes]] = field(default_factory=dict)

    @property
    def bot(self) -> Application:
        if self.app is None:
            raise Refused(401, 0, "401: Unauthorized")
        return self.app

    @property
    def me(self) -> str:
        """The bot's user id."""
        return self.bot.user_id

    def part(self, name: str) -> str:
        """A part of the path, such as an id."""
        return unquote(self.request.match_info[name])

    def attachments(self, state: State, channel: str) -> list[Attachment]:
        """The uploaded files as attachments of this channel."""
        told = {str(row.get("id")): row for row in (self.body or {}).get("attachments") or []}
        made = []
        for number, (name, kind, data) in sorted(self.files.items()):
            if len(data) > SIZE_LIMIT:
                raise Refused(413, 40005, "Request entity too large")
            row = told.get(str(number), {})
            filename = row.get("filename") or name
            guessed = kind if kind != "application/octet-stream" else mimetypes.guess_type(filename)[0] or kind
            made.append(Attachment(state.snowflake(), channel, filename, guessed, data, row.get("description")))
        return made


CALL = web.RequestKey("call", Call)


async def read(request: web.Request, app: Application | None) -> Call:
    """Parse the body; 400 50109 for broken JSON."""
    call = Call(request, app)
    if request.content_type == "multipart/form-data":
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            name, data = part.name or "", bytes(await part.read())
            if name == "payload_json":
                call.body = json.loads(data)
            elif name.startswith("files["):
                kind = part.headers.get("Content-Type", "application/octet-stream")
                filename = part.filename or "file"
                call.files[int(name[6:-1])] = (filename, kind, data)
    elif request.can_read_body:
        try:
            call.body = json.loads(await request.read())
        except ValueError:
            raise Refused(400, 50109, "The request body contains invalid JSON.") from None
    return call


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON with exactly the Content-Type that discord.py takes for JSON; None: no body."""
    if body is None:
        return web.Response(status=status if status != 200 else 204)
    return web.Response(body=msgspec.json.encode(body), status=status, headers={"Content-Type": "application/json"})


class Limits:
    """Rate-limit buckets: so many requests per window, per bot and per first id in the path."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, str, int, float]] = [("PATCH", "/channels/*/messages/*", 5, 5.0)]
        """(method, path below /api/v10, requests, seconds)."""
        self._windows: dict[tuple[str, str, int], tuple[float, int]] = {}

    def clear(self) -> None:
        self.rules, self._windows = [], {}

    def check(self, method: str, path: str, token: str) -> tuple[dict[str, str], float | None]:
        """The headers to send along, and, if this request is one too many, the seconds to wait."""
        for number, (verb, pattern, count, seconds) in enumerate(self.rules):
            if verb != method or not fnmatchcase(path, pattern):
                continue
            key = (token, (*path.split("/"), "", "")[2], number)
            now = time.monotonic()
            ends, used = self._windows.get(key, (0.0, 0))
            if now >= ends:
                ends, used = now + seconds, 0
            over = used >= count
            self._windows[key] = (ends, used + (not over))
            left = ends - now
            headers = {
                "X-RateLimit-Bucket": f"{zlib.crc32(f'{method} {pattern}'.encode()):08x}{number:04x}",
                "X-RateLimit-Limit": str(count),
                "X-RateLimit-Remaining": str(max(0, count - used - 1)),
                "X-RateLimit-Reset": f"{time.time() + left:.3f}",
                "X-RateLimit-Reset-After": f"{math.ceil(left * 1000) / 1000:.3f}",
            }
            return headers, left if over else None
        return {}, None


class Pipeline:
    """The middleware of /api and /cdn."""

    def __init__(self, state: State, faults: RestFaults, limits: Limits) -> None:
        self.state = state
        self.faults = faults
        self.limits = limits

    @web.middleware
    async def __call__(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path == "/gw":
            return await handler(request)
        path = request.path.removeprefix(API)
        token = request.headers.get("Authorization", "").removeprefix("Bot ")
        app = self.state.by_token(token)
        row: dict[str, Any] = {
            "time": self.state.clock.now(),
            "method": request.method,
            "path": path,
            "query": request.query_string,
            "bot": app.name if app else None,
            "status": None,
            "done": False,
            "authorized": "Authorization" in request.headers,
        }
        self.state.requests.append(row)
        fault = self.faults.take(request.method, path, app.user_id if app else None)

        async def carry_out(request: web.Request) -> web.StreamResponse:
            return await self._carry_out(request, handler, app, row)

        if fault is None:
            done = await carry_out(request)
        else:
            row["fault"] = fault.id
            try:
                done = await self.faults.apply(fault, request, carry_out)
            except asyncio.CancelledError:  # the client has gone
                row["done"] = True
                raise
        row |= {"status": None if fault is not None and fault.cut else done.status, "done": True}
        self.state.changed()
        return done

    async def _carry_out(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        app: Application | None,
        row: dict[str, Any],
    ) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            call = await read(request, app)
            row["body"] = call.body if len(str(call.body)) <= LOGGED_BODY else str(call.body)[:LOGGED_BODY]
            if app is not None:
                headers, wait = self.limits.check(request.method, row["path"], app.token)
                if wait is not None:
                    return limited(wait, headers)
            request[CALL] = call
            done = await handler(request)
        except Refused as error:
            done = answer(error.body, error.status)
        except web.HTTPException as error:
            done = answer({"message": f"{error.status}: {error.reason}", "code": 0}, error.status)
        done.headers.update(headers)
        return done


def limited(wait: float, headers: dict[str, str]) -> web.Response:
    body = {"message": "You are being rate limited.", "retry_after": round(wait, 3), "global": False}
    done = answer(body, 429)
    more = {"Via": "1.1 google", "Retry-After": str(math.ceil(wait)), "X-RateLimit-Scope": "user"}
    done.headers.update(headers | more)
    return done
