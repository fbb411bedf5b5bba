"""A small honest gateway: real sockets, the wire types of `protocols/`, and just enough behaviour to steer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import msgspec
from aiohttp import web

from protocols.approvals import Approval, ApprovalAnswer, ApprovalList
from protocols.control import Acted, HeartbeatChange, LogList, ModelChange, ModelChanged
from protocols.events import (
    ApprovalEvent,
    DeltaEvent,
    Event,
    GapEvent,
    HelloEvent,
    LogEvent,
    RunEvent,
    StatusEvent,
    StepEvent,
)
from protocols.hooks import AgentAccepted, AgentHook
from protocols.registry import roster_entry
from protocols.runs import Delivery, Run, RunList, RunSource, RunState, RunSummary, Step, Usage, new_run_id, one_line
from protocols.status import AgentStatus, HeartbeatStatus, ModelChoice, ModelStatus, QueueStatus

OPERATOR, VIEWER = "operator-token-for-tests", "viewer-token-for-tests"
QUEUE_LIMIT = 1000
"""Events kept for one slow reader; more is a gap."""
REPLAY_LIMIT = 1000
MODELS = [
    ModelChoice(id="offline/retrieval", available=True),
    ModelChoice(id="offline/echo", available=True),
    ModelChoice(id="anthropic/claude-opus-4-6", available=False, reason="no key: `atomizer secrets set anthropic`"),
    ModelChoice(
        id="google/gemini-2.5-pro", available=False, reason="no key", retires="2026-12-01", successor="google/x"
    ),
]


def make_status(agent: str, port: int, **fields: Any) -> AgentStatus:
    entry = roster_entry(agent)
    values: dict[str, Any] = {
        "agent": agent,
        "title": entry.title if entry else agent,
        "state": "up",
        "instance": "test-1",
        "version": "0.1.0",
        "pid": 4711,
        "port": port,
        "started_at": time.time() - 3600,
        "now": time.time(),
        "profile": "offline",
        "model": ModelStatus(
            configured="anthropic/claude-opus-4-6",
            active="offline/retrieval",
            origin="profile",
            usable=True,
            offline=True,
            choices=MODELS,
        ),
        "heartbeat": HeartbeatStatus(
            enabled=True, every_seconds=1800, state="scheduled", last_at=time.time() - 300, last_outcome="ok"
        ),
        "queue": QueueStatus(),
        "cost_today_usd": 0.0,
        "rss_bytes": 48 * 1024 * 1024,
        "tools": ["memory_search", "read_file"],
    }
    return AgentStatus(**{**values, **fields})


def make_run(agent: str, task: str = "a task", **fields: Any) -> RunSummary:
    values: dict[str, Any] = {
        "run_id": new_run_id(),
        "agent": agent,
        "state": RunState.QUEUED,
        "source": RunSource.HOOK,
        "name": "Console",
        "caller": "operator",
        "session_key": "hook:test",
        "task": task,
        "created_at": time.time(),
    }
    return RunSummary(**{**values, **fields})


class StandIn:
    """One gateway on one port. `auto`: runs go through their states by themselves."""

    def __init__(self, agent: str, port: int, auto: bool = True) -> None:
        self.agent, self.port, self.auto = agent, port, auto
        self.status = make_status(agent, port)
        self.runs: dict[str, Run] = {}
        self.hooks: list[AgentHook] = []
        self.calls: list[tuple[str, str, Any]] = []
        self.approvals: list[Approval] = []
        self.log_lines: list[LogEvent] = []
        self.silent = False
        """Accept work and never answer it: a write whose outcome is unknown."""
        self.resumed_from: list[str | None] = []
        self._sequence = 0
        self._events: deque[tuple[int, bytes]] = deque(maxlen=REPLAY_LIMIT)
        self._readers: dict[asyncio.Queue[tuple[int, bytes]], int] = {}
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # life

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/status", self._status),
                web.get("/events", self._stream),
                web.get("/logs", self._logs),
                web.get("/approvals", self._list_approvals),
                web.post("/approvals/{id}", self._answer),
                web.post("/hooks/agent", self._hook),
                web.get("/hooks/runs", self._list_runs),
                web.get("/hooks/runs/{id}", self._run),
                web.post("/hooks/runs/{id}/cancel", self._cancel),
                web.put("/control/model", self._model),
                web.put("/control/heartbeat", self._heartbeat),
                web.post("/control/heartbeat/now", self._beat),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for queue in list(self._readers):
            queue.put_nowait((0, b""))
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @property
    def running(self) -> bool:
        return self._runner is not None

    # what happens

    def emit(self, event: Event) -> None:
        self._sequence += 1
        data = msgspec.json.encode(event)
        self._events.append((self._sequence, data))
        for queue in self._readers:
            if queue.qsize() < QUEUE_LIMIT:
                queue.put_nowait((self._sequence, data))
            else:
                self._readers[queue] += 1

    def log(self, message: str, level: str = "info", run_id: str | None = None, at: float | None = None) -> None:
        event = LogEvent(
            at=at or time.time(), agent=self.agent, level=level, logger="test", message=message, run_id=run_id
        )
        self.log_lines.append(event)
        self.emit(event)

    def set(self, **fields: Any) -> None:
        """Change the status, as anything that happens in a gateway would."""
        self.status = msgspec.structs.replace(self.status, now=time.time(), **fields)
        self.emit(StatusEvent(at=time.time(), agent=self.agent, status=self.status))

    def ask(self, question: str, detail: str = "", **fields: Any) -> Approval:
        approval = Approval(
            id=f"ask-{self.agent}-{len(self.approvals)}",
            agent=self.agent,
            question=question,
            detail=detail,
            **{"created_at": time.time(), **fields},
        )
        self.approvals.append(approval)
        self.emit(ApprovalEvent(at=time.time(), agent=self.agent, approval=approval))
        return approval

    def advance(self, run_id: str, state: RunState, **fields: Any) -> None:
        """Put a run into `state`."""
        run = msgspec.structs.replace(self.runs[run_id], state=state, **fields)
        self.runs[run_id] = run
        summary = RunSummary(**{f: getattr(run, f) for f in RunSummary.__struct_fields__})
        self.emit(RunEvent(at=time.time(), agent=self.agent, run=summary))
        working = [r for r in self.runs.values() if r.state in (RunState.RUNNING, RunState.WAITING)]
        self.set(
            state="busy" if working else "up",
            queue=QueueStatus(
                queued=sum(r.state is RunState.QUEUED for r in self.runs.values()),
                running=sum(r.state is RunState.RUNNING for r in working),
            ),
            current=[RunSummary(**{f: getattr(r, f) for f in RunSummary.__struct_fields__}) for r in working],
        )

    def delta(self, run_id: str, text: str) -> None:
        self.emit(DeltaEvent(at=time.time(), agent=self.agent, run_id=run_id, text=text))

    def step(self, run_id: str) -> None:
        self.emit(StepEvent(at=time.time(), agent=self.agent, run_id=run_id))

    def finish(self, run_id: str, text: str) -> None:
        self.advance(
            run_id,
            RunState.SUCCEEDED,
            text=text,
            preview=one_line(text),
            finished_at=time.time(),
            model="offline/retrieval",
            usage=Usage(input_tokens=1200, output_tokens=80),
            delivery=Delivery(status="skipped", detail="no channel"),
            facts={"accepted": True, "run": True, "delivered": None, "verified": None},
            steps=[Step(index=0, kind="model", state="done", name="offline/retrieval", output=text, finished_at=1.0)],
        )

    async def _work(self, run_id: str) -> None:
        self.advance(run_id, RunState.RUNNING, started_at=time.time())
        answer = f"[offline] found for {self.runs[run_id].task}: materials.md:12"
        for word in answer.split(" "):
            self.delta(run_id, word + " ")
            await asyncio.sleep(0)
        self.finish(run_id, answer)

    # HTTP

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (OPERATOR, VIEWER):
            return _refuse(401, "unauthorised", "this token is not known here")
        if request.method != "GET":
            self.calls.append((request.method, request.path, await request.read()))
            if token == VIEWER:
                return _refuse(403, "forbidden", "a viewer reads and never writes")
        response: web.StreamResponse = await handler(request)
        return response

    async def _status(self, _: web.Request) -> web.Response:
        return _json(self.status)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        last = request.headers.get("Last-Event-ID")
        self.resumed_from.append(last)
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        hello = HelloEvent(at=time.time(), agent=self.agent, instance=self.status.instance, version="0.1.0")
        await response.write(b"event: hello\ndata: " + msgspec.json.encode(hello) + b"\n\n")
        if last:
            after = int(last.rpartition("-")[2])
            for sequence, data in list(self._events):
                if sequence > after:
                    queue.put_nowait((sequence, data))
        self._readers[queue] = 0
        try:
            while True:
                sequence, data = await queue.get()
                if not data:
                    break
                await response.write(f"id: {self.status.instance}-{sequence}\ndata: ".encode() + data + b"\n\n")
                if queue.empty() and self._readers[queue]:
                    gap = GapEvent(at=time.time(), agent=self.agent, missed=self._readers[queue])
                    self._readers[queue] = 0
                    await response.write(b"data: " + msgspec.json.encode(gap) + b"\n\n")
        except ConnectionError:
            pass
        finally:
            del self._readers[queue]
        return response

    async def _logs(self, _: web.Request) -> web.Response:
        return _json(LogList(lines=self.log_lines[-200:]))

    async def _list_approvals(self, request: web.Request) -> web.Response:
        every = "all" in request.query
        return _json(ApprovalList(approvals=[a for a in self.approvals if every or a.state == "pending"]))

    async def _answer(self, request: web.Request) -> web.Response:
        answer = msgspec.json.decode(await request.read(), type=ApprovalAnswer)
        asked = next(a for a in self.approvals if a.id == request.match_info["id"])
        if asked.state != "pending" or answer.revision != asked.revision:
            return _refuse(409, "stale_revision", f"revision {answer.revision} is not current")
        return _json(self.decide(asked, answer.decision == "approve", "operator", answer.reason))

    def decide(self, asked: Approval, approve: bool, by: str, reason: str = "", tell: bool = True) -> Approval:
        """Somebody answers; with `tell` false no console hears of it."""
        answered = msgspec.structs.replace(
            asked,
            state="approved" if approve else "rejected",
            revision=asked.revision + 1,
            answered_at=time.time(),
            answered_by=by,
            reason=reason,
        )
        self.approvals[self.approvals.index(asked)] = answered
        if tell:
            self.emit(ApprovalEvent(at=time.time(), agent=self.agent, approval=answered))
        return answered

    async def _hook(self, request: web.Request) -> web.Response:
        hook = msgspec.json.decode(await request.read(), type=AgentHook)
        self.hooks.append(hook)
        if self.silent:
            if request.transport:
                request.transport.close()
            return web.Response()
        known = next((r for r in self.runs.values() if r.idempotency_key == hook.idempotency_key), None)
        if known is None:
            summary = make_run(self.agent, one_line(hook.message))
            fields = {f: getattr(summary, f) for f in RunSummary.__struct_fields__}
            known = Run(**fields, message=hook.message, idempotency_key=hook.idempotency_key)
            self.runs[known.run_id] = known
            self.advance(known.run_id, RunState.QUEUED)
            if self.auto:
                task = asyncio.create_task(self._work(known.run_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        url = f"/hooks/runs/{known.run_id}"
        return _json(AgentAccepted(ok=True, run_id=known.run_id, status="queued", status_url=url), 202)

    async def _list_runs(self, _: web.Request) -> web.Response:
        names = RunSummary.__struct_fields__
        runs = [RunSummary(**{f: getattr(r, f) for f in names}) for r in self.runs.values()]
        return _json(RunList(runs=runs[::-1][:50], total=len(runs)))

    async def _run(self, request: web.Request) -> web.Response:
        run = self.runs.get(request.match_info["id"])
        return _json(run) if run else _refuse(404, "unknown_run", "no such run")

    async def _cancel(self, request: web.Request) -> web.Response:
        self.advance(request.match_info["id"], RunState.CANCELLED, reason="cancelled by operator")
        return _json(Acted(ok=True, outcome="cancelled"))

    async def _model(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=ModelChange).model
        before = self.status.model
        undo = before.active if before.origin == "override" else None
        active = wanted or "offline/retrieval"
        origin = "override" if wanted else "profile"
        self.set(model=msgspec.structs.replace(before, active=active, origin=origin))
        return _json(ModelChanged(ok=True, model=active, previous=before.active, undo=undo))

    async def _heartbeat(self, request: web.Request) -> web.Response:
        change = msgspec.json.decode(await request.read(), type=HeartbeatChange)
        beat = self.status.heartbeat
        enabled = beat.enabled if change.enabled is None else change.enabled
        every = change.every_seconds or beat.every_seconds
        state = "scheduled" if enabled else "off"
        self.set(heartbeat=msgspec.structs.replace(beat, enabled=enabled, every_seconds=every, state=state))
        return _json(Acted(ok=True, outcome=f"every {every:g} s" if enabled else "off"))

    async def _beat(self, _: web.Request) -> web.Response:
        self.set(heartbeat=msgspec.structs.replace(self.status.heartbeat, last_at=time.time()))
        return _json(Acted(ok=True, outcome="ok"))


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _refuse(status: int, code: str, message: str) -> web.Response:
    return _json({"ok": False, "error": {"code": code, "message": message}}, status)
