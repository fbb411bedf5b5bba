"""All MCP servers of one agent, as its configuration names them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.mcp.launch import Launcher
from gateway.mcp.server import McpServer
from protocols.status import McpServerStatus
from runtime.config_reach import McpTable

SETTLE_SECONDS = 20.0
"""A run that begins just after the start waits at most so long for the servers' first attempt."""


class McpServers:
    """Starts what is configured, stops what no longer is. Without `[mcp.NAME]` it does nothing and imports nothing."""

    def __init__(self, *, on_change: Callable[[bool], None], redact: Callable[[str], str]) -> None:
        """`on_change(tools)` is called when a server's state has changed, or, with True, its tools."""
        self._on_change = on_change
        self._redact = redact
        self._servers: dict[str, McpServer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._serving = False
        self._side: set[asyncio.Task[None]] = set()

    def configure(self, tables: Mapping[str, McpTable], launcher: Launcher) -> None:
        """Take over the configuration; servers whose table is as before are left alone."""
        wanted = {name: table for name, table in tables.items() if table.enabled}
        for name in [n for n, server in self._servers.items() if wanted.get(n) != server.table]:
            del self._servers[name]
            if (task := self._tasks.pop(name, None)) is not None:
                task.cancel()
                self._side.add(task)
                task.add_done_callback(self._side.discard)
        for server in self._servers.values():
            server.launcher = launcher
        for name, table in wanted.items():
            if name not in self._servers:
                self._servers[name] = McpServer(name, table, launcher, on_change=self._on_change, redact=self._redact)
        self._servers = {name: self._servers[name] for name in wanted}
        if self._serving:
            self._start()

    def start(self) -> None:
        """Begin connecting, in the background."""
        self._serving = True
        self._start()

    async def close(self) -> None:
        """End all servers and their processes."""
        self._serving = False
        tasks = [*self._tasks.values(), *self._side]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Return when each server's first attempt has ended, or after some seconds."""
        waiting = [server.settled.wait() for server in self._servers.values() if not server.settled.is_set()]
        if waiting:
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await asyncio.gather(*waiting)
            except TimeoutError:
                return

    def all(self) -> list[McpServer]:
        return list(self._servers.values())

    def status(self) -> list[McpServerStatus]:
        return [server.status() for server in self._servers.values()]

    def _start(self) -> None:
        for name, server in self._servers.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(server.serve(), name=f"mcp-{name}")
