"""All runs of all agents, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.dialogs.confirm import ConfirmDialog
from console.dialogs.line import LineDialog
from console.filters import Filter
from console.rows import Changes, WriteState
from console.screens.base import ConsoleScreen
from console.show import Segments
from console.widgets.facts import run_row
from console.widgets.lines import LineList
from protocols.runs import RunSummary


class RunList(LineList):
    """Rows of runs."""

    heads = 1
    empty = "no runs; `d` on an agent gives it one"
    empty_read_only = "no runs"
    """In its place where no key writes."""
    title: Segments = ()

    def head(self, place: int) -> Segments:
        return self.title


class RunKeys(ConsoleScreen):
    """Handlers for the run that is chosen."""

    @property
    def chosen(self) -> RunSummary | None:
        """The run that an action is for."""
        raise NotImplementedError

    @property
    def has_run(self) -> bool:
        return self.chosen is not None

    @property
    def has_cancellable_run(self) -> bool:
        return self.chosen is not None and not self.chosen.state.ended

    def do_cancel_run(self) -> None:
        run, app = self.chosen, self.app
        if run is None:
            return
        question = f"Cancel this run of {run.agent}, and what it delegated?"

        async def sure(_: bool) -> None:
            write = await app.operations.cancel(run.agent, run.run_id)
            if write.state is not WriteState.DONE:
                app.tell(f"cancel: {write.state.value}: {write.detail}", "error")

        app.ask(ConfirmDialog("Cancel run", question, [run.task], cancel_first=False), sure)


class RunsScreen(RunKeys):
    """The list."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.RUNS, Scope.LISTS)

    def __init__(self, read_only: bool) -> None:
        super().__init__(read_only)
        self._filter = Filter()

    def panes(self) -> Iterator[Widget]:
        runs = RunList(id="runs")
        runs.empty = runs.empty_read_only if self.app.read_only else runs.empty
        yield runs

    def on_mount(self) -> None:
        self.query_one(RunList).focus()

    @property
    def chosen(self) -> RunSummary | None:
        return self.app.store.runs.get(self.query_one(RunList).current or "")

    def show_changes(self, changes: Changes | None) -> None:
        if changes is None or changes.runs or changes.rows:
            self._show()

    def tick(self) -> None:
        super().tick()
        self._show()

    def _show(self) -> None:
        pane, store = self.query_one(RunList), self.app.store
        everything = store.runs_of()
        shown = [r for r in everything if self._filter.matches(f"{r.agent} {r.task} {r.run_id}", r.state.value)]
        now, width = store.clock(), pane.room - 2
        count = f"{len(shown)} of {len(everything)}  filter: {self._filter.source}" if self._filter else len(everything)
        title: Segments = ((f" RUNS {count}", "head"), ("  newest first; enter reads the answer", "dim"))
        if title != pane.title:
            pane.title = title
            pane.repaint((), heads=True)
        pane.set_rows([(r.run_id, run_row(r, now, width, dots=self.app.dots)) for r in shown])

    def on_line_list_chosen(self) -> None:
        self.app.perform("read_run")

    def do_read_run(self) -> None:
        from console.screens.run import RunScreen

        if self.chosen:
            self.app.push_screen(RunScreen(self.app.read_only, self.chosen))

    def do_filter(self) -> None:
        before = self._filter

        def changed(text: str) -> None:
            self._filter = Filter(text)
            self._show()

        def ended(text: str | None) -> None:
            changed(before.source if text is None else text)

        self.app.push_screen(
            LineDialog("filter /", before.source, "regex, !inverse, @failed; enter keeps, esc leaves", changed), ended
        )

    def clear_first(self) -> bool:
        if not self._filter:
            return False
        self._filter = Filter()
        self._show()
        return True

    def copy_text(self) -> str:
        run = self.chosen
        return run.run_id if run else ""
