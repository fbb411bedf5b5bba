"""Signing in: an authorization code with PKCE (RFC 7636), brought back by a redirect to this machine or by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import queue
import secrets
import threading
import urllib.parse
from types import TracebackType

import msgspec

from runtime.oauth.settings import OAuthError, OAuthSettings

HOST = "127.0.0.1"
_DONE = b"<!doctype html><title>Atomizer</title><p>Signed in. You can close this page and go back to the terminal.</p>"
_FAILED = b"<!doctype html><title>Atomizer</title><p>Not signed in: the terminal says why.</p>"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to sign in. `verifier` and `state` stay in this process."""

    url: str
    """For the browser."""
    redirect_uri: str
    verifier: str
    state: str

    def __repr__(self) -> str:
        return f"Attempt({self.redirect_uri!r})"


def begin(settings: OAuthSettings, port: int) -> Attempt:
    """An attempt whose redirect comes to `port` of this machine."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect_uri = f"http://localhost:{port}{settings.redirect_path}"
    query = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(settings.scopes),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "state": state,
        **settings.extra,
    }
    joint = "&" if "?" in settings.authorize_url else "?"
    url = f"{settings.authorize_url}{joint}{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}"
    return Attempt(url, redirect_uri, verifier, state)


def code_of(attempt: Attempt, brought: str) -> str:
    """The code in a redirect's URL, its query, or `code#state`, as a person may paste it; raises OAuthError.

    The state must be ours: another one belongs to an attempt that somebody else began. Raised without it as well.
    """
    brought = brought.strip()
    if "=" in brought:
        query = urllib.parse.urlsplit(brought).query if "?" in brought else brought
        given = {key: values[-1] for key, values in urllib.parse.parse_qs(query).items()}
    else:
        code, _, state = brought.partition("#")
        given = {"code": code, "state": state}
    if not hmac.compare_digest(given.get("state", "").encode(), attempt.state.encode()):
        raise OAuthError(
            "the state of this answer is not the one of this sign-in; nothing was stored. "
            "Open the address that was just printed, and paste the whole address you are sent to"
        )
    if "error" in given:
        told = given.get("error_description") or given["error"]
        raise OAuthError(f"the server did not let you in: {told}")
    if not given.get("code"):
        raise OAuthError("there is no code in this; paste the whole address you were sent to")
    return given["code"]


class Listener:
    """Waits on this machine for the browser. `answers` gets each redirect's URL, as it came."""

    def __init__(self, settings: OAuthSettings) -> None:
        """Raises OAuthError if no port is free."""
        self.answers: queue.Queue[str] = queue.Queue()
        self._settings = settings
        self._server = self._bind()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True, name="redirect")
        self.attempt = begin(settings, self.port)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _bind(self) -> http.server.ThreadingHTTPServer:
        for port in self._settings.redirect_ports:
            try:
                return _Server((HOST, port), self._handler())
            except OSError:
                continue
        ports = " and ".join(str(port) for port in self._settings.redirect_ports)
        raise OAuthError(
            f"port {ports} of this machine is taken, and the browser must be sent back there; "
            "end the other sign-in (or program) and try again"
        )

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                listener._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the line would hold the code."""

        return Handler

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if urllib.parse.urlsplit(request.path).path != self._settings.redirect_path:
            return _send(request, 404, b"not found")
        try:
            code_of(self.attempt, request.path)
        except OAuthError:
            if "state=" + self.attempt.state in request.path:  # the server's own refusal
                self.answers.put(request.path)
            return _send(request, 400, _FAILED)  # a stranger's redirect does not end the sign-in
        self.answers.put(request.path)
        return _send(request, 200, _DONE)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _send(request: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", "text/html; charset=utf-8")
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Cache-Control", "no-store")
    request.send_header("Referrer-Policy", "no-referrer")
    request.send_header("Connection", "close")
    request.end_headers()
    request.wfile.write(body)
