"""A home with one account, an authorization server, and processes that want its token."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.config_providers import OAuthTable
from runtime.home import Home
from runtime.oauth.credential import Credential, CredentialFile
from runtime.oauth.refresh import Order
from runtime.oauth.settings import OAuthSettings, settings_for
from tests.standins.oauth_server import CLIENT, OAuthServer

ROOT = Path(__file__).resolve().parents[3]


class Account:
    """One home's account at `server`, and real processes around it."""

    def __init__(self, root: Path, server: OAuthServer) -> None:
        self.home = Home(root)
        self.server = server
        self.file = CredentialFile(self.home, "openai")
        self.processes: list[asyncio.subprocess.Process] = []

    @property
    def settings(self) -> OAuthSettings:
        table = OAuthTable(
            authorize_url=f"{self.server.url}/oauth/authorize",
            token_url=f"{self.server.url}/oauth/token",
            client_id=CLIENT,
            redirect_port=0,
            base_url="http://127.0.0.1:1/v1",
        )
        return settings_for("openai", table)

    def sign_in(self, *, lasts: float = -10.0) -> Credential:
        """A credential whose access token ends in `lasts` seconds."""
        access, refresh = self.server.issue()
        now = time.time()
        credential = Credential(access, refresh, obtained_at=now, expires_at=now + lasts, account_id="acct-1")
        self.file.write(credential)
        return credential

    def read(self) -> Credential:
        found = self.file.read()
        assert found is not None
        return found

    async def worker(self) -> asyncio.subprocess.Process:
        settings = msgspec.json.encode(self.settings).decode()
        process = await self._spawn("-m", "tests.runtime.oauth.worker", str(self.home.root), settings)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async def ask(self, *workers: asyncio.subprocess.Process) -> list[dict[str, Any]]:
        """The starting shot, and what each says."""
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"\n")
        return [await self.told(worker) for worker in workers]

    async def told(self, worker: asyncio.subprocess.Process) -> dict[str, Any]:
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            found: dict[str, Any] = json.loads(await worker.stdout.readline() or b"{}")
        return found

    async def token(self) -> dict[str, Any]:
        """What one more process is told."""
        return (await self.ask(await self.worker()))[0]

    async def helper(self, *program: str) -> asyncio.subprocess.Process:
        """The refreshing process itself, or a program in its place."""
        process = await self._spawn(*(program or ("-m", "runtime.oauth")))
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(Order(str(self.home.root), self.settings)))
        process.stdin.close()
        return process

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.processes.append(process)
        return process

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def server() -> AsyncIterator[OAuthServer]:
    async with OAuthServer() as running:
        yield running


@pytest.fixture
async def account(tmp_path: Path, server: OAuthServer) -> AsyncIterator[Account]:
    made = Account(tmp_path, server)
    yield made
    await made.close()
