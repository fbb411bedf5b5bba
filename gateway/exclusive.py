"""What only one process may have: the agent's instance folder and its port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator

from aiohttp import web

from protocols.errors import AtomizerError
from protocols.registry import BROWSER_OFFSET
from runtime.config import AgentSpec
from runtime.home import Home
from runtime.ports import owner_of

PREDECESSOR_SECONDS = 25.0
"""Our own predecessor, still draining, is awaited for so long."""


class PortTaken(AtomizerError):
    """Somebody else has our port or our folder; the message names who."""


@contextlib.asynccontextmanager
async def only_process(home: Home, agent: str) -> AsyncIterator[None]:
    """Hold the instance folder. A predecessor that is still draining is awaited; raises PortTaken if it stays."""
    path = home.instance(agent) / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + PREDECESSOR_SECONDS
    try:
        while not _lock(fd):
            if time.monotonic() >= until:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                raise PortTaken(f"{agent} is already running here (pid {holder}); stop it with `atomizer stop {agent}`")
            await asyncio.sleep(0.1)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def listen(site: web.TCPSite, spec: AgentSpec, home: Home) -> None:
    """Start listening; raises PortTaken naming who does already."""
    try:
        await site.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        owner = owner_of(spec.port) or "an unknown process"
        raise PortTaken(
            f"port {spec.port} of {spec.name} is held by {owner}; stop it, or give {spec.name} another "
            f"port in {home.cluster_toml} (it also owns {spec.port + BROWSER_OFFSET})"
        ) from None
