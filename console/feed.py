"""What the gateways say, put into the store: one reader per agent, which reconnects for ever.

The HTTP client is imported only when the first reader starts: the first paint never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from console.store import Store
from protocols.errors import AtomizerError, ProtocolError, Unreachable
from protocols.events import Event, GapEvent, HelloEvent

if TYPE_CHECKING:
    from console.wire import AgentClient

FIRST_DELAY = 1.0
LONGEST_DELAY = 15.0
"""Seconds between tries to reach a gateway: up to the first, doubling, up to the longest; full jitter."""
HISTORY_LINES = 200
HURRY_SECONDS = 20.0


class Feed:
    """Reads all gateways. `read(name)` is one agent's reader, run as a task by the app."""

    def __init__(self, store: Store, token: str, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._store = store
        self._token = token
        self._jitter = jitter
        self._nudges: dict[str, asyncio.Event] = {}
        self._last_ids: dict[str, str] = {}
        self._heard: set[str] = set()
        self._hurry: dict[str, float] = {}

    def client(self, name: str) -> AgentClient:
        """A client of one agent's gateway."""
        from console.wire import AgentClient

        agent = self._store.agents[name]
        return AgentClient(agent.port, self._token, agent.host)

    def nudge(self, name: str) -> None:
        """Try `name` again now instead of after the delay, and often for a while: it is about to come up."""
        self._hurry[name] = self._store.clock() + HURRY_SECONDS
        if name in self._nudges:
            self._nudges[name].set()

    async def read(self, name: str) -> None:
        """Follow one gateway until the agent is removed from the store or the task is cancelled."""
        nudge = self._nudges.setdefault(name, asyncio.Event())
        failures = 0
        while name in self._store.agents:
            try:
                await self._follow(name)
            except ProtocolError as refused:
                failures += 1
                self._store.denied(name, f"HTTP {refused.status}: {refused.message}")
            except Unreachable as gone:
                agent = self._store.agents.get(name)
                failures = 0 if agent is None or agent.live else failures + 1
                self._store.lost(name, str(gone))
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 5))
            agent = self._store.agents.get(name)
            if agent and not agent.enabled:
                ceiling = LONGEST_DELAY
            if self._store.clock() < self._hurry.get(name, 0.0):
                ceiling = FIRST_DELAY / 2
            nudge.clear()
            try:
                async with asyncio.timeout(self._jitter(FIRST_DELAY / 4, ceiling)):
                    await nudge.wait()
            except TimeoutError:
                pass

    async def catch_up(self, name: str) -> None:
        """Read what the stream does not repeat: the status, the last runs, what waits for an answer."""
        client = self.client(name)
        status = await client.status()
        if status.agent != name:
            raise ProtocolError(421, "wrong_agent", f"port {status.port} belongs to {status.agent}, not to {name}")
        self._store.heard(status)
        for run in (await client.runs(limit=50)).runs:
            self._store.add_run(run)
        self._store.set_approvals(name, (await client.approvals()).approvals)

    async def _follow(self, name: str) -> None:
        client = self.client(name)
        async with contextlib.aclosing(client.events(self._last_ids.get(name))) as events:
            async for ident, event in events:
                await self._take(name, client, ident, event)

    async def _take(self, name: str, client: AgentClient, ident: str | None, event: Event) -> None:
        if ident:
            self._last_ids[name] = ident
        if isinstance(event, HelloEvent) and event.agent != name:
            raise ProtocolError(421, "wrong_agent", f"this port belongs to {event.agent}, not to {name}")
        self._store.apply(event)
        if isinstance(event, HelloEvent | GapEvent):
            await self.catch_up(name)
            if name not in self._heard:
                self._heard.add(name)
                try:
                    self._store.history(name, (await client.logs(limit=HISTORY_LINES)).lines)
                except AtomizerError as error:
                    self._store.note(name, "warning", f"earlier log lines cannot be read: {error}")
