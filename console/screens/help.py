"""All keys and all state words, from the registry."""

from __future__ import annotations

from collections.abc import Iterator

from textual.widget import Widget

from console.actions import SCOPE_TITLES, Danger, key_name, key_table
from console.screens.base import ConsoleScreen
from console.show import STATE_STYLES, Segments
from console.widgets.facts import heading
from console.widgets.lines import Page, cut, wrap
from protocols.states import GLYPHS

_KEYS, _LABEL = 14, 14


class HelpScreen(ConsoleScreen):
    """One page; `?` or esc leaves it."""

    def panes(self) -> Iterator[Widget]:
        yield Page(id="page", make=self._lines)

    def on_mount(self) -> None:
        self.query_one(Page).focus()

    def _lines(self, width: int) -> list[Segments]:
        lines: list[Segments] = []
        for scope, actions in key_table(self.app.read_only):
            lines += heading(SCOPE_TITLES[scope].upper(), width)
            for action in actions:
                keys = " ".join(key_name(key) for key in action.keys)
                text = action.help + (" Asks first." if action.danger is Danger.DISRUPTIVE else "")
                wrapped = wrap(text, max(20, width - _KEYS - _LABEL - 2))
                for place, line in enumerate(wrapped):
                    left = (keys, action.label) if place == 0 else ("", "")
                    lines.append(((" " + cut(left[0], _KEYS), "key"), (cut(left[1], _LABEL), "bold"), *line))
        lines += heading("STATES", width)
        words = [(f" {glyph} {word} ", STATE_STYLES[word]) for word, glyph in GLYPHS.items()]
        lines += [tuple(words[:6]), tuple(words[6:])]
        if self.app.read_only:
            lines += heading("READ-ONLY", width)
            lines += wrap("This console only reads: keys that change something are not there.", width - 2, "warn", " ")
        return lines[1:]

    def do_help(self) -> None:
        self.app.pop_screen()
