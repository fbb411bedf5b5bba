"""The log with the whole screen: one agent's, or all agents' merged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.rows import Changes
from console.screens.log_keys import LogKeys
from console.widgets.log_view import LogView


class LogsScreen(LogKeys):
    """One log pane. `agent` None: all agents."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.LOGS, Scope.LISTS)

    def __init__(self, read_only: bool, agent: str | None = None) -> None:
        super().__init__(read_only)
        self._agent = agent

    def panes(self) -> Iterator[Widget]:
        view = LogView(self.app.store.log, id="log")
        if self._agent:
            view.sources, view.source_name = frozenset({self._agent}), self._agent
        else:
            view.source_name = f"all ({len(self.app.store.agents)})"
        yield view

    def on_mount(self) -> None:
        self.log_view.focus()

    def show_changes(self, changes: Changes | None) -> None:
        if changes is None or changes.logs:
            self.log_view.catch_up()

    def sources(self) -> list[tuple[str, frozenset[str] | None]]:
        choices = super().sources()
        this = self._agent or self.app.fleet.current
        if this:
            choices.append((this, frozenset({this})))
        marks = self.app.fleet.table.marks
        if marks:
            choices.append((f"{len(marks)} marked", frozenset(marks)))
        return choices

    def do_filter(self) -> None:
        self.filter_log()

    def clear_first(self) -> bool:
        return self.clear_log_filter()

    def copy_text(self) -> str:
        return self.log_text()
