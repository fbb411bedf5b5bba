"""Everything about one agent, on a screen of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.rows import Changes
from console.screens.targets import AgentKeys
from console.show import Segments
from console.widgets.facts import agent_lines
from console.widgets.lines import Page


class AgentScreen(AgentKeys):
    """The detail page. The fleet's keys act on this agent."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.LISTS, Scope.FLEET)
    without = frozenset({"detail", "mark", "mark_range", "mark_all", "jump", "sort", "next_pane"})

    def __init__(self, read_only: bool, name: str) -> None:
        super().__init__(read_only)
        self._name_of_agent = name

    def panes(self) -> Iterator[Widget]:
        yield Page(id="page", make=self._lines)

    @property
    def current(self) -> str | None:
        return self._name_of_agent if self._name_of_agent in self.app.store.agents else None

    @property
    def targets(self) -> list[str]:
        return [self.current] if self.current else []

    def show_changes(self, changes: Changes | None) -> None:
        if changes is None or self.current in changes.agents or changes.deltas or changes.rows:
            self.query_one(Page).update()

    def tick(self) -> None:
        super().tick()
        self.query_one(Page).update()

    def _lines(self, width: int) -> list[Segments]:
        store = self.app.store
        if self.current is None:
            return [((f" {self._name_of_agent} was removed from the cluster", "warn"),)]
        runs = store.runs_of(self.current)
        agent, read_only = store.agents[self.current], self.app.read_only
        return agent_lines(agent, runs, store.deltas, store.clock(), width, full=True, read_only=read_only)

    def do_agent_logs(self) -> None:
        from console.screens.logs import LogsScreen

        self.app.push_screen(LogsScreen(self.app.read_only, self._name_of_agent))
