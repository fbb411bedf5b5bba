"""One-shot client on the standard library, for commands that only ask: no event loop, no aiohttp."""

from __future__ import annotations

import http.client
import json
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from protocols.errors import ProtocolError, Unreachable

T = TypeVar("T")


class Ask:
    """Calls one gateway, a connection per call. Raises ProtocolError for a refusal, Unreachable if nobody answers."""

    def __init__(self, port: int, token: str | None = None, host: str = "127.0.0.1", timeout: float = 5.0) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        self._token = token

    def get(self, path: str, kind: type[T], *, timeout: float | None = None) -> T:
        return self._decode(self._call("GET", path, None, timeout), kind, path)

    def send(self, method: str, path: str, body: Any, kind: type[T], *, timeout: float | None = None) -> T:
        return self._decode(self._call(method, path, body, timeout), kind, path)

    def raw(self, path: str) -> bytes:
        """What is answered, as it came."""
        return self._call("GET", path, None, None)

    def run(self, run_id: str, wait: float = 0) -> Any:
        """The run, after waiting at most `wait` seconds for its end."""
        from protocols.runs import Run

        path = f"/hooks/runs/{quote(run_id, safe='')}"
        if wait:
            path += f"?wait={wait:g}"
        return self.get(path, Run, timeout=self.timeout + wait)

    def _decode(self, data: bytes, kind: type[T], path: str) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Unreachable(f"{self.host}:{self.port}{path} answered something that is not ours: {error}") from None

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
            raw = answer.read()
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


def refusal(status: int, raw: bytes) -> ProtocolError:
    """The error a refused call's body describes; an unknown body is quoted."""
    try:
        error = json.loads(raw)["error"]
        return ProtocolError(status, str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ProtocolError(status, "unknown", f"HTTP {status}: {raw[:200].decode('utf-8', 'replace')}")
