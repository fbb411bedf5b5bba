"""The app: builds the parts, starts the readers after the first paint, and performs actions of the registry."""

from __future__ import annotations

import asyncio
import inspect
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.screen import Screen

from console import snapshot
from console.actions import BY_ID, Scope, allowed
from console.feed import Feed
from console.operations import Operations
from console.rows import Changes, WriteState
from console.screens.base import ConsoleScreen
from console.screens.fleet import FleetScreen
from console.store import Clock, Store
from console.supervision import (
    MISSED_POLL_SECONDS,
    POLL_SECONDS,
    REVIVE,
    REVIVE_READ_ONLY,
    Connect,
    Supervision,
    connect_supervisor,
)
from console.widgets.palette import SLOW_THEME, THEME, Palette
from protocols.errors import AtomizerError
from protocols.runs import RunSummary, one_line
from protocols.text import printable
from runtime.config import Cluster, ConfigError, load_cluster

FLUSH_SECONDS = 0.25
SLOW_FLUSH_SECONDS = 0.5
SNAPSHOT_SECONDS = 60.0
CALM_TICKS = 5
Severity = Literal["information", "warning", "error"]


class Options(msgspec.Struct, frozen=True):
    """How the console was started."""

    read_only: bool = False
    slow: bool = False
    """Few frames and the terminal's own colours: for a thin line."""
    ascii: bool = False


class ConsoleApp(App[None]):
    """The operator's console for one cluster."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "atomizer"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (108, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (15, "-short"), (30, "-tall")]

    def __init__(
        self,
        cluster: Cluster,
        token: str,
        options: Options | None = None,
        clock: Clock = time.time,
        connect: Connect = connect_supervisor,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        slow = bool(options and options.slow)
        super().__init__(ansi_color=True if slow else None)
        self.register_theme(THEME)
        self.set_reactive(App.theme, SLOW_THEME if slow else THEME.name)
        self.stylesheet.set_variables(self.get_css_variables())
        self.cluster = cluster
        self.options = options or Options()
        self.read_only = self.options.read_only
        self.dots = "..." if self.options.ascii else "…"
        self.host = socket.gethostname().partition(".")[0]
        self.store = Store(clock)
        self.feed = Feed(self.store, token, jitter)
        self.supervision = Supervision(cluster.home, self.store, connect)
        self.operations = Operations(self.store, self.feed, self.supervision, self.read_only)
        self.fleet = FleetScreen(self.read_only)
        self._draft: Any = None
        self._config_seen: object = None
        self._readers: set[str] = set()
        self._closing = False
        self._ticks = 0
        self._place_agents(cluster)
        for status in snapshot.load(cluster.home):
            self.store.remember(status)
        for action in allowed(Scope.ANYWHERE, read_only=self.read_only):
            for key in action.keys:
                binding = Binding(key, f"perform({action.id!r})", action.label, show=False)
                self._bindings.key_to_bindings[key] = [binding]

    # life

    def on_mount(self) -> None:
        self.palette = Palette(self)
        if self.options.ascii:
            self.add_class("-ascii")
        if self.options.slow:
            self.add_class("-slow")
        self.animation_level = "none"
        self.store.on_change = self._changed
        self.push_screen(self.fleet)
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        self._start_readers()
        self.set_interval(1.0, self._tick)
        self.set_interval(SNAPSHOT_SECONDS, self._save)
        self.run_worker(self._watch_cluster(), group="watch")

    def on_unmount(self) -> None:
        self._closing = True
        self._save()

    def _save(self) -> None:
        snapshot.save(self.cluster.home, [a.status for a in self.store.agents.values() if a.status])

    def _place_agents(self, cluster: Cluster) -> None:
        for spec in cluster.agents.values():
            self.store.place(spec.name, spec.port, spec.host, spec.enabled)
        for name in set(self.store.agents) - set(cluster.agents):
            self.store.remove(name)

    def _start_readers(self) -> None:
        for name in self.store.agents:
            if name not in self._readers:
                self._readers.add(name)
                self.run_worker(self._read(name), group=f"feed-{name}", exclusive=True)

    async def _read(self, name: str) -> None:
        try:
            await self.feed.read(name)
        finally:
            self._readers.discard(name)

    async def _watch_cluster(self) -> None:
        """Every few seconds: does the supervisor live, and did somebody change which agents there are?"""
        while True:
            await self.supervision.poll()
            self._reread_config()
            missed = [a for a in self.store.agents.values() if a.enabled and not a.live]
            for agent in missed:
                if agent.supervised == "up":
                    self.feed.nudge(agent.name)
            await asyncio.sleep(MISSED_POLL_SECONDS if missed else POLL_SECONDS)

    def _reread_config(self) -> None:
        home = self.cluster.home
        paths = [home.cluster_toml, *(home.overrides_toml(name) for name in self.cluster.agents)]
        seen = [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
        if self._config_seen is not None and seen != self._config_seen:
            try:
                self.cluster = load_cluster(home)
                self._place_agents(self.cluster)
                self._start_readers()
            except ConfigError as error:
                self.tell(f"the configuration was changed and is not taken over: {error}", "error")
        self._config_seen = seen

    # changes

    def _changed(self) -> None:
        self.set_timer(SLOW_FLUSH_SECONDS if self.options.slow else FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Show what changed in the store since the last time."""
        if self._closing:
            return
        changes = self.store.take()
        self._announce(changes)
        self.front.renew(changes)

    def _tick(self) -> None:
        """Let ages grow: each second while somebody is missed, else rarely, for ages are coarse."""
        self._ticks += 1
        missed = any(a.enabled and not a.live for a in self.store.agents.values())
        if not self._closing and (missed or self._ticks % CALM_TICKS == 0):
            self.front.tick()

    def _announce(self, changes: Changes) -> None:
        """Somebody asks, or a run that was delegated here has ended: say so, and where to answer or read it."""
        asked = [a for a in changes.asked if a.state == "pending"]
        if asked and Scope.APPROVALS not in self.front.scopes:
            more = f" (and {len(asked) - 1} more)" if len(asked) > 1 else ""
            self.bell()
            self.tell(f"{asked[0].agent} asks{more}: {one_line(asked[0].question, 120)}\n`g` answers", "warning")
        for write in list(self.store.writes.values()):
            if write.run_id in changes.runs and write.state is WriteState.DONE:
                run = self.store.runs[write.run_id]
                self.run_worker(self._fetch_answer(run), group="answers")
                if self.front.shows_run(run.run_id):
                    continue
                text = one_line(run.reason or run.preview, 50)
                self.tell(f"{run.agent} {run.state.value}: {text}\n`t` enter reads it", seconds=4.0)

    async def _fetch_answer(self, run: RunSummary) -> None:
        """Read all of an answer that was asked for here: the event holds its beginning only."""
        try:
            whole = await self.operations.read_run(run.agent, run.run_id)
        except AtomizerError:
            return
        self.store.answered(run.run_id, whole.text)

    @property
    def front(self) -> ConsoleScreen:
        """The screen in front, below any dialog."""
        return next((s for s in reversed(self.screen_stack) if isinstance(s, ConsoleScreen)), self.fleet)

    # actions

    async def on_event(self, event: events.Event) -> None:
        """Keys typed while a dialog opens are put aside for it: typed fast, they must not become commands.

        What is pasted is text from elsewhere, and is made safe to show like all of it.
        """
        if isinstance(event, events.Paste):
            event.text = printable(event.text)
        early = getattr(self.screen, "early", None) if isinstance(event, events.Key) and self.screen_stack else None
        if isinstance(event, events.Key) and early is not None:
            early.append(event)
            return
        await super().on_event(event)

    def action_perform(self, action_id: str) -> None:
        self.perform(action_id)

    def perform(self, action_id: str) -> None:
        """Do one action of the registry, or say why not."""
        action, screen = BY_ID[action_id], self.front
        if action.writes and self.read_only:
            self.tell("this console only reads", "warning")
            return
        why = action.why_disabled(screen)
        if why:
            self.tell(why, "warning")
            return
        handler = getattr(screen, f"do_{action_id}", None) or getattr(self, f"do_{action_id}")
        self._carry_on(handler())

    def ask(self, dialog: Screen[Any], then: Callable[[Any], Any]) -> None:
        """Show `dialog` at once, so that keys typed on go to it and never act on agents.

        `then(answer)` is called, and awaited if need be, unless the answer is None or False.
        """

        def answered(answer: Any) -> None:
            if answer is not None and answer is not False:
                self._carry_on(then(answer))

        self.push_screen(dialog, answered)

    def _carry_on(self, outcome: Any) -> None:
        if inspect.iscoroutine(outcome):
            self.run_worker(outcome, group="actions")

    def tell(self, text: str, severity: Severity = "information", seconds: float | None = None) -> None:
        """A toast; the one before it goes."""
        self.clear_notifications()
        usual = 5.0 if severity == "information" else 10.0
        self.notify(printable(text), severity=severity, timeout=seconds or usual, markup=False)

    def trouble(self) -> str:
        """What the operator should know before anything else, or an empty text."""
        if self.store.supervisor is not False:
            return ""
        return REVIVE_READ_ONLY if self.read_only else REVIVE

    def do_quit(self) -> None:
        self.exit()

    def do_back(self) -> None:
        screen = self.front
        if screen.clear_first():
            return
        if screen is not self.fleet:
            self.pop_screen()

    def do_help(self) -> None:
        from console.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.read_only))

    def do_runs(self) -> None:
        from console.screens.runs import RunsScreen

        self._open(RunsScreen)

    def do_approvals(self) -> None:
        from console.screens.approvals import ApprovalsScreen

        front = self.front
        self.clear_notifications()
        if not isinstance(front, ApprovalsScreen):
            self.push_screen(ApprovalsScreen(self.read_only, front.run_shown))

    def do_logs(self) -> None:
        from console.screens.logs import LogsScreen

        self._open(LogsScreen)

    def _open(self, kind: type[ConsoleScreen]) -> None:
        if type(self.front) is not kind:
            self.push_screen(kind(self.read_only))

    def do_palette(self) -> None:
        from console.actions import key_name
        from console.dialogs.pick import Choice, PickDialog, fitting

        screen = self.front
        usable = [*screen.actions, *allowed(Scope.ANYWHERE, read_only=self.read_only)]
        choices = [
            Choice(a.id, a.label, f"{key_name(a.keys[0])}  {a.help}", a.why_disabled(screen))
            for a in usable
            if a.scope is not Scope.LISTS and a.id != "palette"
        ]
        dialog = PickDialog("Command", lambda typed: fitting(typed, choices), "type what you want to do")
        self.ask(dialog, self.perform)

    async def do_undo(self) -> None:
        write = await self.operations.undo()
        if write is None:
            return
        done = write.state is WriteState.DONE
        self.tell(f"undo: {write.agent}: {write.detail}", "information" if done else "error")

    def do_copy(self) -> None:
        from console.clipboard import LIMIT, osc52

        text = self.front.copy_text()
        if not text:
            self.tell("nothing to copy here")
            return
        sequence, cut = osc52(text)
        if self._driver is not None:
            self._driver.write(sequence)
        lines = text.count("\n") + 1
        what = text if lines == 1 and len(text) < 60 else f"{lines} lines"
        self.tell(f"copied {what}" + (f", cut to {LIMIT:,} bytes" if cut else ""))

    # delegating

    @property
    def draft(self) -> Any:
        """The work being written: a `console.dialogs.delegate.Draft`."""
        if self._draft is None:
            from console.dialogs.delegate import Draft

            self._draft = Draft()
        return self._draft

    async def send_draft(self) -> None:
        """Send the draft to its agents at once. Where an answer came it is done with; else it stays, to try again."""
        draft = self.draft
        writes = await asyncio.gather(
            *(self.operations.delegate(a, draft.text, draft.for_agent(a), draft.deliver) for a in draft.agents)
        )
        failed = [w for w in writes if w.state in (WriteState.REFUSED, WriteState.UNKNOWN)]
        if failed:
            first = failed[0]
            self.tell(
                f"{first.agent}: {first.state.value}: {first.detail}\n"
                "the text is kept: `d` sends it again, and what arrived already is not done twice",
                "error",
            )
        else:
            self._draft = None
