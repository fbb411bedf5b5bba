"""One-shot client on the standard library, for commands that only ask: no event loop, no aiohttp."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from protocols.errors import ProtocolError, Unreachable
from protocols.text import printable, printable_json

T = TypeVar("T")


class Ask:
    """Calls one gateway, a connection per call. Raises ProtocolError for a refusal, Unreachable if nobody answers."""

    def __init__(
        self, port: int, token: str | None = None, host: str = "127.0.0.1", timeout: float = 5.0, to_show: bool = False
    ) -> None:
        """`to_show`: what is answered goes to a screen and nowhere else, so control characters are made visible."""
        self.host, self.port, self.timeout = host, port, timeout
        self._token = token
        self._to_show = to_show

    def get(self, path: str, kind: type[T], *, timeout: float | None = None) -> T:
        return self._decode(self._call("GET", path, None, timeout), kind, path)

    def send(self, method: str, path: str, body: Any, kind: type[T], *, timeout: float | None = None) -> T:
        return self._decode(self._call(method, path, body, timeout), kind, path)

    def raw(self, path: str) -> bytes:
        """What is answered, as it came."""
        return self._call("GET", path, None, None)

    def run(self, run_id: str, wait: float = 0, whole: bool = False) -> Any:
        """The run, after waiting at most `wait` seconds for its end; `whole`: with its steps' outputs uncut."""
        from protocols.runs import Run

        path = f"/hooks/runs/{quote(run_id, safe='')}"
        query = [f"wait={wait:g}"] * bool(wait) + ["whole=1"] * whole
        if query:
            path += f"?{'&'.join(query)}"
        return self.get(path, Run, timeout=self.timeout + wait)

    def _decode(self, data: bytes, kind: type[T], path: str) -> T:
        try:
            return _decoder_of(kind).decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            problem = printable(f"{self.host}:{self.port}{path} answered something that is not ours: {error}")
            raise Unreachable(problem) from None

    def _call(self, method: str, path: str, body: Any, timeout: float | None) -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout or self.timeout)
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            raw = printable_json(answer.read()) if self._to_show else answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = (
                "connection refused"
                if isinstance(error, ConnectionRefusedError)
                else str(error) or type(error).__name__
            )
            raise Unreachable(f"nobody answers on {self.host}:{self.port} ({reason})") from None
        finally:
            connection.close()
        if answer.status >= 400 and not (path == "/ready" and answer.status == 503):
            raise refusal(answer.status, raw)
        return raw


_BUILDING = threading.Lock()
_BUILT: dict[Any, msgspec.json.Decoder[Any]] = {}


def _decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type, made by one thread at a time.

    msgspec 0.22 crashes the process where two threads are the first to use the same Struct at once; callers ask
    many gateways from as many threads.
    """
    with _BUILDING:
        if kind not in _BUILT:
            _BUILT[kind] = msgspec.json.Decoder(kind)
        return _BUILT[kind]


def refusal(status: int, raw: bytes) -> ProtocolError:
    """The error a refused call's body describes; an unknown body is quoted."""
    try:
        error = json.loads(raw)["error"]
        return ProtocolError(status, str(error["code"]), printable(str(error["message"])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ProtocolError(status, "unknown", f"HTTP {status}: {printable(raw[:200].decode('utf-8', 'replace'))}")
