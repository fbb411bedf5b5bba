"""What waits for a human: gates and dangerous tool calls, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.widget import Widget

from console.actions import Scope
from console.dialogs.line import LineDialog
from console.rows import Changes, WriteState
from console.screens.base import ConsoleScreen
from console.show import Segments, clock, span
from console.widgets.facts import field
from console.widgets.lines import LineList, Page, cut, wrap
from protocols.approvals import Approval


class ApprovalList(LineList):
    """Rows of questions."""

    heads = 1
    empty = "nothing waits for an answer: no agent asks, and no gate is open"

    def head(self, place: int) -> Segments:
        return ((" GATES AND APPROVALS", "head"), ("  oldest first", "dim"))


class ApprovalsScreen(ConsoleScreen):
    """The queue, and the question under the cursor in full."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.APPROVALS, Scope.LISTS)

    def panes(self) -> Iterator[Widget]:
        yield ApprovalList(id="approvals")
        yield Page(id="approval", make=self._lines)

    def on_mount(self) -> None:
        self.query_one(ApprovalList).focus()

    @property
    def chosen(self) -> Approval | None:
        key = self.query_one(ApprovalList).current
        return next((a for a in self.app.store.pending_approvals() if f"{a.agent} {a.id}" == key), None)

    @property
    def has_approval(self) -> bool:
        return self.chosen is not None

    def show_changes(self, changes: Changes | None) -> None:
        if changes is None or changes.approvals:
            self._show()

    def tick(self) -> None:
        super().tick()
        self._show()

    def _show(self) -> None:
        now = self.app.store.clock()
        pane = self.query_one(ApprovalList)
        width = max(10, pane.room - 26)
        pane.set_rows(
            [
                (
                    f"{a.agent} {a.id}",
                    (
                        (" " + cut(a.agent, 15), "bold"),
                        (cut(span(now - a.created_at, coarse=True), 6), "warn"),
                        (cut(a.question, width, self.app.dots), ""),
                    ),
                )
                for a in self.app.store.pending_approvals()
            ]
        )
        self.query_one(Page).update()

    def on_line_list_moved(self) -> None:
        self.query_one(Page).update()

    def _lines(self, width: int) -> list[Segments]:
        asked = self.chosen
        if asked is None:
            return []
        lines: list[Segments] = wrap(asked.question, width - 2, "bold", " ")
        lines += [(), *wrap(asked.detail, width - 2, "", " ")] if asked.detail else []
        lines.append(())
        lines += field("asked by", asked.agent + (f", {asked.run_id}" if asked.run_id else ""), width)
        lines += field("since", clock(asked.created_at), width)
        if asked.expires_at:
            left = asked.expires_at - self.app.store.clock()
            lines += field("expires", f"in {span(left, coarse=True)}", width, "warn")
        return lines

    async def do_approve(self) -> None:
        if self.chosen:
            await self._answer(self.chosen, True, "")

    def do_reject(self) -> None:
        asked = self.chosen
        if asked is None:
            return

        async def because(reason: str) -> None:
            if reason.strip():
                await self._answer(asked, False, reason.strip())
            else:
                self.app.tell("not rejected: the agent needs a reason", "warning")

        self.app.ask(LineDialog("reject because", placeholder="a reason; esc leaves it open"), because)

    async def _answer(self, asked: Approval, approve: bool, reason: str) -> None:
        write = await self.app.operations.answer(asked, approve, reason)
        if write.state is not WriteState.DONE:
            self.app.tell(f"not answered: {write.state.value}: {write.detail}", "error")

    def copy_text(self) -> str:
        asked = self.chosen
        return f"{asked.question}\n{asked.detail}".strip() if asked else ""
