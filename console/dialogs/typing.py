"""Keys typed while a dialog is still opening: they are its text, and nothing else's."""

from __future__ import annotations

from typing import Any

from textual import events
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, TextArea


class TypingDialog(ModalScreen[Any]):
    """A dialog with one field to type in. The app puts into `early` what is typed before the field has the focus."""

    def __init__(self) -> None:
        super().__init__()
        self.early: list[events.Key] | None = []
        """Keys put aside; None once the field takes them itself."""

    def on_screen_resume(self) -> None:
        field = self.query("Input, TextArea").first()
        self.call_after_refresh(self._take_early, field)

    def _take_early(self, field: Widget) -> None:
        self.set_focus(field)
        keys, self.early = self.early or [], None
        special = False
        for key in keys:
            special = special or not key.is_printable
            text = None if special else key.character
            if text and isinstance(field, Input):
                field.insert_text_at_cursor(text)
            elif text and isinstance(field, TextArea):
                field.insert(text)
            else:
                self.app.post_message(key)
