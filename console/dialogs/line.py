"""One line of text asked for at the bottom of the screen: the filter, the jump, a reason."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widgets import Input

from console.dialogs.typing import TypingDialog
from console.widgets.bars import Bar


class LineDialog(TypingDialog):
    """Gives the text on enter, None on escape.

    `changed(text)` is told each change. It never closes by itself: keys typed on would then act on agents.
    """

    BINDINGS = [Binding("escape", "leave", priority=True)]

    def __init__(
        self, prompt: str, text: str = "", placeholder: str = "", changed: Callable[[str], None] | None = None
    ) -> None:
        super().__init__()
        self._prompt, self._text, self._placeholder, self._changed = prompt, text, placeholder, changed
        self._shown = text

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line-dialog"):
            yield Bar(id="prompt")
            yield Input(self._text, placeholder=self._placeholder, id="line", compact=True)

    def on_mount(self) -> None:
        prompt = self.query_one("#prompt", Bar)
        prompt.styles.width = len(self._prompt) + 2
        prompt.set(((f" {self._prompt} ", "head"),))
        line = self.query_one(Input)
        line.cursor_blink = False

    def on_input_changed(self, event: Input.Changed) -> None:
        if self._changed and event.value != self._shown:
            self._shown = event.value
            self._changed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)
