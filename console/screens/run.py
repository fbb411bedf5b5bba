"""One run: every step as it happens, then the answer in full with steps, usage, cost, delivery and children."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.rows import Changes
from console.screens.runs import RunKeys
from console.show import Segments
from console.widgets.facts import run_row
from console.widgets.lines import Page
from console.widgets.run_page import RunPage
from protocols.errors import AtomizerError
from protocols.runs import Run, RunSummary

READ_SECONDS, SLOW_READ_SECONDS = 3.0, 10.0
"""How often a run that goes on is read again though no event told of a change: one may have been dropped."""


class RunScreen(RunKeys):
    """Follows the run while it goes on and the page is at its end."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.RUNS, Scope.RUN, Scope.LISTS)
    without = frozenset({"read_run"})

    def __init__(self, read_only: bool, run: RunSummary) -> None:
        super().__init__(read_only)
        self._summary = run
        self._run: Run | None = None
        self._problem = ""
        self._whole = False
        self._reading = self._again = False

    def panes(self) -> Iterator[Widget]:
        yield Page(id="page", make=self._lines)

    def on_mount(self) -> None:
        self.app.clear_notifications()
        self.page.focus()
        self._read()
        self.set_interval(SLOW_READ_SECONDS if self.app.options.slow else READ_SECONDS, self._read_if_living)

    @property
    def page(self) -> Page:
        return self.query_one(Page)

    @property
    def chosen(self) -> RunSummary | None:
        return self.app.store.runs.get(self._summary.run_id, self._summary)

    @property
    def run_shown(self) -> str | None:
        return self._summary.run_id

    # changes

    def show_changes(self, changes: Changes | None) -> None:
        mine = {self._summary.run_id, *(child.run_id for child in (self._run.children if self._run else ()))}
        if changes is not None and (mine & changes.runs or self._summary.run_id in changes.steps):
            self._read()
        if changes is None or mine & (changes.deltas | changes.runs):
            self.page.update()

    def tick(self) -> None:
        super().tick()
        if self._living:
            self.page.update()

    @property
    def _living(self) -> bool:
        return self._run is None or not self._run.state.ended

    def _read_if_living(self) -> None:
        if self._living and self.app.front is self:
            self._read()

    def _read(self) -> None:
        """Read the run again; while that is under way, once more afterwards."""
        if self._reading:
            self._again = True
            return
        self._reading = self._again = True
        self.run_worker(self._fetch(), group="read-run")

    async def _fetch(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._fetch_once()
        finally:
            self._reading = False

    async def _fetch_once(self) -> None:
        living = self._living
        try:
            self._run = await self.app.operations.read_run(self._summary.agent, self._summary.run_id, self._whole)
            self._problem = ""
        except AtomizerError as error:
            self._problem = f"the run cannot be read in full: {error}"
        if not self.is_mounted:
            return
        page = self.page
        page.follow = self._run is not None and self._living
        page.update()
        if living and not self._living:  # its answer is at the beginning now
            page.move_to_end(False)

    def _lines(self, width: int) -> list[Segments]:
        store, run = self.app.store, self._run
        if run is None:
            summary = self.chosen or self._summary
            text = self._problem or "reading the run..."
            return [run_row(summary, store.clock(), width), (), ((" " + text, "warn" if self._problem else "dim"),)]
        lines = RunPage(store.clock(), width, self._whole, store.runs, store.deltas).lines(run)
        return [((" " + self._problem, "warn"),), *lines] if self._problem else lines

    # handlers

    def do_whole(self) -> None:
        self._whole = not self._whole
        self.page.update()
        self._read()

    def copy_text(self) -> str:
        run = self._run
        return (run.text or self._summary.preview) if run else self._summary.preview
