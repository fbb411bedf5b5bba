"""Choose one of a list by typing or moving: the palette, the model picker and the heartbeat dialog."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input

from console.dialogs.typing import TypingDialog
from console.show import Segments
from console.widgets.bars import Bar
from console.widgets.lines import LineList, cut


class Choice(msgspec.Struct, frozen=True):
    """One line of the list."""

    key: str
    label: str
    note: str = ""
    blocked: str = ""
    """Why it cannot be chosen; it stays listed."""


class PickList(LineList):
    """The list under the input."""

    can_focus = False
    empty = "nothing fits what you typed"


class PickDialog(TypingDialog):
    """Gives the key of what was chosen, or None. `choices(typed)` makes the list."""

    BINDINGS = [
        Binding("escape", "leave", priority=True),
        Binding("enter", "take", priority=True),
        Binding("down,ctrl+n,tab", "move(1)", priority=True),
        Binding("up,ctrl+p,shift+tab", "move(-1)", priority=True),
        Binding("pagedown", "move(8)", priority=True),
        Binding("pageup", "move(-8)", priority=True),
    ]

    def __init__(
        self, title: str, choices: Callable[[str], Sequence[Choice]], placeholder: str, at: str | None = None
    ) -> None:
        super().__init__()
        self._title, self._choices, self._placeholder, self._at = title, choices, placeholder, at
        self._shown: list[Choice] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog pick"):
            yield Bar(id="dialog-title")
            yield Input(placeholder=self._placeholder, id="typed")
            yield PickList(id="choices")
            yield Bar(id="dialog-help")

    def on_mount(self) -> None:
        self.query_one("#dialog-title", Bar).set(((f" {self._title}", "head"),))
        self._explain()
        typed = self.query_one(Input)
        typed.cursor_blink = False
        self.call_after_refresh(self._first)

    def _first(self) -> None:
        self._fill("")
        if self._at:
            self.query_one(PickList).go_to(self._at)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, typed: str) -> None:
        self._shown = list(self._choices(typed))
        pane = self.query_one(PickList)
        width = max(20, pane.room - 2)
        pane.set_rows([(choice.key, self._line(choice, width)) for choice in self._shown])
        if typed:
            free = next((i for i, choice in enumerate(self._shown) if not choice.blocked), 0)
            pane.go(free)

    def _line(self, choice: Choice, width: int) -> Segments:
        note = choice.blocked or choice.note
        label = self._label_width(width)
        return (
            (" " + cut(choice.label, label, self.app.dots), "dim" if choice.blocked else ""),  # type: ignore[attr-defined]
            (cut(note, self._note_room(width), self.app.dots), "warn" if choice.blocked else "dim"),  # type: ignore[attr-defined]
        )

    def _label_width(self, width: int) -> int:
        return min(max((len(c.label) for c in self._shown), default=10) + 2, width * 2 // 3)

    def _note_room(self, width: int) -> int:
        return width - self._label_width(width) - 1

    def _chosen(self) -> Choice | None:
        key = self.query_one(PickList).current
        return next((c for c in self._shown if c.key == key), None)

    def action_move(self, lines: int) -> None:
        self.query_one(PickList).move(lines)

    def on_line_list_moved(self) -> None:
        self._explain()

    def _explain(self) -> None:
        """What stands under the list: the note of the line under the cursor where the line cuts it, else the keys."""
        pane = self.query_one(PickList)
        choice = self._chosen()
        note = (choice.blocked or choice.note) if choice else ""
        if choice is not None and note and cell_len(note) > self._note_room(max(20, pane.room - 2)):
            self._help(note, "warn" if choice.blocked else "dim")
        else:
            self._help("enter chooses, esc leaves")

    def on_line_list_chosen(self) -> None:
        self.action_take()

    def action_take(self) -> None:
        choice = self._chosen()
        if choice is None:
            self._help("nothing fits; esc leaves")
        elif choice.blocked:
            said = f"cannot be chosen: {choice.blocked}"
            fits = cell_len(said) < self.query_one("#dialog-help", Bar).size.width
            self._help(said if fits else choice.blocked, "bad")  # what mends it matters more
        else:
            self.dismiss(choice.key)

    def action_leave(self) -> None:
        self.dismiss(None)

    def _help(self, text: str, style: str = "dim") -> None:
        self.query_one("#dialog-help", Bar).set(((" " + text, style),))


def fitting(typed: str, choices: Sequence[Choice]) -> list[Choice]:
    """Choices whose label or note holds every word typed, in their order, labels that begin so first."""
    words = typed.lower().split()
    fit = [c for c in choices if all(w in f"{c.label} {c.note}".lower() for w in words)]
    if words:
        fit.sort(key=lambda c: (not c.label.lower().startswith(words[0]), words[0] not in c.label.lower()))
    return fit
