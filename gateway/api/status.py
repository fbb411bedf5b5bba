"""`/health`, `/ready`, `/status`, `/metrics`, `/events`, `/openapi.json`: how the agent stands."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import resource
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from aiohttp import web

from gateway.agent.budget import Budget
from gateway.agent.heartbeat import Heartbeat
from gateway.agent.prompt import PromptBuilder
from gateway.agent.runner import Runner
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.models.models import Models
from protocols import VERSION
from protocols.errors import AtomizerError
from protocols.health import SERVICE, Health, Ready
from protocols.status import AgentStatus, ChannelStatus, McpServerStatus, PromptFile, SkillStatus
from runtime.service.app import Access, Call, Route, json_response
from runtime.service.events import EventStream

_PROBE_SECONDS = 2.0
_SCHEDULES_SHOWN = 5
"""`/ready` writes to the ledger at most so often, and waits at most so long."""


class StatusApi:
    """Answers about one agent; `snapshot()` is all of it."""

    def __init__(
        self,
        *,
        agent: str,
        title: str,
        instance: str,
        port: int,
        profile: Callable[[], str],
        ledger: Ledger,
        reader: Reader,
        runner: Runner,
        heartbeat: Heartbeat,
        models: Models,
        budget: Budget,
        prompt: PromptBuilder,
        tools: Callable[[], list[str]],
        skills: Callable[[], list[SkillStatus]],
        mcp: Callable[[], list[McpServerStatus]],
        channels: Callable[[], list[ChannelStatus]],
        deaf: Callable[[], list[str]],
        can_delegate_to: Callable[[], list[str]],
        dead_tasks: Callable[[], list[str]],
        config_error: Callable[[], str],
        started_at: float,
    ) -> None:
        """`deaf()`: what is wrong with its channels, a sentence each."""
        self._agent = agent
        self._title = title
        self._instance = instance
        self._port = port
        self._profile = profile
        self._ledger = ledger
        self._reader = reader
        self._runner = runner
        self._heartbeat = heartbeat
        self._models = models
        self._budget = budget
        self._prompt = prompt
        self._tools = tools
        self._skills = skills
        self._mcp = mcp
        self._channels = channels
        self._deaf = deaf
        self._can_delegate_to = can_delegate_to
        self._dead_tasks = dead_tasks
        self._config_error = config_error
        self._started_at = started_at
        self._probe: tuple[float, str] = (float("-inf"), "")

    def routes(self, events: EventStream, openapi: Callable[[], object]) -> list[Route]:
        async def describe(call: Call) -> web.Response:
            return json_response(openapi())

        async def stream(call: Call) -> web.StreamResponse:
            return await events.serve(call.request)

        return [
            Route("GET", "/health", self.health, Access.OPEN, "This process, this agent", Health),
            Route("GET", "/ready", self.ready, Access.OPEN, "Can it work? 503 with what fails", Ready),
            Route("GET", "/status", self.status, Access.ANY, "Everything about the agent", AgentStatus),
            Route("GET", "/metrics", self.metrics, Access.ANY, "OpenMetrics"),
            Route("GET", "/events", stream, Access.WATCH, "Server-sent events, resumable by Last-Event-ID"),
            Route("GET", "/openapi.json", describe, Access.OPEN, "This description"),
        ]

    async def health(self, call: Call) -> Health:
        return Health(
            ok=True, status="live", service=SERVICE, agent=self._agent, instance=self._instance, version=VERSION
        )

    async def ready(self, call: Call) -> tuple[int, Ready]:
        await self._probe_ledger()
        failing = self._failing()
        return (503 if failing else 200), Ready(ready=not failing, failing=failing)

    async def status(self, call: Call) -> AgentStatus:
        await self._budget.refresh()
        return self.snapshot()

    async def metrics(self, call: Call) -> web.Response:
        text = _metrics(self.snapshot(), self._ledger)
        return web.Response(
            body=text.encode(),
            headers={"Content-Type": "application/openmetrics-text; version=1.0.0; charset=utf-8"},
        )

    def snapshot(self) -> AgentStatus:
        reader = self._reader
        queue = reader.queue()
        usage, cost, runs = reader.spent_since(_midnight())
        failing = self._failing()
        heartbeat = self._heartbeat.status()
        return AgentStatus(
            agent=self._agent,
            title=self._title,
            state=self._state(failing, bool(queue.running), heartbeat.state),
            instance=self._instance,
            version=VERSION,
            pid=os.getpid(),
            port=self._port,
            started_at=self._started_at,
            now=time.time(),
            profile=self._profile(),
            model=self._models.status(),
            heartbeat=heartbeat,
            queue=queue,
            current=reader.current(),
            usage_today=usage,
            cost_today_usd=cost,
            budget=self._budget.status(),
            runs_today=runs,
            sessions=reader.conversations.session_count(),
            can_delegate_to=self._can_delegate_to(),
            failing=failing,
            last_error=reader.last_failure(),
            config_error=self._config_error(),
            rss_bytes=_rss_bytes(),
            ledger_bytes=reader.size_bytes(),
            dead_letters=reader.dead_letters(),
            schedules=reader.schedules.coming(_SCHEDULES_SHOWN),
            prompt=_prompt_files(self._prompt, int(time.monotonic() / 30)),
            tools=self._tools(),
            skills=self._skills(),
            mcp=self._mcp(),
            channels=self._channels(),
        )

    def _state(self, failing: Sequence[str], busy: bool, heartbeat: str) -> str:
        if self._runner.draining:
            return "draining"
        if failing:
            return "degraded"
        if heartbeat == "paused":
            return "paused"
        return "busy" if busy else "up"

    def _failing(self) -> list[str]:
        """Everything wrong that can be told without writing."""
        failing = [f"{name} has stopped" for name in self._dead_tasks()]
        if self._runner.draining:
            failing.append("draining: no run starts until this gateway is restarted")
        problem = self._models.usable()
        if problem:
            failing.append(problem)
        failing += self._deaf()
        if self._probe[1]:
            failing.append(self._probe[1])
        return failing

    async def _probe_ledger(self) -> None:
        """Try a durable write now and then; its failure shows in `/status` as well."""
        now = time.monotonic()
        if now - self._probe[0] >= _PROBE_SECONDS:
            problem = ""
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._ledger.probe()
            except TimeoutError:
                problem = f"the ledger did not commit within {_PROBE_SECONDS:.0f} s"
            except AtomizerError as error:
                problem = str(error)
            self._probe = (now, problem)


@lru_cache(maxsize=1)
def _prompt_files(builder: PromptBuilder, _half_minute: int) -> list[PromptFile]:
    """The prompt's files change rarely: looked at twice a minute at most."""
    return list(builder.files())


def _midnight() -> float:
    """The last midnight, UTC, in unix seconds."""
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today.timestamp()


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _metrics(s: AgentStatus, ledger: Ledger) -> str:
    label = f'{{agent="{s.agent}"}}'
    rows = [
        ("atomizer_up", "gauge", 1),
        ("atomizer_ready", "gauge", int(not s.failing)),
        ("atomizer_runs_queued", "gauge", s.queue.queued),
        ("atomizer_runs_running", "gauge", s.queue.running),
        ("atomizer_runs_waiting", "gauge", s.queue.waiting),
        ("atomizer_runs_today", "gauge", s.runs_today),
        ("atomizer_input_tokens_today", "gauge", s.usage_today.input_tokens),
        ("atomizer_output_tokens_today", "gauge", s.usage_today.output_tokens),
        ("atomizer_resident_memory_bytes", "gauge", s.rss_bytes),
        ("atomizer_ledger_bytes", "gauge", s.ledger_bytes),
        ("atomizer_dead_letters", "gauge", s.dead_letters),
        ("atomizer_ledger_commits", "counter", ledger.writer.commits),
        ("atomizer_ledger_operations", "counter", ledger.writer.operations),
        ("atomizer_start_time_seconds", "gauge", s.started_at),
    ]
    if s.cost_today_usd is not None:
        rows.append(("atomizer_cost_today_usd", "gauge", s.cost_today_usd))
    lines = []
    for name, kind, value in rows:
        lines.append(f"# TYPE {name} {kind}")
        lines.append(f"{name}{'_total' if kind == 'counter' else ''}{label} {value}")
    return "\n".join(lines) + "\n# EOF\n"
