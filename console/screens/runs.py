"""All runs of all agents, newest first; and one run in full."""

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
from console.widgets.facts import run_lines, run_row
from console.widgets.lines import LineList, Page
from protocols.errors import AtomizerError
from protocols.runs import Run, RunSummary


class RunList(LineList):
    """Rows of runs."""

    heads = 1
    empty = "no runs; `d` on an agent gives it one"
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
        yield RunList(id="runs")

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


class RunScreen(RunKeys):
    """One run: its answer as it comes, then in full with steps, usage, cost, delivery and children."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.RUNS, Scope.LISTS)
    without = frozenset({"read_run"})

    def __init__(self, read_only: bool, run: RunSummary) -> None:
        super().__init__(read_only)
        self._summary = run
        self._run: Run | None = None
        self._problem = ""

    def panes(self) -> Iterator[Widget]:
        yield Page(id="page", make=self._lines)

    def on_mount(self) -> None:
        self.query_one(Page).focus()
        self._read()

    @property
    def chosen(self) -> RunSummary | None:
        return self.app.store.runs.get(self._summary.run_id, self._summary)

    def show_changes(self, changes: Changes | None) -> None:
        run_id = self._summary.run_id
        if changes is not None and run_id in changes.runs:
            self._read()
        if changes is None or run_id in changes.deltas or run_id in changes.runs:
            self.query_one(Page).update()

    def _read(self) -> None:
        self.run_worker(self._fetch(), group="read-run", exclusive=True)

    async def _fetch(self) -> None:
        try:
            self._run = await self.app.operations.read_run(self._summary.agent, self._summary.run_id)
            self._problem = ""
        except AtomizerError as error:
            self._problem = f"the run cannot be read in full: {error}"
        self.query_one(Page).update()

    def _lines(self, width: int) -> list[Segments]:
        store = self.app.store
        streaming = store.deltas.get(self._summary.run_id, "")
        run = self._run
        if run is None:
            summary = self.chosen or self._summary
            text = self._problem or "reading the run..."
            return [run_row(summary, store.clock(), width), (), ((" " + text, "warn" if self._problem else "dim"),)]
        lines = run_lines(run, streaming, store.clock(), width)
        return [((" " + self._problem, "warn"),), *lines] if self._problem else lines

    def copy_text(self) -> str:
        run = self._run
        return (run.text or self._summary.preview) if run else self._summary.preview
