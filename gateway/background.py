"""The tasks that work while the gateway serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

log = logging.getLogger("gateway")

Part = Coroutine[Any, Any, None]


class Background:
    """Owns every task of the process that is not a request's or a run's."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        """`on_death` is told when a part has stopped that should have gone on."""
        self._on_death = on_death
        self._parts: dict[str, asyncio.Task[None]] = {}
        self._beside: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self, parts: Mapping[str, Part]) -> AsyncIterator[None]:
        """Name -> what goes on until the end. One that dies is shown in `/ready`; the others go on."""
        for name, part in parts.items():
            self._parts[name] = asyncio.create_task(self._guard(name, part), name=name)
        try:
            yield
        finally:
            tasks, self._parts = list(self._parts.values()), {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(self, name: str, part: Part) -> None:
        try:
            await part
        except Exception:
            log.exception("%s has stopped", name)
            self._on_death()

    def dead(self) -> list[str]:
        """The parts that have stopped."""
        return [name for name, task in self._parts.items() if task.done()]

    def beside(self, part: Part, name: str) -> None:
        """Do this in the background; nobody waits for it."""
        self._beside.add(task := asyncio.create_task(part, name=name))
        task.add_done_callback(self._beside.discard)
