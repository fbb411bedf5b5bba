"""Questions to a person: asked by a run, which then waits, for days if need be; answered by whoever is first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable

from gateway.ledger.approvals import ApprovalStore
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun
from protocols.approvals import Approval
from protocols.runs import one_line
from runtime.sqlite_writer import DiskFull

log = logging.getLogger("approvals")

_IDLE_SECONDS = 3600.0
_RETRY_SECONDS = 5.0
_SUBJECT_LINE = 300
_SUBJECT_WHOLE = 16_000
"""Characters of what a call would do: in the question's one line, and below it where that shows too little."""


class Approvals:
    """The open questions of one agent, and those who wait for them."""

    def __init__(
        self,
        store: ApprovalStore,
        reader: Reader,
        *,
        expires_after: Callable[[], float],
        on_change: Callable[[Approval], None],
        clock: Callable[[], float] = time.time,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """`expires_after()`: seconds a question stays open; then the answer is no."""
        self._store = store
        self._reader = reader
        self._expires_after = expires_after
        self._on_change = on_change
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._waiting: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()

    def list(self, *, every: bool = False) -> list[Approval]:
        """Those that wait for an answer, oldest first; with `every`, also those of the past, newest last."""
        return self._reader.approvals(every=every)

    async def ask(self, run: ClaimedRun, key: str, tool: str, subject: str, rule: str, arguments: str = "") -> Approval:
        """Put a question, or find the one this call has put before.

        `subject` is what it is about, in the question's line; `arguments` all that would be done, for below it.
        """
        question = f"{tool}: {one_line(subject, _SUBJECT_LINE) or '(no detail)'}"
        detail = _detail(run, subject, arguments or subject, rule)
        return await self._ask(run.run_id, key, tool, question, detail, self._expires_after())

    async def put(self, key: str, tool: str, question: str, detail: str, seconds: float) -> Approval:
        """A question that no run asks, open for so many seconds; or the one put before with this key."""
        return await self._ask(None, key, tool, question, detail, seconds)

    async def _ask(
        self, run_id: str | None, key: str, tool: str, question: str, detail: str, seconds: float
    ) -> Approval:
        new = Approval(
            id=f"ap-{secrets.token_hex(5)}",
            agent="",
            run_id=run_id,
            tool=tool,
            question=question,
            detail=detail,
            expires_at=self._clock() + seconds,
        )
        asked = await self._store.ask(new, key)
        if asked.id == new.id:
            log.info("asks a person: %s", asked.question)
            self._on_change(asked)
            self._wake.set()
        return asked

    async def wait(self, approval_id: str) -> Approval:
        """The question once it is answered or has expired."""
        event = self._waiting.setdefault(approval_id, asyncio.Event())
        try:
            while True:
                approval = self._reader.approval(approval_id)
                if approval is not None and approval.state != "pending":
                    return approval
                event.clear()
                await event.wait()
        finally:
            self._waiting.pop(approval_id, None)

    async def answer(self, approval_id: str, *, approve: bool, revision: int, by: str, reason: str) -> Approval:
        """Whoever answers first decides; raises ProtocolError 404 or 409."""
        state = "approved" if approve else "rejected"
        approval = await self._store.answer(approval_id, state=state, revision=revision, by=by, reason=reason)
        log.info("%s %s by %s%s", approval.question, state, by, f": {reason}" if reason else "")
        self._tell(approval)
        return approval

    def run_ended(self, run_id: str) -> None:
        """Say which questions were closed with a run that is over."""
        for approval in self._reader.closed_with(run_id):
            self._tell(approval)

    async def serve(self) -> None:
        """Expire questions at their time, until cancelled."""
        while True:
            self._wake.clear()
            try:
                expired = await self._store.expire()
            except (DiskFull, OSError) as error:
                log.error("questions are looked at again in %.0f s: %s", self._retry_seconds, error)
                await asyncio.sleep(self._retry_seconds)
                continue
            for approval in expired:
                log.warning("%s: nobody answered in time, so the answer is no", approval.question)
                self._tell(approval)
            times = [a.expires_at for a in self.list() if a.expires_at is not None]
            pause = max(0.05, min(times) - self._clock()) if times else _IDLE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, _IDLE_SECONDS)):
                    await self._wake.wait()

    def _tell(self, approval: Approval) -> None:
        self._on_change(approval)
        if event := self._waiting.get(approval.id):
            event.set()


def _detail(run: ClaimedRun, subject: str, whole: str, rule: str) -> str:
    """What to know before answering: for which task, and the whole of what the question's line does not show."""
    about = f"for: {one_line(run.message, 200)} (from {run.caller})\nasked because {one_line(rule, 200)}"
    line = one_line(subject, _SUBJECT_LINE)
    if line == subject and whole.partition(": ")[2] in (line, line.partition(": ")[2]):
        return about
    rest = len(whole) - _SUBJECT_WHOLE
    return f"{about}\n\n{whole[:_SUBJECT_WHOLE]}" + (f"\n[cut: {rest} more characters]" if rest > 0 else "")
