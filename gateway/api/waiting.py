"""Long polls: who waits for which run's end."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.ledger.reading import Reader


class RunWaiters:
    """Wakes those who wait for a run when it has ended."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._futures: dict[str, set[asyncio.Future[None]]] = {}

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Until the run has ended or `seconds` have passed."""
        state = self._reader.state(run_id)
        if state is None or state.ended:
            return
        future = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(run_id, set())
        waiting.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await future
        finally:
            waiting.discard(future)
            if not waiting:
                self._futures.pop(run_id, None)

    def ended(self, run_id: str) -> None:
        for future in self._futures.get(run_id, ()):
            if not future.done():
                future.set_result(None)

    def release_all(self) -> None:
        """The process stops: answer everybody with what is known."""
        for run_id in list(self._futures):
            self.ended(run_id)
