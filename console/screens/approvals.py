"""What waits for a human: gates and dangerous tool calls, oldest first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.dialogs.line import LineDialog
from console.rows import Changes, WriteState
from console.screens.base import ConsoleScreen
from console.show import RUN_GLYPHS, Segments, moment, span
from console.widgets.facts import field
from console.widgets.lines import LineList, Page, cut, wrap
from protocols.approvals import Approval
from protocols.errors import AtomizerError
from protocols.runs import RunSummary

LOOK_SECONDS = 0.6
"""After the question under the cursor changed by itself, `a` does nothing for so long: it was meant for the other."""


class ApprovalList(LineList):
    """Rows of questions."""

    heads = 2
    empty = "nothing waits for an answer: no agent asks, and no gate is open"

    def head(self, place: int) -> Segments:
        if place:
            return (("  agent          waits  ends   question", "dim"),)
        return ((" GATES AND APPROVALS", "head"), ("  oldest first; no answer in time means no", "dim"))


class ApprovalsScreen(ConsoleScreen):
    """The queue, and the question under the cursor in full. With `run_id` the cursor begins on that run's question."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.APPROVALS, Scope.LISTS)

    def __init__(self, read_only: bool, run_id: str | None = None) -> None:
        super().__init__(read_only)
        self._run_id = run_id
        self._changed_at = float("-inf")
        self._asked_for: set[str] = set()
        """Runs that were read because nothing was known of them."""

    def panes(self) -> Iterator[Widget]:
        yield ApprovalList(id="approvals")
        yield Page(id="approval", make=self._lines)

    def on_mount(self) -> None:
        self.queue.focus()
        self._show()
        wanted = next((a for a in self.app.store.pending_approvals() if a.run_id == self._run_id), None)
        if wanted and self._run_id:
            self.queue.go_to(_key(wanted))

    @property
    def queue(self) -> ApprovalList:
        return self.query_one(ApprovalList)

    @property
    def chosen(self) -> Approval | None:
        key = self.queue.current
        return next((a for a in self.app.store.pending_approvals() if _key(a) == key), None)

    @property
    def has_approval(self) -> bool:
        return self.chosen is not None

    # changes

    def show_changes(self, changes: Changes | None) -> None:
        if changes is None or changes.approvals or changes.agents:
            self._show()
        elif self.chosen and self.chosen.run_id in changes.runs:
            self.query_one(Page).update()

    def tick(self) -> None:
        super().tick()
        self._show()

    def _show(self) -> None:
        now, pane, store = self.app.store.clock(), self.queue, self.app.store
        width = max(10, pane.room - 32)
        before = pane.current
        pane.set_rows([(_key(a), self._row(a, now, width)) for a in store.pending_approvals()])
        if before is not None and pane.current != before:
            self._changed_at = time.monotonic()
        asked = self.chosen
        if asked and asked.run_id and asked.run_id not in store.runs and asked.run_id not in self._asked_for:
            self._asked_for.add(asked.run_id)
            self.run_worker(self._read_run(asked), group="asking-run")
        self.query_one(Page).update()

    def _row(self, asked: Approval, now: float, width: int) -> Segments:
        left = span(asked.expires_at - now, coarse=True) if asked.expires_at else "never"
        return (
            (" " + cut(asked.agent, 14, self.app.dots) + " ", "bold"),
            (cut(span(now - asked.created_at, coarse=True), 7), "warn"),
            (cut(left, 7), "dim"),
            (cut(asked.question, width, self.app.dots), ""),
        )

    def on_line_list_moved(self) -> None:
        page = self.query_one(Page)
        page.scroll_to(y=0, animate=False, immediate=True, force=True)
        page.update()

    async def _read_run(self, asked: Approval) -> RunSummary | None:
        """Learn about a run that is older than what was read at first."""
        try:
            run = await self.app.operations.read_run(asked.agent, asked.run_id or "")
        except AtomizerError:
            return None
        self.app.store.add_run(RunSummary(**{name: getattr(run, name) for name in RunSummary.__struct_fields__}))
        return self.app.store.runs.get(run.run_id)

    def _lines(self, width: int) -> list[Segments]:
        asked, store = self.chosen, self.app.store
        if asked is None:
            return []
        now = store.clock()
        agent = store.agents.get(asked.agent)
        title = f" ({agent.status.title})" if agent and agent.status else ""
        lines: list[Segments] = wrap(asked.question, width - 2, "bold", " ")
        # Behind a bar: an agent's own lines must not pass for the facts below them.
        lines += [(), *wrap(asked.detail, width - 2, "", " | ")] if asked.detail else []
        lines.append(())
        lines += field("asked by", asked.agent + title, width)
        if agent and not agent.live:
            lines += field(
                "", f"{agent.word}: an answer cannot reach it now; its question waits on its disk", width, "bad"
            )
        run = store.runs.get(asked.run_id or "")
        if run:
            lines += field("task", f"{RUN_GLYPHS[run.state]} {run.state.value}: {run.task}", width)
            part = f", part of {run.parent_run_id}" if run.parent_run_id else ""
            lines += field("given by", f"{run.caller} ({run.source.value}, {run.name}){part}", width)
        if asked.run_id:
            lines += field("run", asked.run_id, width, "dim")
        if asked.tool:
            lines += field("tool", asked.tool, width)
        lines += field("waits", f"{span(now - asked.created_at)}, since {moment(asked.created_at, now)}", width)
        if asked.expires_at:
            left = span(asked.expires_at - now, coarse=True)
            lines += field("ends", f"in {left}, {moment(asked.expires_at, now)}; then the answer is no", width, "warn")
        lines += field("question", f"{asked.id}, revision {asked.revision}", width, "dim")
        return lines

    # handlers

    async def do_approve(self) -> None:
        asked = self.chosen
        if time.monotonic() - self._changed_at < LOOK_SECONDS:
            self.app.tell("the question under the cursor has just changed: look at it, then press again", "warning")
        elif asked:
            await self._answer(asked, True, "")

    def do_reject(self) -> None:
        asked = self.chosen
        if asked is None:
            return

        async def because(reason: str) -> None:
            if reason.strip():
                await self._answer(asked, False, reason.strip())
            else:
                self.app.tell("not rejected: the agent needs a reason", "warning")

        self.app.ask(LineDialog(f"reject {asked.agent} because", placeholder="a reason; esc leaves it open"), because)

    async def _answer(self, asked: Approval, approve: bool, reason: str) -> None:
        write = await self.app.operations.answer(asked, approve, reason)
        if write.state is WriteState.DONE:
            self.app.tell(f"{asked.agent}: {write.detail}: {asked.question}"[:120])
        else:
            self.app.tell(f"not {'approved' if approve else 'rejected'}: {write.detail}", "error")

    async def do_asking_run(self) -> None:
        from console.screens.run import RunScreen

        asked = self.chosen
        if asked is None:
            return
        if asked.run_id is None:
            self.app.tell(f"no run asks this: {asked.agent} does, beside its work")
            return
        run = self.app.store.runs.get(asked.run_id) or await self._read_run(asked)
        if run is None:
            self.app.tell(f"the run {asked.run_id} cannot be read: is {asked.agent} up?", "warning")
        else:
            self.app.push_screen(RunScreen(self.app.read_only, run))

    def copy_text(self) -> str:
        asked = self.chosen
        return f"{asked.question}\n{asked.detail}".strip() if asked else ""


def _key(asked: Approval) -> str:
    return f"{asked.agent} {asked.id}"
