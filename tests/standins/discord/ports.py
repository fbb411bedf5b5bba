"""A listening port that can go away and come back, and is nobody else's meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web

from tests.standins.discord.faults import reset_on_close


class Port:
    """Serves what `make` makes. While it is closed, connections are refused by the kernel."""

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._runner: web.AppRunner | None = None
        self._held: socket.socket | None = None
        self.number = 0

    def reserve(self, port: int = 0) -> None:
        """Bind without listening."""
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", port))
        self.number = self._held.getsockname()[1]

    async def open(self) -> None:
        if self._runner is not None:
            return
        if self._held is None:
            self.reserve(self.number)
        assert self._held is not None
        self._runner = web.AppRunner(self._make(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._held, backlog=128).start()
        self._held = None

    async def close(self, keep: bool = True) -> None:
        """Refuse connections and reset those that stand; `keep` the number for the next `open`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            if runner.server is not None:
                for connection in list(runner.server.connections):
                    if connection.transport is not None:
                        reset_on_close(connection.transport)
                        connection.transport.abort()
            await runner.cleanup()
        if keep:
            self.reserve(self.number)
        elif self._held is not None:
            self._held.close()
            self._held = None
