"""What the console knows: agents, runs, approvals, writes and the log. Pure: no Textual, no I/O.

The feed and the operations put facts in; the app takes `changes` out, four times a second at most, and repaints
only those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from console.logring import TEXT_LIMIT as LOG_TEXT_LIMIT
from console.logring import LogLine, LogRing
from console.rows import AgentState, Changes, Link, Totals, Write, WriteState
from protocols.approvals import Approval
from protocols.events import (
    ApprovalEvent,
    DeltaEvent,
    Event,
    GapEvent,
    HeartbeatEvent,
    HelloEvent,
    LogEvent,
    ModelEvent,
    RunEvent,
    StatusEvent,
    StepEvent,
)
from protocols.runs import RunState, RunSummary
from protocols.status import AgentStatus

RUN_LIMIT = 1000
"""Runs kept; beyond it the oldest that have ended go."""
DELTA_LIMIT = 64 * 1024
"""Characters of streaming text kept for one run."""
DELTA_RUNS = 64
"""Runs whose streaming text is kept."""
RESTART_SECONDS = 60.0
"""An agent that is restarted from here may be away for so long before that is trouble: it drains for 20 s at most."""
FAILED_STARTS = ("backoff", "crash-loop", "config-error", "port-taken")
"""The supervisor's words for one that did not come back."""
WRITE_LIMIT = 200
APPROVAL_LIMIT = 200
"""Questions kept that have been answered."""

Clock = Callable[[], float]


class Store:
    """All of it. `on_change` is called once when something is new, until `take` is called."""

    def __init__(self, clock: Clock = time.time) -> None:
        self.clock = clock
        self.agents: dict[str, AgentState] = {}
        self.runs: dict[str, RunSummary] = {}
        self.approvals: dict[tuple[str, str], Approval] = {}
        self.deltas: dict[str, str] = {}
        """Text of runs as it streams; of those delegated here the whole answer once they have ended."""
        self.writes: dict[str, Write] = {}
        self.log = LogRing()
        self.supervisor: bool | None = None
        """Does it live? None: not asked yet."""
        self.on_change: Callable[[], None] | None = None
        self._told = False
        self._unexplained: dict[str, list[LogLine]] = {}
        """Lines about agents that went away, until the supervisor has said whether somebody stopped them."""
        self._restarts: dict[str, float] = {}
        """Until when an agent that is restarted from here may be away."""
        self._changes = self._nothing()

    # what is there

    def totals(self) -> Totals:
        words: dict[str, int] = {}
        costs: list[float] = []
        running = waiting = queued = 0
        profiles = set()
        for agent in self.agents.values():
            words[agent.word] = words.get(agent.word, 0) + 1
            status = agent.status
            if status is None:
                continue
            if status.cost_today_usd is not None:
                costs.append(status.cost_today_usd)
            if agent.live:
                running += status.queue.running
                waiting += status.queue.waiting
                queued += status.queue.queued
                profiles.add("offline" if status.model.offline else "live")
        return Totals(
            agents=len(self.agents),
            words=words,
            gates=len(self.pending_approvals()),
            running=running,
            waiting=waiting,
            queued=queued,
            cost_usd=sum(costs) if costs else None,
            profile="mixed" if len(profiles) > 1 else next(iter(profiles), ""),
        )

    def pending_approvals(self) -> list[Approval]:
        """What waits for an answer, oldest first."""
        return sorted((a for a in self.approvals.values() if a.state == "pending"), key=lambda a: a.created_at)

    def runs_of(self, agent: str | None = None) -> list[RunSummary]:
        """Runs of one agent or of all, newest first."""
        found = [r for r in self.runs.values() if agent is None or r.agent == agent]
        found.sort(key=lambda run: (run.created_at, run.run_id), reverse=True)
        return found

    def recent_writes(self, limit: int = 20) -> list[Write]:
        """The last writes, newest first."""
        return list(reversed(list(self.writes.values())[-limit:]))

    # what comes in

    def place(self, name: str, port: int, host: str, enabled: bool) -> None:
        """Know an agent, or know that it moved."""
        known = self.agents.get(name)
        if known is None:
            self.agents[name] = AgentState(name=name, port=port, host=host, enabled=enabled)
            self._changes.rows = True
            self._touch(name)
        elif (known.port, known.host, known.enabled) != (port, host, enabled):
            self._set(msgspec.structs.replace(known, port=port, host=host, enabled=enabled))
            self._changes.rows = True

    def remove(self, name: str) -> None:
        if self.agents.pop(name, None):
            self.set_approvals(name, [])
            self._changes.rows = True
            self._tell()

    def remember(self, status: AgentStatus) -> None:
        """Take a status of an earlier session: shown as stale until the gateway is heard."""
        known = self.agents.get(status.agent)
        if known and known.status is None:
            self._set(msgspec.structs.replace(known, status=status, since=status.now))

    def connected(self, name: str) -> None:
        known = self.agents.get(name)
        if known and not known.live:
            if self._restarts.pop(name, None):
                self._unexplained.pop(name, None)
                self.note(name, "info", "restarted")
            self._tell_of_absence(name)
            if known.link in (Link.DOWN, Link.DENIED):
                self.note(name, "info", f"back after {int(self.clock() - known.since)} s")
            self._set(msgspec.structs.replace(known, link=Link.LIVE, since=0.0, reason="", supervised="", detail=""))

    def lost(self, name: str, reason: str) -> None:
        """The way to `name` broke. The first time it is stale, then down."""
        known = self.agents.get(name)
        if known is None:
            return
        if known.live:
            self._absent(name, "warning", f"connection lost: {reason}")
            process = "stopping" if name in self._restarts else ""
            self._set(
                msgspec.structs.replace(
                    known, link=Link.LOST, since=self.clock(), reason=reason, supervised=process, detail=""
                )
            )
            return
        since = known.since if known.link is not Link.UNKNOWN else self.clock()
        if known.link is not Link.DOWN and known.enabled:
            self._absent(name, "error", f"down: {reason}")
        if (known.link, known.reason) != (Link.DOWN, reason):
            self._set(msgspec.structs.replace(known, link=Link.DOWN, since=since, reason=reason))

    def denied(self, name: str, reason: str) -> None:
        known = self.agents.get(name)
        if known and (known.link, known.reason) != (Link.DENIED, reason):
            self.note(name, "error", f"refused: {reason}")
            self._set(msgspec.structs.replace(known, link=Link.DENIED, since=self.clock(), reason=reason))

    def supervised(self, name: str, state: str, detail: str) -> None:
        """The supervisor's view of an agent."""
        known = self.agents.get(name)
        if known and not known.live and (known.supervised, known.detail) != (state, detail):
            self._set(msgspec.structs.replace(known, supervised=state, detail=detail))

    def restarts(self, names: Iterable[str], begun: bool = True) -> None:
        """The operator has these restarted from here (not `begun`: could not): that they go away is no trouble."""
        for name in names:
            self._restarts.pop(name, None)
            if begun:
                self._restarts[name] = self.clock() + RESTART_SECONDS

    def explained(self) -> None:
        """The supervisor has been asked: what was stopped on purpose is no trouble, the rest is told."""
        for name in list(self._unexplained):
            known = self.agents.get(name)
            if known and known.supervised not in FAILED_STARTS and self.clock() < self._restarts.get(name, 0.0):
                continue
            self._restarts.pop(name, None)
            if known and known.supervised in ("stopped", "stopping"):
                del self._unexplained[name]
                self.note(name, "info", "stopped")
            else:
                self._tell_of_absence(name)

    def set_supervisor(self, alive: bool) -> None:
        if alive != self.supervisor:
            self.supervisor = alive
            self._changes.writes = True
            self._tell()

    def apply(self, event: Event) -> None:
        """Take in one event of a gateway's stream."""
        name = event.agent
        if isinstance(event, LogEvent):
            self._log(LogLine(event.at, name, event.level, event.message[:LOG_TEXT_LIMIT], event.run_id))
        elif isinstance(event, DeltaEvent):
            self._delta(event)
        elif isinstance(event, StepEvent):
            self._changes.steps.add(event.run_id)
            self._tell()
        elif isinstance(event, StatusEvent):
            self.heard(event.status)
        elif isinstance(event, RunEvent):
            self.add_run(event.run)
        elif isinstance(event, HeartbeatEvent):
            self._amend(name, heartbeat=event.heartbeat)
        elif isinstance(event, ModelEvent):
            self._amend(name, model=event.model)
        elif isinstance(event, ApprovalEvent):
            self.add_approval(event.approval)
        elif isinstance(event, GapEvent):
            count = f"{event.missed:,}" if event.missed else "some"
            self._log(
                LogLine(
                    event.at, name, "warning", f"--- gap: {count} events were dropped, this console read too slowly ---"
                )
            )
        elif isinstance(event, HelloEvent):
            self.connected(name)

    def heard(self, status: AgentStatus) -> None:
        """A whole status from the gateway itself."""
        known = self.agents.get(status.agent)
        if known and known.status != status:
            self._set(msgspec.structs.replace(known, status=status))

    def add_run(self, run: RunSummary) -> None:
        known = self.runs.get(run.run_id)
        if known == run:
            return
        self.runs[run.run_id] = run
        if run.state is RunState.QUEUED or run.state.ended:
            self.deltas.pop(run.run_id, None)
        self._changes.runs.add(run.run_id)
        self._touch(run.agent)
        self._follow_write(run)
        if len(self.runs) > RUN_LIMIT:
            self._forget_runs()

    def answered(self, run_id: str, text: str) -> None:
        """The whole answer of a run that has ended, in place of what had streamed."""
        self._keep_text(run_id, text[:DELTA_LIMIT])

    def add_approval(self, approval: Approval) -> None:
        """A question, or what became of it; an older revision than is known changes nothing."""
        key = (approval.agent, approval.id)
        known = self.approvals.get(key)
        if known == approval or (known and known.revision > approval.revision):
            return
        self.approvals[key] = approval
        if known is None and approval.state == "pending":
            self._changes.asked.append(approval)
        answered = [k for k, a in self.approvals.items() if a.state != "pending"]
        for old in answered[:-APPROVAL_LIMIT]:
            del self.approvals[old]
        self._changes.approvals = True
        self._tell()

    def set_approvals(self, agent: str, approvals: Iterable[Approval]) -> None:
        """All that `agent` has; others of it are gone."""
        listed = list(approvals)
        here = {a.id for a in listed}
        for key in [k for k in self.approvals if k[0] == agent and k[1] not in here]:
            del self.approvals[key]
            self._changes.approvals = True
            self._tell()
        for approval in listed:
            self.add_approval(approval)

    def write(self, write: Write) -> None:
        """A write was sent, or more is known about one."""
        self.writes.pop(write.key, None)
        self.writes[write.key] = write
        while len(self.writes) > WRITE_LIMIT:
            del self.writes[next(iter(self.writes))]
        self._changes.writes = True
        level = {WriteState.REFUSED: "error", WriteState.UNKNOWN: "warning"}.get(write.state, "info")
        self.note(write.agent, level, f"console: {write.label}: {write.state.value}{_tail(write.detail)}", write.run_id)
        run = self.runs.get(write.run_id or "")
        if run and write.state is WriteState.ACCEPTED:  # its end may have been told before its acceptance
            self._changes.runs.add(run.run_id)
            self._follow_write(run)

    def note(self, agent: str, level: str, text: str, run_id: str | None = None) -> None:
        """A log line of the console's own."""
        self._log(LogLine(self.clock(), agent, level, text, run_id))

    def history(self, agent: str, events: Iterable[LogEvent]) -> None:
        """Lines from before we listened; those already there are left out."""
        self.log.merge()
        here = {(line.at, line.text) for line in self.log.lines if line.agent == agent}
        for event in events:
            text = event.message[:LOG_TEXT_LIMIT]
            if (event.at, text) not in here:
                self._log(LogLine(event.at, agent, event.level, text, event.run_id), past=True)

    def take(self) -> Changes:
        """What changed since the last call; the log's new lines are merged in."""
        taken, self._changes = self._changes, self._nothing()
        self._told = False
        self.log.merge()
        return taken

    # inside

    @staticmethod
    def _nothing() -> Changes:
        return Changes(
            agents=set(),
            runs=set(),
            steps=set(),
            deltas=set(),
            logs=False,
            approvals=False,
            asked=[],
            writes=False,
            rows=False,
        )

    def _tell(self) -> None:
        if self.on_change and not self._told:
            self._told = True
            self.on_change()

    def _touch(self, name: str) -> None:
        self._changes.agents.add(name)
        self._tell()

    def _set(self, agent: AgentState) -> None:
        self.agents[agent.name] = agent
        self._touch(agent.name)

    def _amend(self, name: str, **fields: object) -> None:
        known = self.agents.get(name)
        if known and known.status:
            self._set(msgspec.structs.replace(known, status=msgspec.structs.replace(known.status, **fields)))

    def _absent(self, name: str, level: str, text: str) -> None:
        self._unexplained.setdefault(name, []).append(LogLine(self.clock(), name, level, text))

    def _tell_of_absence(self, name: str) -> None:
        for line in self._unexplained.pop(name, []):
            self._log(line)

    def _log(self, line: LogLine, past: bool = False) -> None:
        self.log.add(line, past)
        self._changes.logs = True
        self._tell()

    def _delta(self, event: DeltaEvent) -> None:
        run = self.runs.get(event.run_id)
        if run and run.state.ended:
            return
        before = "" if event.reset else self.deltas.get(event.run_id, "")
        self._keep_text(event.run_id, (before + event.text)[-DELTA_LIMIT:])

    def _keep_text(self, run_id: str, text: str) -> None:
        self.deltas.pop(run_id, None)
        self.deltas[run_id] = text
        while len(self.deltas) > DELTA_RUNS:
            del self.deltas[next(iter(self.deltas))]
        self._changes.deltas.add(run_id)
        self._tell()

    def _follow_write(self, run: RunSummary) -> None:
        for write in self.writes.values():
            if write.run_id == run.run_id and write.state is WriteState.ACCEPTED and run.state.ended:
                detail = f"{run.run_id} {run.state.value}{_tail(run.reason)}"
                self.write(msgspec.structs.replace(write, state=WriteState.DONE, detail=detail))
                break

    def _forget_runs(self) -> None:
        ended = [r for r in sorted(self.runs.values(), key=lambda r: r.created_at) if r.state.ended]
        for run in ended[: len(self.runs) - RUN_LIMIT + RUN_LIMIT // 10]:
            del self.runs[run.run_id]
            self.deltas.pop(run.run_id, None)


def _tail(detail: str) -> str:
    return f": {detail}" if detail else ""
