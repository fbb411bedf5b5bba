"""The first screen: all agents, the one under the cursor in detail, and the merged log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.containers import Horizontal
from textual.widget import Widget

from console.actions import Scope
from console.dialogs.line import LineDialog
from console.filters import Filter
from console.rows import Changes
from console.screens.log_keys import LogKeys
from console.screens.targets import AgentKeys
from console.show import Segments
from console.widgets.agent_table import SORTS, AgentTable
from console.widgets.bars import Bar, gate_segments
from console.widgets.facts import agent_lines
from console.widgets.lines import LineList, LinePane, Page
from console.widgets.log_view import LogView


class FleetScreen(AgentKeys, LogKeys):
    """Table, detail pane and log."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.LOGS, Scope.LISTS, Scope.FLEET)
    without_footer = frozenset({"back"})
    hint = "`d` gives the agent under the cursor work; `?` shows every key"
    hint_read_only = "`?` shows every key"

    def panes(self) -> Iterator[Widget]:
        with Horizontal(id="upper"):
            yield AgentTable(id="agents")
            yield Page(id="detail", make=self._detail)
        yield Bar(id="gate")
        yield LogView(self.app.store.log, id="log")

    @property
    def table(self) -> AgentTable:
        return self.query_one("#agents", AgentTable)

    @property
    def detail(self) -> Page:
        return self.query_one("#detail", Page)

    def on_mount(self) -> None:
        self.footer_actions = [a for a in self.footer_actions if a.scope is not Scope.LOGS]
        self.table.focus()

    @property
    def targets(self) -> list[str]:
        """The marked agents in the table's order, else the one under the cursor."""
        table = self.table
        marked = [name for name in self.app.store.agents if name in table.marks]
        return marked or ([table.current] if table.current else [])

    @property
    def current(self) -> str | None:
        return self.table.current

    # changes

    def show_changes(self, changes: Changes | None) -> None:
        store = self.app.store
        if changes is None or changes.agents or changes.rows:
            self.table.show(store.agents.values(), store.clock())
        if changes is None or changes.logs:
            self.log_view.catch_up()
        if changes is None or self.current in changes.agents or changes.deltas:
            self._show_detail()

    def tick(self) -> None:
        super().tick()
        self.table.show(self.app.store.agents.values(), self.app.store.clock())
        self._show_detail()

    def show_bars(self) -> None:
        super().show_bars()
        store = self.app.store
        pending = store.pending_approvals()
        self.set_class(bool(pending), "-asked")
        self.query_one("#gate", Bar).set(gate_segments(pending, store.clock(), self.app.dots, self.size.width))

    def _show_detail(self) -> None:
        if self.detail.is_on_screen:
            self.detail.update()

    def _detail(self, width: int) -> list[Segments]:
        store, name = self.app.store, self.table.current
        if name is None or name not in store.agents:
            return []
        runs = store.runs_of(name)
        agent, read_only = store.agents[name], self.app.read_only
        return agent_lines(agent, runs, store.deltas, store.clock(), width, full=False, read_only=read_only)

    def on_line_list_moved(self, event: LineList.Moved) -> None:
        self.detail.scroll_to(y=0, animate=False, immediate=True, force=True)
        self._show_detail()

    def on_line_list_chosen(self) -> None:
        self.app.perform("detail")

    # handlers

    def do_detail(self) -> None:
        from console.screens.agent import AgentScreen

        if self.focused is self.log_view:
            return
        if self.current:
            self.app.push_screen(AgentScreen(self.app.read_only, self.current))

    def do_agent_logs(self) -> None:
        from console.screens.logs import LogsScreen

        if self.current:
            self.app.push_screen(LogsScreen(self.app.read_only, self.current))

    def do_mark(self) -> None:
        table = self.table
        if table.current:
            table.toggle(table.current)
            table.move(1)
            self._show_table()

    def do_mark_range(self) -> None:
        table = self.table
        if table.range_from is None or table.range_from not in table.keys:
            table.range_from = table.current
        elif table.current:
            table.marks |= table.between(table.range_from, table.current)
            table.range_from = None
        self._show_table()

    def do_mark_all(self) -> None:
        table = self.table
        shown = set(table.keys)
        table.marks = table.marks - shown if shown <= table.marks else table.marks | shown
        self._show_table()

    def do_sort(self) -> None:
        self.table.sort = SORTS[(SORTS.index(self.table.sort) + 1) % len(SORTS)]
        self._show_table()

    def do_jump(self) -> None:
        before = self.current

        def changed(text: str) -> None:
            hits = [name for name in self.table.keys if name.startswith(text.lower())]
            if hits and text:
                self.table.go_to(hits[0])

        def ended(text: str | None) -> None:
            if text is None and before:
                self.table.go_to(before)

        placeholder = "the beginning of a name; enter stays there, esc goes back"
        self.app.push_screen(LineDialog("jump to '", placeholder=placeholder, changed=changed), ended)

    def do_next_pane(self) -> None:
        panes = [p for p in (self.table, self.detail, self.log_view) if p.is_on_screen]
        place = panes.index(self.focused) if self.focused in panes else -1
        if panes:
            panes[(place + 1) % len(panes)].focus()

    def do_zoom(self) -> None:
        pane = self.pane()
        zoomed = next((c for c in self.classes if c.startswith("zoom-")), None)
        if zoomed:
            self.remove_class(zoomed)
        else:
            self.add_class(f"zoom-{pane.id}")
        self.call_after_refresh(self.renew, None)

    def do_filter(self) -> None:
        if self.focused is self.log_view:
            self.filter_log()
            return
        table = self.table
        before = table.filter

        def changed(text: str) -> None:
            table.filter = Filter(text)
            self._show_table()

        def ended(text: str | None) -> None:
            changed(before.source if text is None else text)

        placeholder = "regex, !inverse, @busy; enter keeps, esc leaves"
        self.app.push_screen(LineDialog("filter /", before.source, placeholder, changed), ended)

    def clear_first(self) -> bool:
        table = self.table
        if self.focused is self.log_view and self.clear_log_filter():
            return True
        if table.filter:
            table.filter = Filter()
        elif table.range_from:
            table.range_from = None
        elif table.marks:
            table.marks = set()
        elif self.clear_log_filter():
            return True
        elif any(c.startswith("zoom-") for c in self.classes):
            self.do_zoom()
            return True
        elif self.focused is not table:
            table.focus()
            return True
        else:
            return False
        self._show_table()
        return True

    def sources(self) -> list[tuple[str, frozenset[str] | None]]:
        choices = super().sources()
        if self.current:
            choices.append((self.current, frozenset({self.current})))
        if self.table.marks:
            choices.append((f"{len(self.table.marks)} marked", frozenset(self.table.marks)))
        return choices

    def copy_text(self) -> str:
        pane: LinePane = self.pane()
        if pane is self.log_view:
            return self.log_text()
        if pane is self.detail or not self.current:
            return "\n".join(pane.text_lines())
        agent = self.app.store.agents[self.current]
        return f"http://{agent.host}:{agent.port}"

    def _show_table(self) -> None:
        self.table.show(self.app.store.agents.values(), self.app.store.clock())
        self._show_detail()
