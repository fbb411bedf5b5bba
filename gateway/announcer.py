"""What the process says of itself on `/events`: one method for each thing that can change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from gateway.api.waiting import RunWaiters
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from protocols.approvals import Approval
from protocols.events import ApprovalEvent, DeltaEvent, HeartbeatEvent, LogEvent, ModelEvent, RunEvent, StepEvent
from protocols.runs import RunSummary
from protocols.status import HeartbeatStatus, ModelStatus
from runtime.service.events import EventBus

log = logging.getLogger("gateway")

STEP_SECONDS = 0.1
"""The steps of a run are announced together, at most so often."""


class Announcer:
    """Publishes on the bus; made on the loop that serves it."""

    def __init__(
        self,
        agent: str,
        bus: EventBus,
        reader: Reader,
        waiters: RunWaiters,
        *,
        on_run: Callable[[RunSummary], None],
        on_approval: Callable[[Approval], None],
        on_delta: Callable[[str, str, bool], None],
    ) -> None:
        """`on_run`, `on_approval`, `on_delta`: those inside who want to hear of these too."""
        self._agent = agent
        self._bus = bus
        self._reader = reader
        self._waiters = waiters
        self._on_run = on_run
        self._on_approval = on_approval
        self._on_delta = on_delta
        self._loop = asyncio.get_running_loop()
        self._stepped: set[str] = set()

    def run_accepted(self, new: NewRun) -> None:
        """Said from what was written, without reading it back: accepting is the hot path."""
        now = time.time()
        summary = new.summary(self._agent, now)
        self._bus.publish(RunEvent(at=now, agent=self._agent, run=summary))
        self._on_run(summary)

    def run_changed(self, run_id: str) -> None:
        """A run's state is another; those who wait for its end hear of it."""
        summary = self._reader.summary(run_id)
        if summary is None:
            return
        self._bus.publish(RunEvent(at=time.time(), agent=self._agent, run=summary))
        self._on_run(summary)
        if summary.state.ended:
            self._waiters.ended(run_id)

    def delivery_changed(self, run_id: str) -> None:
        """What became of a run's answer is another; its state is what it was, so those inside have heard of it."""
        summary = self._reader.summary(run_id)
        if summary is not None:
            self._bus.publish(RunEvent(at=time.time(), agent=self._agent, run=summary))

    def delta(self, run_id: str, text: str, reset: bool) -> None:
        event = DeltaEvent(at=time.time(), agent=self._agent, run_id=run_id, text=text, reset=reset)
        self._bus.publish(event, changes_status=False)
        self._on_delta(run_id, text, reset)

    def step(self, run_id: str) -> None:
        """A step of the run was written. Costs next to nothing: it is said a moment later, with those that follow."""
        if not self._stepped:
            self._loop.call_later(STEP_SECONDS, self._tell_steps)
        self._stepped.add(run_id)

    def _tell_steps(self) -> None:
        stepped, self._stepped = self._stepped, set()
        for run_id in stepped:
            self._bus.publish(StepEvent(at=time.time(), agent=self._agent, run_id=run_id), changes_status=False)

    def approval(self, approval: Approval) -> None:
        self._bus.publish(ApprovalEvent(at=time.time(), agent=self._agent, approval=approval))
        self._on_approval(approval)

    def heartbeat(self, status: HeartbeatStatus) -> None:
        self._bus.publish(HeartbeatEvent(at=time.time(), agent=self._agent, heartbeat=status))

    def model(self, status: ModelStatus) -> None:
        log.info("the model is now %s (%s)", status.active, status.origin)
        self._bus.publish(ModelEvent(at=time.time(), agent=self._agent, model=status))

    def log_line(self, event: LogEvent) -> None:
        """Called on whatever thread logs."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._bus.publish(event, changes_status=False)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the file has the line
                self._loop.call_soon_threadsafe(lambda: self._bus.publish(event, changes_status=False))
