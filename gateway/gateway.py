"""One agent's process, from its start to its end: the parts are built here and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from aiohttp import web

from gateway.agent.acceptance import Acceptance
from gateway.agent.approvals import Approvals
from gateway.agent.budget import Budget
from gateway.agent.children import OwnRuns
from gateway.agent.heartbeat import BeatConfig, Heartbeat
from gateway.agent.memory import Memory
from gateway.agent.peers import Peers
from gateway.agent.permissions import Permissions
from gateway.agent.projectlog import ProjectLog
from gateway.agent.prompt import PromptBuilder
from gateway.agent.runner import Runner
from gateway.agent.schedule import ScheduleConfig, Scheduler
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
from gateway.channels.channel import Listener
from gateway.channels.commands import Desk
from gateway.channels.discord.channel import DiscordChannel
from gateway.channels.discord.settings import discord_settings
from gateway.channels.outbox import Outbox, effects_of, swallowed
from gateway.channels.routing import Router
from gateway.desk import build_desk
from gateway.effects import effect_handlers
from gateway.exclusive import listen, only_process
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Ending, NewEffect, NewRun
from gateway.ledger.spending import Spending
from gateway.mcp.launch import Launcher
from gateway.mcp.servers import McpServers
from gateway.models.models import Models
from gateway.models.offline import OfflineProvider
from gateway.talk import Talk
from gateway.toolbox import ALWAYS, build_tools
from gateway.tools.commands import Command, Commands
from gateway.tools.delegate import Delegate
from gateway.tools.mcp import mcp_tools
from gateway.tools.shell_delegation import ShellDelegations
from gateway.upkeep import cancel_delegated, prune
from gateway.working import Work
from protocols import VERSION
from protocols.control import HeartbeatChange
from protocols.errors import AtomizerError, ProtocolError, StorageFull
from protocols.runs import RunState, one_line
from runtime.budget_store import BudgetStore
from runtime.config import (
    Cluster,
    ConfigError,
    Instance,
    load_cluster,
    load_instance,
    parse_duration,
    parse_quiet,
)
from runtime.home import Home, explain_os_error
from runtime.logs import Logs
from runtime.notify import notify
from runtime.overrides import OverridesBusy, change_overrides
from runtime.sandbox import Sandbox
from runtime.secrets import PROVIDERS, SERVICES, Redactor, Secrets
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
        self.cluster, self.config = _read_configuration(home, agent)
        self.instance = uuid.uuid4().hex[:12]
        self._config_error = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._started_at = time.time()

    async def run(self) -> None:
        """startup -> serve until SIGTERM -> drain -> shutdown. Raises PortTaken, or what startup raised."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            notify("READY=1")
            log.info("listening on %s:%d, version %s", self.config.spec.host, self.config.spec.port, VERSION)
            await self._stop.wait()
            notify("STOPPING=1")
            log.info("stopping: %d run(s) may take up to %.0f s", self._reader.queue().running, DRAIN_SECONDS)
            await self.runner.drain(DRAIN_SECONDS)
            await self.outbox.emptied(LEAVE_SECONDS)
        self._logs.close()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        home, agent = self.home, self.agent
        self._secrets = Secrets(home)
        token = self._secrets.token(agent)
        self._redact = Redactor()
        self._learn_secrets(self.cluster, self.config)
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
        await stack.enter_async_context(self._background())

    def _learn_secrets(self, cluster: Cluster, config: Instance) -> None:
        """What must not appear in a log or a transcript: our own secrets by value, others' tokens by hash."""
        own = [self._secrets.get(self.agent, name) for owner, name in self._secrets.list() if owner == self.agent]
        providers = (*PROVIDERS, *cluster.file.providers, *SERVICES)
        keys = [self._secrets.api_key(provider, self.agent) for provider in providers]
        given = {path for table in config.file.mcp.values() for path in table.secrets.values()}
        own += [self._secrets.get(owner, name) for owner, name in (path.split("/") for path in given)]
        self._redact.know([v for v in (*own, *keys) if v], self._secrets.callers())

    def _build(self, token: str) -> None:
        """The parts, lower floors first."""
        home, agent, file = self.home, self.agent, self.config.file
        self.bus = EventBus(agent, self.instance)
        self.auth = Auth(self._secrets.callers())
        self.peers = Peers(agent, self.cluster, token)
        self.models = Models(
            self.config,
            self.cluster,
            self._secrets,
            make_offline=lambda _: OfflineProvider(),
            learn=lambda secret: self._redact.know([secret]),
        )
        self.spending = Spending(home.state_db(agent))
        self.budget = Budget(
            BudgetStore(home.run / "budget.db", agent, self.instance),
            self.spending,
            self.models,
            file.budget,
            self.cluster.file.budget,
            on_change=self.bus.touch,
        )
        self.memory = Memory(self.config.workspace, home.shared, home.instance(agent) / "memory.db")
        scratch = home.run / "tmp" / agent
        self.commands = Commands(
            self._sandbox(), file.shell, self.config.workspace, scratch, on_end=self._command_ended
        )
        self.delegations = ShellDelegations(
            Delegate(self.peers, self._ledger), self._reader, scratch / "bin", redact=self._redact
        )
        self.skills = Skills(self.config.workspace, home.shared)
        self.mcp = McpServers(on_change=self._mcp_changed, redact=self._redact)
        self.mcp.configure(file.mcp, self._launcher())
        self.prompt = PromptBuilder(
            agent,
            file.agent.title,
            self.config.workspace,
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
            expires_after=lambda: parse_duration(self.config.file.limits.approval_expires),
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
            run_timeout=parse_duration(file.limits.run_timeout),
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
            self._beat_config(),
            self.config.workspace,
            self._ledger,
            self._reader,
            shared=home.shared,
            busy=lambda: self.runner.busy,
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
            config=lambda: self.config,
            cluster=lambda: self.cluster,
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
            {**effect_handlers(agent, self.project_log, self.peers), **self.talk.handlers()},
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
            permissions=lambda: self.permissions,
            redact=self._redact,
            on_change=self.announcer.run_changed,
            on_delta=self.announcer.delta,
        )
        self.scheduler = Scheduler(
            agent,
            self._schedule_config(),
            self._ledger,
            self._reader,
            on_accept=self._run_begun_here,
            on_change=lambda: self.bus.touch(),
            redact=self._redact,
        )
        self.status = StatusApi(
            agent=agent,
            title=file.agent.title,
            instance=self.instance,
            port=self.config.spec.port,
            profile=lambda: self.cluster.file.models.profile,
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
            dead_tasks=self._dead_tasks,
            config_error=lambda: self._config_error,
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
            authority=lambda: self.cluster.authority,
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
            authority=lambda: self.cluster.authority,
            known=self.peers.known,
            on_accept=self._run_begun_here,
            redact=self._redact,
        ).routes()
        return routes

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        app = build_app(self.routes(), self.auth, allowed_hosts=lambda: self.cluster.file.allowed_hosts)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(self.waiters.release_all)
        stack.callback(self.events.stop)
        spec = self.config.spec
        await listen(web.TCPSite(runner, spec.host, spec.port, reuse_port=False, backlog=1024), spec, self.home)

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """The tasks that work while we serve. One that dies is shown in `/ready`; the others go on."""
        parts: dict[str, Coroutine[Any, Any, None]] = {
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
            ),
        }
        for name, part in parts.items():
            self._tasks[name] = asyncio.create_task(self._guard(name, part), name=name)
        self.mcp.start()
        await self.talk.start()
        try:
            yield
        finally:
            tasks, self._tasks = list(self._tasks.values()), {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.talk.close()

    async def _guard(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception:
            log.exception("%s has stopped", name)
            self.bus.touch()

    def _dead_tasks(self) -> list[str]:
        return [name for name, task in self._tasks.items() if task.done()]

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
        text = self._redact(f"the command {command.name} ({one_line(command.line, 200)}): {command.state()}")
        log.info("%s", text)
        self._beside(self._ledger.beats.add_note(text, self.agent), f"note-{command.name}")

    def _cancel_children(self, run_id: str) -> None:
        """In the background: the receivers may be slow."""
        self._beside(cancel_delegated(self._reader, self.peers, run_id), f"cancel-{run_id}")

    def _beside(self, part: Coroutine[Any, Any, None], name: str) -> None:
        self._side_tasks.add(task := asyncio.create_task(part, name=name))
        task.add_done_callback(self._side_tasks.discard)

    # -- control -----------------------------------------------------------------------------------------------

    def _beat_config(self) -> BeatConfig:
        table, over = self.config.file.heartbeat, self.config.overrides
        every = parse_duration(table.every) if over.heartbeat_every_seconds is None else over.heartbeat_every_seconds
        return BeatConfig(
            enabled=over.heartbeat_enabled is not False and (every > 0),
            every=every,
            quiet=parse_quiet(table.quiet) if table.quiet else None,
            tz=table.tz,
            target=None if table.target == "none" else table.target,
            only_if_changed=table.only_if_changed,
            isolated=table.isolated,
            model=table.model,
        )

    def _schedule_config(self) -> ScheduleConfig:
        table = self.config.file.schedule
        return ScheduleConfig(tz=table.tz, missed=table.missed)

    def _set_heartbeat(self, change: HeartbeatChange) -> None:
        given = {"heartbeat_enabled": change.enabled, "heartbeat_every_seconds": change.every_seconds}
        changed = {field: value for field, value in given.items() if value is not None}
        try:
            after = change_overrides(self.home, self.agent, **changed)
        except ConfigError as error:
            raise ProtocolError(409, "overrides_damaged", f"{error}; the heartbeat was not changed") from None
        except OverridesBusy as error:
            raise ProtocolError(503, "overrides_busy", f"{error}; the heartbeat was not changed") from None
        except OSError as error:
            raise StorageFull(explain_os_error(error, "the heartbeat was not changed")) from None
        self.config = msgspec.structs.replace(self.config, overrides=after)
        self.heartbeat.configure(self._beat_config())

    def _begin_drain(self) -> None:
        self._beside(self.runner.drain(DRAIN_SECONDS), "drain")
        self.bus.touch()

    async def _reload(self) -> str:
        """Read everything again; a bad configuration changes nothing and is shown in `/status`."""
        try:
            cluster, config = _read_configuration(self.home, self.agent)
            callers = self._secrets.callers()
            self._learn_secrets(cluster, config)
        except (AtomizerError, OSError) as error:
            self._config_error = str(error)
            self.bus.touch()
            raise ProtocolError(409, "bad_config", f"nothing was changed: {error}") from None
        moved = (config.spec.port, config.spec.host) != (self.config.spec.port, self.config.spec.host)
        self.cluster, self.config, self._config_error = cluster, config, ""
        self.auth.reload(callers)
        self.peers.reload(cluster)
        self.models.reload(config, cluster)
        self.budget.configure(config.file.budget, cluster.file.budget)
        self.commands.configure(self._sandbox(), config.file.shell, config.workspace)
        self.mcp.configure(config.file.mcp, self._launcher())
        self._connect()
        self.tools = self._build_tools()
        self.runner.configure(
            places=config.file.limits.concurrent_runs, run_timeout=parse_duration(config.file.limits.run_timeout)
        )
        self.heartbeat.configure(self._beat_config())
        self.scheduler.configure(self._schedule_config())
        self._logs.set_level(config.file.limits.log_level)
        log.info("configuration read again")
        self.bus.touch()
        return "reloaded" + ("; the new port is used after a restart" if moved else "")

    @property
    def permissions(self) -> Permissions:
        table = self.config.file.tools
        allowed_by_server = [tool.spec.name for tool in mcp_tools(self.mcp.all(), self._redact)]
        return Permissions([*ALWAYS, *allowed_by_server, *table.allow], table.ask, table.deny)

    def _sandbox(self) -> Sandbox:
        return Sandbox(self.home, self.agent, self.config.workspace, self.config.file.shell)

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
        token = self._secrets.get(self.agent, "discord")
        self._has_bot = token is not None
        self._discord.configure(token, discord_settings(self.home, self.agent, self.cluster, self.config))

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
        )

    def _launcher(self) -> Launcher:
        return Launcher(self.home, self.agent, self.config.workspace, self.config.file.shell, self._secrets.get)

    def _mcp_changed(self, tools: bool) -> None:
        """A server came or went; if it offers other tools, runs that begin from now on see them."""
        if tools:
            self.tools = self._build_tools()
        self.bus.touch()

    def _build_tools(self) -> dict[str, Tool]:
        return build_tools(
            self.agent,
            self.config,
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
            web=self.cluster.file.web,
            search_key=lambda: self._secrets.api_key("brave", self.agent),
            mcp=self.mcp,
            permissions=self.permissions,
        )


def _read_configuration(home: Home, agent: str) -> tuple[Cluster, Instance]:
    """What people wrote, checked; raises ConfigError or HomeError."""
    cluster = load_cluster(home)
    config = load_instance(cluster, agent)
    table = config.file.tools
    try:
        Permissions(table.allow, table.ask, table.deny)
    except ValueError as error:
        raise ConfigError(f"{home.instance_toml(agent)}: [tools] {error}") from None
    return cluster, config
