"""One agent's process, from its start to its end: the parts are built here and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web

from gateway.agent.acceptance import Acceptance
from gateway.agent.approvals import Approvals
from gateway.agent.budget import Budget
from gateway.agent.children import OwnRuns
from gateway.agent.heartbeat import Heartbeat
from gateway.agent.memory import Memory
from gateway.agent.peers import Peers
from gateway.agent.permissions import Permissions
from gateway.agent.projectlog import ProjectLog
from gateway.agent.prompt import PromptBuilder
from gateway.agent.runner import Runner
from gateway.agent.schedule import Scheduler
from gateway.agent.skills import Skills
from gateway.agent.tool import Tool
from gateway.announcer import Announcer
from gateway.api.control import ControlApi
from gateway.api.deadletters import DeadLettersApi
from gateway.api.hooks import HooksApi
from gateway.api.pairings import PairingsApi
from gateway.api.requests import RequestsApi
from gateway.api.schedules import SchedulesApi
from gateway.api.status import StatusApi
from gateway.api.usage import UsageApi
from gateway.api.waiting import RunWaiters
from gateway.background import Background, Part
from gateway.channels.channel import Listener
from gateway.channels.commands import Desk
from gateway.channels.discord.channel import DiscordChannel
from gateway.channels.outbox import Outbox, effects_of, swallowed
from gateway.channels.routing import Router
from gateway.configuration import Configuration
from gateway.desk import build_desk
from gateway.effects import effect_handlers
from gateway.exclusive import listen, only_process
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewEffect, NewRun
from gateway.ledger.spending import Spending
from gateway.mcp.servers import McpServers
from gateway.models.models import Models
from gateway.models.offline import OfflineProvider
from gateway.talk import Talk
from gateway.toolbox import build_tools
from gateway.tools.commands import Command, Commands
from gateway.tools.delegate import Delegate
from gateway.tools.mcp import mcp_tools
from gateway.tools.shell_delegation import ShellDelegations
from gateway.upkeep import cancel_delegated, prune
from gateway.working import Work
from protocols import VERSION
from protocols.control import HeartbeatChange
from protocols.runs import RunState, one_line
from runtime.budget_store import BudgetStore
from runtime.home import Home
from runtime.logs import Logs
from runtime.notify import notify
from runtime.service.app import Route, build_app
from runtime.service.auth import Auth
from runtime.service.events import EventBus, EventStream
from runtime.service.openapi import describe

log = logging.getLogger("gateway")

DRAIN_SECONDS = 10.0
"""Runs under way at SIGTERM may take so long; then they go back into the queue."""
LEAVE_SECONDS = 3.0
"""What they send out may take so long; the rest leaves after the next start."""


class Gateway:
    """One agent: builds its parts, serves, drains, stops."""

    def __init__(self, home: Home, agent: str) -> None:
        """Reads the configuration; raises ConfigError, HomeError or SecretError."""
        self.home = home
        self.agent = agent
        self.config = Configuration(home, agent)
        self.instance = uuid.uuid4().hex[:12]
        self._stop = asyncio.Event()
        self._started_at = time.time()

    async def run(self) -> None:
        """startup -> serve until SIGTERM -> drain -> shutdown. Raises PortTaken, or what startup raised."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            notify("READY=1")
            log.info("listening on %s:%d, version %s", *self.config.address, VERSION)
            await self._stop.wait()
            notify("STOPPING=1")
            log.info("stopping: %d run(s) may take up to %.0f s", self._reader.queue().running, DRAIN_SECONDS)
            await self.runner.drain(DRAIN_SECONDS)
            await self.outbox.emptied(LEAVE_SECONDS)
        self._logs.close()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        home, agent = self.home, self.agent
        self._redact = self.config.redact
        token = self.config.secrets.token(agent)
        self.config.learn_secrets()
        self._logs = Logs(agent, home.logs(agent), self._redact, self.config.file.limits.log_level)
        await stack.enter_async_context(only_process(home, agent))
        self._ledger = Ledger(home.state_db(agent), agent)
        await asyncio.to_thread(self._ledger.start)
        stack.callback(self._ledger.close)
        recovered, lost = await self._ledger.recover()
        self._reader = Reader(home.state_db(agent), agent)
        stack.callback(self._reader.close)
        self._build(token)
        stack.push_async_callback(self.peers.close)
        stack.push_async_callback(self.models.close)
        stack.push_async_callback(self.budget.close)
        await self.budget.start()
        stack.callback(self.memory.close)
        stack.push_async_callback(self.commands.close)
        stack.push_async_callback(self.mcp.close)
        self._watch_signals()
        self._logs.publish_to(self.announcer.log_line)
        stack.callback(self._logs.publish_to, None)
        await self._listen(stack)
        for run_id, why in self._reader.to_cancel():
            await self.runner.cancel(run_id, why)
            self._cancel_children(run_id)
        if recovered or lost:
            log.warning("after a restart: %d run(s) go on, %d given up as lost", recovered, len(lost))
        await stack.enter_async_context(self._working())

    def _build(self, token: str) -> None:
        """The parts, lower floors first."""
        home, agent, file = self.home, self.agent, self.config.file
        self.bus = EventBus(agent, self.instance)
        self.background = Background(on_death=self.bus.touch)
        self.auth = Auth(self.config.callers)
        self.peers = Peers(agent, self.config.cluster, token)
        self.models = Models(
            self.config.instance,
            self.config.cluster,
            self.config.secrets,
            make_offline=lambda _: OfflineProvider(),
            learn=lambda secret: self._redact.know([secret]),
        )
        self.spending = Spending(home.state_db(agent))
        self.budget = Budget(
            BudgetStore(home.run / "budget.db", agent, self.instance),
            self.spending,
            self.models,
            file.budget,
            self.config.cluster.file.budget,
            on_change=self.bus.touch,
        )
        self.memory = Memory(self.config.instance.workspace, home.shared, home.instance(agent) / "memory.db")
        scratch = home.run / "tmp" / agent
        self.commands = Commands(
            self.config.sandbox(), file.shell, self.config.instance.workspace, scratch, on_end=self._command_ended
        )
        self.delegations = ShellDelegations(
            Delegate(self.peers, self._ledger), self._reader, scratch / "bin", redact=self._redact
        )
        self.skills = Skills(self.config.instance.workspace, home.shared)
        self.mcp = McpServers(on_change=self._mcp_changed, redact=self._redact)
        self.mcp.configure(file.mcp, self.config.launcher())
        self.prompt = PromptBuilder(
            agent,
            file.agent.title,
            self.config.instance.workspace,
            home.shared,
            skills=lambda: self.skills.prompt() if "skill" in self.tools else "",
        )
        self.project_log = ProjectLog(home.project_log, home.run / "project_log.lock")
        self.waiters = RunWaiters(self._reader)
        self.announcer = Announcer(
            agent,
            self.bus,
            self._reader,
            self.waiters,
            on_run=lambda run: self.talk.run_changed(run),
            on_approval=lambda approval: self.talk.approval_changed(approval),
            on_delta=lambda run_id, text, reset: self.talk.delta(run_id, text, reset),
        )
        self._ledger.steps.tell(self.announcer.step)
        self.approvals = Approvals(
            self._ledger.approvals,
            self._reader,
            expires_after=self.config.approval_expires,
            on_change=self.announcer.approval,
        )
        self.runner = Runner(
            self._ledger,
            self._reader,
            work=self._work,
            effects_of=self._effects_of,
            on_change=self.announcer.run_changed,
            on_end=self._run_ended,
            places=file.limits.concurrent_runs,
            run_timeout=self.config.run_timeout(),
        )
        self.acceptance = Acceptance(
            self._ledger,
            self._reader,
            self.runner,
            steer=lambda: self.config.file.limits.steer,
            on_accept=self.announcer.run_accepted,
            cancel_children=self._cancel_children,
        )
        self.router = Router(
            session_route=self._reader.conversations.route,
            main_session=f"agent:{agent}:main",
            home=lambda: self.config.file.discord.home,
            connected=lambda: self.talk.connected(),
        )
        self.heartbeat = Heartbeat(
            agent,
            self.config.beat(),
            self.config.instance.workspace,
            self._ledger,
            self._reader,
            shared=home.shared,
            busy=lambda: self.runner.busy,
            draining=lambda: self.runner.draining,
            route=self.router.beat_target,
            money=self.budget.exhausted,
            wake_runner=self.runner.wake,
            on_change=lambda: self.announcer.heartbeat(self.heartbeat.status()),
        )
        self.talk = Talk(
            agent,
            self._make_channel,
            self._ledger,
            self._reader,
            self.acceptance,
            self.approvals,
            config=lambda: self.config.instance,
            cluster=lambda: self.config.cluster,
            configured=lambda: self._has_bot,
            desk=self._desk,
            redact=self._redact,
            preview=self._redact.so_far,
            on_change=self.announcer.run_changed,
            wake_outbox=lambda: self.outbox.wake(),
        )
        self.outbox = Outbox(
            self._ledger,
            self._reader,
            {**effect_handlers(agent, self.project_log, self.peers, self._ledger), **self.talk.handlers()},
            on_change=self.announcer.delivery_changed,
        )
        self.own_runs = OwnRuns(
            agent,
            self._ledger,
            self._reader,
            on_accept=self._run_begun_here,
            wait_for_end=self.waiters.wait_for_end,
        )
        self.work = Work(
            self._ledger,
            self._reader,
            self.models,
            self.budget,
            self.prompt,
            self.approvals,
            self.own_runs,
            config=lambda: self.config.file,
            tools=lambda: self.tools,
            permissions=self._permissions,
            redact=self._redact,
            on_change=self.announcer.run_changed,
            on_delta=self.announcer.delta,
        )
        self.scheduler = Scheduler(
            agent,
            self.config.schedule(),
            self._ledger,
            self._reader,
            on_accept=self._run_begun_here,
            on_change=lambda: self.bus.touch(),
            redact=self._redact,
            draining=lambda: self.runner.draining,
        )
        self.status = StatusApi(
            agent=agent,
            title=file.agent.title,
            instance=self.instance,
            port=self.config.instance.spec.port,
            profile=lambda: self.config.cluster.file.models.profile,
            ledger=self._ledger,
            reader=self._reader,
            runner=self.runner,
            heartbeat=self.heartbeat,
            models=self.models,
            budget=self.budget,
            prompt=self.prompt,
            tools=lambda: list(self.tools),
            skills=self.skills.status,
            mcp=self.mcp.status,
            channels=self.talk.status,
            deaf=self.talk.failing,
            can_delegate_to=self.peers.names,
            dead_tasks=self.background.dead,
            config_error=lambda: self.config.error,
            started_at=self._started_at,
        )
        self.events = EventStream(self.bus, self.status.snapshot, VERSION)
        self.tools: dict[str, Tool] = self._build_tools()
        self.hooks = HooksApi(
            agent,
            self._ledger,
            self._reader,
            self.runner,
            self.heartbeat,
            self.models,
            self.waiters,
            accept=self.acceptance,
            authority=lambda: self.config.cluster.authority,
            on_change=self.announcer.run_changed,
            cancel_children=self._cancel_children,
            redact=self._redact,
        )
        self.control = ControlApi(
            agent,
            self._reader,
            self.models,
            self.heartbeat,
            self.approvals,
            self._logs.path,
            set_heartbeat=self._set_heartbeat,
            on_model=lambda: self.announcer.model(self.models.status()),
            drain=self._begin_drain,
            draining=lambda: self.runner.draining,
            reload=self._reload,
        )

    # -- serving -----------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Everything this process answers."""
        routes: list[Route] = []
        title = f"Atomizer gateway: {self.agent}"
        routes += self.status.routes(self.events, lambda: describe(routes, title=title, version=VERSION))
        routes += self.hooks.routes()
        routes += self.control.routes()
        routes += UsageApi(self.agent, self.spending, self.budget).routes()
        routes += SchedulesApi(self.agent, self.scheduler, self._reader).routes()
        routes += PairingsApi(self.agent, self._ledger, self._reader).routes()
        routes += DeadLettersApi(self.agent, self._ledger, self._reader, self.outbox).routes()
        routes += RequestsApi(
            self.agent,
            self._ledger,
            self._reader,
            self.runner,
            authority=lambda: self.config.cluster.authority,
            known=self.peers.known,
            on_accept=self._run_begun_here,
            redact=self._redact,
        ).routes()
        return routes

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        app = build_app(self.routes(), self.auth, allowed_hosts=lambda: self.config.cluster.file.allowed_hosts)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(self.waiters.release_all)
        stack.callback(self.events.stop)
        spec = self.config.instance.spec
        await listen(web.TCPSite(runner, spec.host, spec.port, reuse_port=False, backlog=1024), spec, self.home)

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        parts: dict[str, Part] = {
            "the runner": self.runner.serve(),
            "the heartbeat": self.heartbeat.serve(),
            "the schedule": self.scheduler.serve(),
            "the outbox": self.outbox.serve(),
            "the approvals": self.approvals.serve(),
            **self.talk.parts(),
            "maintenance": prune(
                self._ledger,
                self._reader,
                busy=lambda: self.runner.occupied,
                limits=lambda: self.config.file.limits,
                forget=self.talk.forget,
            ),
        }
        try:
            async with self.background.working(parts):
                self.mcp.start()
                await self.talk.start()
                yield
        finally:
            await self.talk.close()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)

    # -- a run -------------------------------------------------------------------------------------------------

    async def _work(self, run: ClaimedRun, park: Callable[[str], AbstractAsyncContextManager[None]]) -> str:
        await self.mcp.settle()
        self.talk.run_began(run)
        try:
            text = await self.work(run, park)
            await self.delegations.settle(run.run_id)
            return text
        finally:
            self.delegations.abandon(run.run_id)
            self.talk.live.end(run.run_id)

    def _run_begun_here(self, new: NewRun) -> None:
        """A run that this agent gave itself."""
        self.announcer.run_accepted(new)
        self.runner.accepted(held=new.held, deadline=new.deadline)

    def _effects_of(
        self, run: ClaimedRun, state: RunState, text: str, reason: str, into: ClaimedRun | None
    ) -> list[NewEffect]:
        way = self.router.destination(run.options, run.session_key)
        repeated = self.heartbeat.repeats(run, text)
        return effects_of(run, state, text, reason, way, repeated=repeated, answered_with=into)

    async def _run_ended(self, run: ClaimedRun, ending: Ending) -> None:
        self.outbox.wake()
        if ending.state is not RunState.SUCCEEDED:
            await self.commands.end_run(run.run_id, f"its run {ending.state.value}")
        self.approvals.run_ended(run.run_id)
        for merged_id in ending.merged:
            self.announcer.run_changed(merged_id)
        if run.source.value == "heartbeat":
            await self.heartbeat.ended(run, ending, swallowed(ending.text))

    def _command_ended(self, command: Command) -> None:
        """One in the background: the agent hears of it at its next heartbeat."""
        line = one_line(self._redact(command.line), 200)  # redacted first: half a secret would not be known as one
        text = f"the command {command.name} ({line}): {command.state()}"
        log.info("%s", text)
        self.background.beside(self._ledger.beats.add_note(text, self.agent), f"note-{command.name}")

    def _cancel_children(self, run_id: str) -> None:
        """In the background: the receivers may be slow."""
        self.background.beside(cancel_delegated(self._reader, self.peers, run_id), f"cancel-{run_id}")

    # -- control -----------------------------------------------------------------------------------------------

    def _set_heartbeat(self, change: HeartbeatChange) -> None:
        self.heartbeat.configure(self.config.change_heartbeat(change))

    def _begin_drain(self) -> None:
        self.runner.start_no_more()  # before anything else is admitted
        log.info("draining: runs under way may take up to %.0f s; a restart starts runs again", DRAIN_SECONDS)
        self.background.beside(self.runner.drain(DRAIN_SECONDS), "drain")
        self.bus.touch()

    async def _reload(self) -> str:
        """A bad configuration changes nothing and is shown in `/status`."""
        try:
            moved = self.config.reload()
        finally:
            self.bus.touch()
        config, cluster = self.config.instance, self.config.cluster
        self.auth.reload(self.config.callers)
        self.peers.reload(cluster)
        self.models.reload(config, cluster)
        self.budget.configure(config.file.budget, cluster.file.budget)
        self.commands.configure(self.config.sandbox(), config.file.shell, config.workspace)
        self.mcp.configure(config.file.mcp, self.config.launcher())
        self._connect()
        self.tools = self._build_tools()
        self.runner.configure(places=config.file.limits.concurrent_runs, run_timeout=self.config.run_timeout())
        self.heartbeat.configure(self.config.beat())
        self.scheduler.configure(self.config.schedule())
        self._logs.set_level(config.file.limits.log_level)
        log.info("configuration read again")
        self.bus.touch()
        return "reloaded" + ("; the new port is used after a restart" if moved else "")

    def _permissions(self) -> Permissions:
        return self.config.permissions([tool.spec.name for tool in mcp_tools(self.mcp.all(), self._redact)])

    def _make_channel(self, listener: Listener) -> DiscordChannel:
        self._discord = DiscordChannel(
            listener,
            known=self._reader.known_target,
            recall=self._reader.posts.mark,
            remember=self._ledger.posts.mark,
            on_change=self._channel_changed,
        )
        self._connect()
        return self._discord

    def _connect(self) -> None:
        """With the token and settings of this moment; without a token there is no channel."""
        token, settings = self.config.discord()
        self._has_bot = token is not None
        self._discord.configure(token, settings)

    def _channel_changed(self) -> None:
        self.bus.touch()
        self.talk.connection_changed()

    def _desk(self, talk: Talk) -> Desk:
        return build_desk(
            self.agent,
            talk.channel,
            self._ledger,
            self._reader,
            self.runner,
            self.models,
            self.heartbeat,
            self.approvals,
            self.peers,
            status=lambda: self.status.snapshot(),
            on_model=lambda: self.announcer.model(self.models.status()),
            set_heartbeat=self._set_heartbeat,
            cancel_children=self._cancel_children,
            redact=self._redact,
        )

    def _mcp_changed(self, tools: bool) -> None:
        """A server came or went; if it offers other tools, runs that begin from now on see them."""
        if tools:
            self.tools = self._build_tools()
        self.bus.touch()

    def _build_tools(self) -> dict[str, Tool]:
        return build_tools(
            self.agent,
            self.config.instance,
            self.home,
            memory=self.memory,
            peers=self.peers,
            ledger=self._ledger,
            project_log=self.project_log,
            commands=self.commands,
            delegations=self.delegations,
            scheduler=self.scheduler,
            own_runs=self.own_runs,
            outbox=self.outbox,
            redact=self._redact,
            reader=self._reader,
            status=self.status.snapshot,
            skills=self.skills,
            web=self.config.cluster.file.web,
            search_key=lambda: self.config.secrets.api_key("brave", self.agent),
            mcp=self.mcp,
            permissions=self._permissions(),
        )
