"""The HTTP service kit: a table of routes, strict bodies, plain errors. What every headless process serves with.

One `Route` states a call completely (who may call it, what it takes and answers), so that routing, access control,
405s and `/openapi.json` all come from the same table.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from protocols.authority import OPERATOR, VIEWER
from protocols.decoding import decode_json
from protocols.errors import DecodeError, ProtocolError, StorageFull
from protocols.hooks import MAX_BODY_BYTES
from runtime.service.auth import Auth
from runtime.sqlite_writer import DiskFull

T = TypeVar("T")
log = logging.getLogger("http")


class Access(StrEnum):
    """Who may make a call."""

    OPEN = "open"
    """Anybody, without a token."""
    ANY = "any"
    """Every token of the cluster."""
    WATCH = "watch"
    """The operator and viewers."""
    WORK = "work"
    """The operator and agents; authority is the handler's."""
    OPERATOR = "operator"


class Call:
    """One request, its caller and its path's variables."""

    __slots__ = ("caller", "request")

    def __init__(self, request: web.Request, caller: str) -> None:
        self.request = request
        self.caller = caller

    def part(self, name: str) -> str:
        """A variable of the path."""
        return self.request.match_info[name]

    def query(self, name: str) -> str | None:
        return self.request.query.get(name)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in the query string, within bounds; raises ProtocolError 400."""
        raw = self.request.query.get(name)
        if raw is None:
            return default
        try:
            value = float(raw)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ProtocolError(400, "bad_query", f"query `{name}`: got {raw!r}, expected {low:g} to {high:g}")
        return value

    async def body(self, kind: type[T]) -> T:
        """The JSON body as `kind`; raises ProtocolError 400, 413 or 415."""
        request = self.request
        source = f"{request.method} {request.path}"
        if request.content_type != "application/json":
            raise ProtocolError(
                415, "unsupported_media_type", f"{source}: got {request.content_type}, send application/json"
            )
        try:
            data = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(source) from None
        except web.RequestPayloadError:
            raise ProtocolError(400, "bad_request", f"{source}: the body does not unpack as its headers say") from None
        try:
            return decode_json(data, kind, source)
        except DecodeError as error:
            raise ProtocolError(400, "bad_request", str(error)) from None


Handler = Callable[[Call], Awaitable[Any]]


class Route(msgspec.Struct, frozen=True):
    """One call of the API. A handler answers a Struct (200), `(status, Struct)`, or a response of its own."""

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    answer: Any = None
    body: Any = None
    query: dict[str, str] = {}


def build_app(routes: Iterable[Route], auth: Auth, *, allowed_hosts: Callable[[], Iterable[str]]) -> web.Application:
    """An aiohttp application that serves exactly `routes`."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_edge(auth, allowed_hosts)])
    for path, methods in table.items():
        app.router.add_route("*", path, _endpoint(methods, auth))
    return app


def _endpoint(methods: dict[str, Route], auth: Auth) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    allow = ", ".join(sorted(methods))

    async def serve(request: web.Request) -> web.StreamResponse:
        route = methods.get(request.method)
        if route is None:
            raise ProtocolError(
                405,
                "method_not_allowed",
                f"{request.path} takes {allow}, not {request.method}",
                headers={"Allow": allow},
            )
        caller = ""
        if route.access is not Access.OPEN:
            caller = auth.identify(request.headers, request.remote or "unknown")
        _admit(route, caller)
        result = await route.handler(Call(request, caller))
        if isinstance(result, web.StreamResponse):
            return result
        status = 200
        if isinstance(result, tuple):
            status, result = result
        return json_response(result, status)

    return serve


def _admit(route: Route, caller: str) -> None:
    access = route.access
    if access is Access.OPERATOR and caller != OPERATOR:
        raise ProtocolError(403, "operator_only", f"{route.method} {route.path} is the operator's; {caller} may not")
    if access is Access.WATCH and caller not in (OPERATOR, VIEWER):
        raise ProtocolError(403, "watchers_only", f"{route.path} is for the operator and viewers; {caller} may not")
    if access is Access.WORK and caller == VIEWER:
        raise ProtocolError(403, "read_only", "a viewer reads and never writes")


def json_response(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(answer), status=status, content_type="application/json", headers=headers
    )


def error_response(error: ProtocolError) -> web.Response:
    body = {"ok": False, "error": {"code": error.code, "message": error.message}}
    return json_response(body, error.status, error.headers)


def _too_large(source: str) -> ProtocolError:
    return ProtocolError(413, "too_large", f"{source}: the body is larger than {MAX_BODY_BYTES // 1024} KiB")


def _edge(auth: Auth, allowed_hosts: Callable[[], Iterable[str]]) -> Any:
    """The outermost layer: Host, query tokens and size are checked, every error becomes our JSON, every call a line."""

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_request(request, allowed_hosts)
            response: web.StreamResponse = await handler(request)  # type: ignore[arg-type]
        except ProtocolError as error:
            response = error_response(error)
            if request.content_length and request.content_length > MAX_BODY_BYTES:
                response.force_close()
        except (StorageFull, DiskFull) as error:
            response = error_response(ProtocolError(507, "storage_full", str(error)))
        except web.HTTPNotFound:
            response = error_response(ProtocolError(404, "not_found", f"nothing is served at {request.path}"))
        except web.HTTPException as error:
            response = error_response(ProtocolError(error.status, "refused", error.reason))
        except ConnectionResetError:
            response = web.Response(status=400)  # they hung up: nobody reads it, and nothing of ours failed
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = error_response(
                ProtocolError(500, "internal", f"{request.method} {request.path} failed; the agent's log says why")
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s %s", request.method, request.path, response.status)
        return response

    return edge


def _check_request(request: web.Request, allowed_hosts: Callable[[], Iterable[str]]) -> None:
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    host = host.strip("[]").lower()
    if not _loopback(host) and host not in {allowed.lower() for allowed in allowed_hosts()}:
        raise ProtocolError(
            421, "wrong_host", f"Host {request.host!r} is not served here; add it to allowed_hosts in cluster.toml"
        )
    if request.query_string and any(k in request.query for k in ("token", "access_token")):
        raise ProtocolError(
            400, "token_in_query", "a token in the URL ends up in logs; send it as `Authorization: Bearer TOKEN`"
        )
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise _too_large(f"{request.method} {request.path}")


@lru_cache(maxsize=64)
def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
