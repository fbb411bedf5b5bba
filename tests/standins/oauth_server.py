"""A local authorization server: codes with PKCE, single-use refresh tokens, and a count of what it was asked.

In-process: `async with OAuthServer() as server`. As a process: `python -m tests.standins.oauth_server [--port N]
[--grace]`, which prints its url and answers `GET /__standin/state`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

CLIENT = "standin-client"


class OAuthServer:
    """Its tokens are opaque, except that the id token is a JWT with an account, as OpenAI's is."""

    def __init__(self, *, lifetime: float = 3600.0, grace: bool = False) -> None:
        """`grace`: a spent refresh token may be shown once more, as some servers allow for lost answers."""
        self.lifetime = lifetime
        self.grace = grace
        self.refreshes = 0
        """Refreshes that were granted."""
        self.refused = 0
        self.asked = 0
        """Refreshes that were asked for, granted or not."""
        self.fail_with = 0
        """A status to answer every refresh with, before any token is looked at."""
        self.before: Callable[[], None] | None = None
        """Called when a refresh comes in, before the token is spent."""
        self.after: Callable[[], None] | None = None
        """Called when the token is spent, before the answer goes out."""
        self.hold: asyncio.Event | None = None
        """If set, the answer waits for it after the token is spent."""
        self.spent = asyncio.Event()
        self.last_redirect = ""
        self._codes: dict[str, dict[str, str]] = {}
        self._valid: set[str] = set()
        self._spent: dict[str, int] = {}
        self._access: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def toml(self, base_url: str, *, redirect_port: int = 0) -> str:
        """The table of cluster.toml that points here."""
        return (
            f'[providers.openai.oauth]\nauthorize_url = "{self.url}/oauth/authorize"\n'
            f'token_url = "{self.url}/oauth/token"\nclient_id = "{CLIENT}"\nredirect_port = {redirect_port}\n'
            f'base_url = "{base_url}"\n'
        )

    def issue(self) -> tuple[str, str]:
        """(access token, refresh token), as if somebody had signed in."""
        access, refresh = "at-" + secrets.token_urlsafe(24), "rt-" + secrets.token_urlsafe(24)
        self._access[access] = time.time() + self.lifetime
        self._valid.add(refresh)
        return access, refresh

    def revoke_access(self) -> None:
        """No access token given so far works any more."""
        self._access.clear()

    def accepts(self, access: str) -> bool:
        return self._access.get(access, 0.0) > time.time()

    async def __aenter__(self) -> OAuthServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/oauth/authorize", self._authorize)
        app.router.add_post("/oauth/token", self._token)
        app.router.add_get("/__standin/state", self._state)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The user agrees at once; with `deny=1` they do not."""
        asked = dict(request.query)
        wrong = [
            key
            for key, value in (("response_type", "code"), ("client_id", CLIENT), ("code_challenge_method", "S256"))
            if asked.get(key) != value
        ]
        if wrong or not asked.get("state") or not asked.get("code_challenge") or "offline_access" not in asked["scope"]:
            return web.Response(status=400, text=f"bad authorize request: {wrong}")
        if asked.get("deny"):
            query = {"error": "access_denied", "error_description": "The user said no.", "state": asked["state"]}
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = asked
            query = {"code": code, "state": asked["state"]}
        self.last_redirect = f"{asked['redirect_uri']}?{urlencode(query)}"
        return web.Response(status=302, headers={"Location": self.last_redirect})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = dict(await request.post())
        if form.get("client_id") != CLIENT:
            return web.json_response({"error": "invalid_client"}, status=401)
        if form.get("grant_type") == "authorization_code":
            return self._redeem({key: str(value) for key, value in form.items()})
        return await self._refresh(str(form.get("refresh_token")))

    def _redeem(self, form: dict[str, str]) -> web.Response:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            return web.json_response({"error": "invalid_grant", "error_description": "bad code"}, status=400)
        return self._granted(*self.issue())

    async def _refresh(self, token: str) -> web.StreamResponse:
        self.asked += 1
        if self.before is not None:
            self.before()
        if self.fail_with:
            return web.json_response({"error": {"message": "try later"}}, status=self.fail_with)
        shown = self._spent.get(token, 0)
        if token not in self._valid and not (self.grace and shown == 1):
            self.refused += 1
            told = "Your refresh token has already been used to generate a new access token."
            code = "refresh_token_reused" if shown else "invalid_grant"
            error = {"message": told if shown else "unknown token", "type": "invalid_request_error", "code": code}
            return web.json_response({"error": error}, status=401)
        self._valid.discard(token)
        self._spent[token] = shown + 1
        self.refreshes += 1
        answer = self._granted(*self.issue())
        self.spent.set()
        if self.after is not None:
            self.after()
        if self.hold is not None:
            await self.hold.wait()
        return answer

    def _granted(self, access: str, refresh: str) -> web.Response:
        about = {"https://api.openai.com/auth": {"chatgpt_account_id": "acct-1"}}
        body = base64.urlsafe_b64encode(json.dumps(about).encode()).rstrip(b"=").decode()
        return web.json_response(
            {
                "access_token": access,
                "refresh_token": refresh,
                "id_token": f"e30.{body}.sig",
                "token_type": "Bearer",
                "expires_in": self.lifetime,
            }
        )

    async def _state(self, request: web.Request) -> web.Response:
        """For tests in other processes; `?issue=1` gives tokens, `?accepts=TOKEN` says whether one works."""
        state: dict[str, Any] = {"refreshes": self.refreshes, "asked": self.asked, "refused": self.refused}
        if "issue" in request.query:
            state["tokens"] = self.issue()
        if "accepts" in request.query:
            state["accepts"] = self.accepts(request.query["accepts"])
        return web.json_response(state)


def killer(pid: Callable[[], int | None]) -> Callable[[], None]:
    """A hook that kills a process with SIGKILL, once."""

    def kill() -> None:
        if (number := pid()) is not None:
            os.kill(number, signal.SIGKILL)

    return kill


async def serve(port: int, grace: bool, lifetime: float) -> None:
    server = OAuthServer(grace=grace, lifetime=lifetime)
    await server.start(port)
    print(json.dumps({"url": server.url}), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stand-in for an authorization server.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--grace", action="store_true")
    parser.add_argument("--lifetime", type=float, default=3600.0)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.grace, given.lifetime))
