"""Give work to one agent or to all marked ones. The text survives closing the dialog until it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import TextArea

from console.dialogs.typing import TypingDialog
from console.show import Segments
from console.widgets.bars import Bar
from console.widgets.lines import Page, wrap


class Draft(msgspec.Struct):
    """Work that is being written, or was sent without an answer."""

    text: str = ""
    agents: tuple[str, ...] = ()
    deliver: bool = True
    key: str = ""
    """Idempotency: the same for as long as text and agents are the same."""

    def for_agent(self, agent: str) -> str:
        return f"{self.key}-{agent}"

    def rewrite(self, text: str, agents: Sequence[str], deliver: bool) -> None:
        """Take what is on screen; a new key if it is another piece of work."""
        if not self.key or (text, tuple(agents), deliver) != (self.text, self.agents, self.deliver):
            self.key = f"console-{secrets.token_hex(8)}"
        self.text, self.agents, self.deliver = text, tuple(agents), deliver


class TaskArea(TextArea):
    """Enter sends; ctrl+j, or pasting, makes a new line."""

    def on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.screen.action_send()  # type: ignore[attr-defined]
        elif event.key in ("ctrl+j", "shift+enter", "alt+enter"):
            event.stop()
            event.prevent_default()
            self.insert("\n")


class DelegateDialog(TypingDialog):
    """True if the draft is to be sent; the draft is changed in place either way."""

    BINDINGS = [
        Binding("escape", "leave", priority=True),
        Binding("ctrl+s", "send", priority=True),
        Binding("ctrl+d", "deliver", priority=True),
    ]

    def __init__(self, draft: Draft, agents: Sequence[str], notes: Sequence[str]) -> None:
        super().__init__()
        self._draft, self._agents, self._notes = draft, list(agents), list(notes)
        self._deliver = draft.deliver

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog delegate"):
            yield Bar(id="dialog-title")
            yield Page(id="dialog-agents", make=self._names)
            yield TaskArea(self._draft.text, id="task", soft_wrap=True, compact=True, highlight_cursor_line=False)
            yield Page(id="dialog-note", make=self._notes_lines)
            yield Bar(id="dialog-help")

    def on_mount(self) -> None:
        who = self._agents[0] if len(self._agents) == 1 else f"{len(self._agents)} agents:"
        self.query_one("#dialog-title", Bar).set(((" Delegate to ", "head"), (who, "bold")))
        area = self.query_one(TaskArea)
        area.cursor_blink = False
        area.move_cursor(area.document.end)
        self._help()

    def _names(self, width: int) -> list[Segments]:
        """Everybody who is to get it, where the title has no room for them."""
        return wrap(", ".join(self._agents), width - 2, "bold", " ") if len(self._agents) > 1 else []

    def _notes_lines(self, width: int) -> list[Segments]:
        return [line for note in self._notes for line in wrap(note, width - 2, "warn", " ")]

    def _help(self, problem: str = "") -> None:
        bar = self.query_one("#dialog-help", Bar)
        if problem:
            bar.set(((" " + problem, "bad"),))
            return
        where = "to its channel too" if self._deliver else "only here"
        bar.set(
            (
                (" enter", "key"), (" send  ", "dim"),
                ("ctrl+j", "key"), (" new line  ", "dim"),
                ("ctrl+d", "key"), (f" answer {where}  ", "dim"),
                ("esc", "key"), (" keep", "dim"),
            )
        )  # fmt: skip

    def action_deliver(self) -> None:
        self._deliver = not self._deliver
        self._help()

    def action_send(self) -> None:
        text = self.query_one(TaskArea).text
        if not text.strip():
            self._help("write what is to be done first; esc leaves")
            return
        self._draft.rewrite(text, self._agents, self._deliver)
        self.dismiss(True)

    def action_leave(self) -> None:
        self._draft.rewrite(self.query_one(TaskArea).text, self._agents, self._deliver)
        self.dismiss(False)
