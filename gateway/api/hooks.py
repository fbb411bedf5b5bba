"""`/hooks/...`: work is handed in, watched and cancelled here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from gateway.agent.acceptance import Acceptance
from gateway.agent.heartbeat import Heartbeat
from gateway.agent.runner import Runner
from gateway.api.waiting import RunWaiters
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun, RunOptions
from gateway.models.models import Models
from protocols.authority import OPERATOR, VIEWER, Authority
from protocols.control import Acted
from protocols.errors import ProtocolError
from protocols.hooks import AgentAccepted, AgentHook, ChildReport, WakeAccepted, WakeHook
from protocols.recordings import Recording
from protocols.runs import Run, RunList, RunSource, RunState, new_run_id
from runtime.service.app import Access, Call, Route

MAX_WAIT = 60.0
"""Seconds one long poll may last."""
_SYNTHETIC = ("agent:", "heartbeat:", "cron:")


class HooksApi:
    """The hooks of one agent."""

    def __init__(
        self,
        agent: str,
        ledger: Ledger,
        reader: Reader,
        runner: Runner,
        heartbeat: Heartbeat,
        models: Models,
        waiters: RunWaiters,
        *,
        accept: Acceptance,
        authority: Callable[[], Authority],
        on_change: Callable[[str], None],
        cancel_children: Callable[[str], None],
        redact: Callable[[str], str],
    ) -> None:
        self._agent = agent
        self._ledger = ledger
        self._reader = reader
        self._runner = runner
        self._heartbeat = heartbeat
        self._models = models
        self._waiters = waiters
        self._accept = accept
        self._authority = authority
        self._on_change = on_change
        self._cancel_children = cancel_children
        self._redact = redact

    def routes(self) -> list[Route]:
        wait = {
            "wait": f"seconds to wait for the run's end, at most {MAX_WAIT:.0f}",
            "whole": "1: the steps' outputs uncut",
        }
        listing = {"limit": "how many, newest first", "state": "only runs in this state"}
        return [
            Route(
                "POST", "/hooks/agent", self.agent, Access.WORK, "Give the agent a run", AgentAccepted, body=AgentHook
            ),
            Route("POST", "/hooks/wake", self.wake, Access.WORK, "Leave the agent a note", WakeAccepted, body=WakeHook),
            Route(
                "POST", "/hooks/report", self.report, Access.WORK, "How a delegated run ended", Acted, body=ChildReport
            ),
            Route("GET", "/hooks/runs", self.runs, Access.ANY, "Runs, newest first", RunList, query=listing),
            Route("GET", "/hooks/runs/{id}", self.run, Access.ANY, "One run in full", Run, query=wait),
            Route("GET", "/hooks/runs/{id}/recording", self.recording, Access.WATCH, "A run in one file", Recording),
            Route("POST", "/hooks/runs/{id}/cancel", self.cancel, Access.WORK, "Cancel a run", Acted),
        ]

    async def agent(self, call: Call) -> tuple[int, AgentAccepted]:
        hook = await call.body(AgentHook)
        self._admit(call.caller, hook)
        new = self._new_run(call.caller, hook)
        run_id, state, _ = await self._accept(new)
        return 202, AgentAccepted(ok=True, run_id=run_id, status=state.value, status_url=f"/hooks/runs/{run_id}")

    def _admit(self, caller: str, hook: AgentHook) -> None:
        """Everything a well-formed hook can still be refused for."""
        if self._runner.draining:
            raise ProtocolError(
                503,
                "draining",
                f"{self._agent} is draining and takes no new work; try again in a moment",
                headers={"Retry-After": "5"},
            )
        verdict = self._authority().verdict(caller, self._agent)
        if not verdict.allowed:
            raise ProtocolError(403, "not_authorised", f"{caller} may not delegate to {self._agent}: {verdict.rule}")
        if hook.agent_id is not None and hook.agent_id != self._agent:
            raise ProtocolError(
                400,
                "wrong_agent",
                f"field `agentId`: this is {self._agent}, not {hook.agent_id!r}; send it to that agent's own port",
            )
        if hook.deadline is not None and hook.deadline <= time.time():
            raise ProtocolError(400, "deadline_passed", "field `deadline`: that time has passed (unix seconds)")
        if hook.model is not None:
            if caller != OPERATOR:
                raise ProtocolError(403, "operator_only", "field `model`: only the operator chooses a run's model")
            self._models.check(hook.model)
        if hook.session_key is not None and caller != OPERATOR and hook.session_key.startswith(_SYNTHETIC):
            raise ProtocolError(
                403, "session_not_allowed", f"field `sessionKey`: {caller} may not join {hook.session_key!r}"
            )

    def _new_run(self, caller: str, hook: AgentHook) -> NewRun:
        by_agent = caller != OPERATOR
        return NewRun(
            run_id=new_run_id(),
            source=RunSource.HOOK,
            name=hook.name,
            caller=caller,
            people=not by_agent,
            session_key=hook.session_key or f"hook:{_uuid4()}",
            message=self._redact(hook.message),
            options=RunOptions(
                deliver=hook.deliver,
                channel=hook.channel,
                to=hook.to,
                model=hook.model,
                thinking=hook.thinking,
                timeout_seconds=hook.timeout_seconds,
            ),
            held=hook.wake_mode == "next-heartbeat",
            idempotency_key=hook.idempotency_key,
            parent_run_id=hook.parent_run_id,
            depth=max(hook.depth, 1) if by_agent else hook.depth,
            deadline=hook.deadline,
        )

    async def wake(self, call: Call) -> WakeAccepted:
        hook = await call.body(WakeHook)
        verdict = self._authority().verdict(call.caller, self._agent)
        if not verdict.allowed:
            raise ProtocolError(403, "not_authorised", f"{call.caller} may not wake {self._agent}: {verdict.rule}")
        await self._ledger.beats.add_note(self._redact(hook.text), call.caller)
        if hook.mode == "now":
            self._heartbeat.note_added()
        return WakeAccepted(ok=True, mode=hook.mode, outcome="queued")

    async def report(self, call: Call) -> Acted:
        report = await call.body(ChildReport)
        known = await self._ledger.update_child(report.run_id, call.caller, report.state, report.text, report.error)
        if not known:
            parent = self._reader.state(report.parent_run_id)
            if parent is not None and not parent.ended:  # it may have been killed before it wrote what it gave
                raise ProtocolError(
                    503,
                    "not_written_yet",
                    f"{report.parent_run_id} goes on and may still write that it gave {report.run_id}; tell it again",
                    headers={"Retry-After": "5"},
                )
            raise ProtocolError(404, "unknown_child", f"{call.caller} was given no run {report.run_id} from here")
        self._on_change(report.parent_run_id)
        return Acted(ok=True, outcome="noted")

    async def runs(self, call: Call) -> RunList:
        limit = int(call.number("limit", 50, 1, 500))
        state = call.query("state")
        if state is not None and state not in set(RunState):
            raise ProtocolError(400, "bad_query", f"query `state`: {state!r} is none of {', '.join(RunState)}")
        own_only = None if call.caller in (OPERATOR, VIEWER, self._agent) else call.caller
        found, total = self._reader.runs(limit, state, own_only)
        return RunList(runs=found, total=total)

    async def run(self, call: Call) -> Run:
        run_id = call.part("id")
        seconds = call.number("wait", 0.0, 0.0, 3600.0)
        self._may_see(call.caller, run_id)
        if seconds:
            await self._waiters.wait_for_end(run_id, min(seconds, MAX_WAIT))
        run = self._reader.run(run_id, whole=call.query("whole") in ("1", "true"))
        if run is None:
            raise _unknown(run_id)
        return run

    async def recording(self, call: Call) -> Recording:
        run = self._reader.run(call.part("id"))
        if run is None:
            raise _unknown(call.part("id"))
        if not run.state.ended:
            raise ProtocolError(
                409, "not_ended", f"{run.run_id} is still {run.state.value}; export it when it has ended"
            )
        return self._reader.recording(run)

    async def cancel(self, call: Call) -> Acted:
        run_id = call.part("id")
        self._may_see(call.caller, run_id)
        before = await self._runner.cancel(run_id, f"cancelled by {call.caller}")
        if before is None:
            raise _unknown(run_id)
        if before.ended:
            return Acted(ok=True, outcome=f"it had already {before.value}")
        self._cancel_children(run_id)
        return Acted(ok=True, outcome="cancelled")

    def _may_see(self, caller: str, run_id: str) -> None:
        """An agent sees the runs it gave; the operator and viewers see all."""
        giver = self._reader.caller(run_id)
        if giver is None:
            raise _unknown(run_id)
        if caller not in (OPERATOR, VIEWER, self._agent, giver):
            raise ProtocolError(403, "not_yours", f"run {run_id} was given by {giver}; {caller} may not touch it")


def _uuid4() -> str:
    """A random UUID from the process's own generator: a name needs no entropy of the kernel's, which is slow."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def _unknown(run_id: str) -> ProtocolError:
    return ProtocolError(404, "unknown_run", f"there is no run {run_id!r} here; GET /hooks/runs lists those there are")
