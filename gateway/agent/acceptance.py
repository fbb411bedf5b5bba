"""A run is taken in: written down, then told to everybody who waits for one, whichever door it came through."""

from __future__ import annotations

from collections.abc import Callable

from gateway.agent.runner import Runner
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from protocols.runs import RunState


class Acceptance:
    """What the hooks and the channels share."""

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        runner: Runner,
        *,
        steer: Callable[[], str],
        on_accept: Callable[[NewRun], None],
        cancel_children: Callable[[str], None],
    ) -> None:
        """`steer()`: what a person's message does to work under way in its session, as `[limits] steer`."""
        self._ledger = ledger
        self._reader = reader
        self._runner = runner
        self._steer = steer
        self._on_accept = on_accept
        self._cancel_children = cancel_children

    async def __call__(self, new: NewRun) -> tuple[str, RunState, bool]:
        """(its id, its state, is it new), once it is on disk. The same caller and key get the first run back."""
        interrupts = new.people and self._steer() == "interrupt"
        run_id, state, fresh = await self._ledger.accept(new, interrupts=interrupts)
        if fresh:
            self._on_accept(new)
            self._runner.accepted(held=new.held, deadline=new.deadline)
        if interrupts:  # also when it comes again, since the disk may have been full in the middle of this
            await self._interrupt(new.session_key)
        return run_id, state, fresh

    async def _interrupt(self, session_key: str) -> None:
        """A person's newer message ends what is under way in its session."""
        for run_id, why in self._reader.to_cancel(session_key):
            await self._runner.cancel(run_id, why)
            self._cancel_children(run_id)
