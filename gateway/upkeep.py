"""Beside the runs: removing what is older than the retention, and cancelling what a cancelled run delegated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.agent.peers import Peers
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from protocols.errors import ProtocolError, Unreachable
from protocols.runs import ChildRun, RunState
from runtime.config import LimitsTable
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("upkeep")

PRUNE_SECONDS = 3600.0


async def prune(
    ledger: Ledger,
    reader: Reader,
    *,
    busy: Callable[[], bool],
    limits: Callable[[], LimitsTable],
    forget: Callable[[], Awaitable[None]],
) -> None:
    """Remove old runs, a little at a time and never while runs are under way, until cancelled.

    `forget()`: what the channels remember for no reason any more; it may raise DiskFull.
    """
    while True:
        oldest, most = time.time() - limits().retention_days * 86400.0, limits().retention_mb * 2**20
        try:
            while not busy():  # each call is a commit of its own, so others get their turn between two
                before = time.time() if reader.size_bytes() > most else oldest
                if not await ledger.prune(before):
                    break
            await forget()
        except DiskFull as error:
            log.error("nothing was removed: %s", error)
        await asyncio.sleep(PRUNE_SECONDS)


async def cancel_delegated(reader: Reader, peers: Peers, run_id: str) -> None:
    """Cancel what a run has delegated and is not over; a receiver that is away is named and left."""
    for child in reader.children(run_id):
        if not _over(child):
            try:
                await peers.client(child.agent).cancel(child.run_id)
            except (ProtocolError, Unreachable, KeyError) as error:
                log.warning("%s on %s could not be cancelled: %s", child.run_id, child.agent, error)


def _over(child: ChildRun) -> bool:
    return child.state not in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)
