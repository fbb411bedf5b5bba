"""The question before something disruptive: `y` or `n`; for the whole cluster its name is typed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from console.dialogs.typing import TypingDialog
from console.show import Segments
from console.widgets.bars import Bar
from console.widgets.lines import Page, wrap


class ConfirmDialog(ModalScreen[bool]):
    """True if confirmed. With `cancel_first` enter means Cancel until the operator moves."""

    BINDINGS = [
        Binding("y", "answer(True)"),
        Binding("n,escape,q", "answer(False)"),
        Binding("left,right,tab,shift+tab,h,l", "other"),
        Binding("enter", "enter"),
    ]

    def __init__(self, verb: str, question: str, consequences: list[str], cancel_first: bool) -> None:
        super().__init__()
        self._verb, self._question, self._consequences = verb, question, consequences
        self.on_cancel = cancel_first
        """Is Cancel the focused choice?"""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog confirm"):
            yield Page(id="question", make=self._lines)
            yield Bar(id="choices")

    def _lines(self, width: int) -> list[Segments]:
        lines = wrap(self._question, width - 2, "bold", " ")
        for text in self._consequences:
            lines += wrap(text, width - 2, "warn", " ")
        return lines

    def on_mount(self) -> None:
        self.query_one(Page).can_focus = False
        self.set_focus(None)
        self._show()

    def _show(self) -> None:
        yes, no = f"  y {self._verb}  ", "  n Cancel  "
        focused, plain = "hit", ""
        mark = ("> ", "key")
        self.query_one("#choices", Bar).set(
            (
                ("  ", ""),
                ("  ", "") if self.on_cancel else mark,
                (yes, plain if self.on_cancel else focused),
                ("  ", ""),
                mark if self.on_cancel else ("  ", ""),
                (no, focused if self.on_cancel else plain),
            )
        )

    def action_other(self) -> None:
        self.on_cancel = not self.on_cancel
        self._show()

    def action_enter(self) -> None:
        self.dismiss(not self.on_cancel)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class TypedConfirmDialog(TypingDialog):
    """True if the operator typed `word` exactly: for what touches the whole cluster."""

    BINDINGS = [Binding("escape", "leave", priority=True)]

    def __init__(self, verb: str, question: str, word: str) -> None:
        super().__init__()
        self._verb, self._question, self._word = verb, question, word

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog confirm"):
            yield Page(id="question", make=self._lines)
            yield Input(id="word")
            yield Bar(id="choices")

    def _lines(self, width: int) -> list[Segments]:
        lines = wrap(self._question, width - 2, "bold", " ")
        return lines + wrap(f"Type the cluster's name, {self._word}, and enter; esc cancels.", width - 2, "warn", " ")

    def on_mount(self) -> None:
        self.query_one(Page).can_focus = False
        word = self.query_one(Input)
        word.cursor_blink = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value == self._word:
            self.dismiss(True)
        else:
            self.query_one("#choices", Bar).set(((f" that is not {self._word!r}; nothing was done", "bad"),))

    def action_leave(self) -> None:
        self.dismiss(False)
