"""Panes drawn line by line on Textual's line API: only lines that changed are painted again.

`LinePane` is the base of every pane of the console; `LineList` adds a cursor over rows; `Page` shows wrapped text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.show import Segments
from protocols.text import printable_row

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events

    from console.app import ConsoleApp
    from console.widgets.palette import Palette


class LinePane(ScrollView, can_focus=True):
    """A pane of single lines, the first `heads` of which never scroll."""

    heads = 0
    """Lines at the top that stay."""

    app: ConsoleApp

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.painted = 0
        """Lines painted so far: what tests count."""

    # to be given by the pane

    def head(self, place: int) -> Segments:
        """The fixed line `place`."""
        return ()

    def body(self, index: int) -> Segments:
        """The scrolling line `index`."""
        return ()

    @property
    def body_count(self) -> int:
        return 0

    def is_cursor(self, index: int) -> bool:
        """Is this line shown as chosen?"""
        return False

    # drawing

    @property
    def room(self) -> int:
        """Cells of a line, without the scroll bar."""
        return self.scrollable_content_region.width

    def resized(self) -> None:
        """Tell the scroll bars how many lines there are."""
        self.virtual_size = Size(0, self.heads + self.body_count)

    def repaint(self, indexes: Iterable[int] | None = None, heads: bool = False) -> None:
        """Paint these body lines again, or all; lines out of sight cost nothing."""
        if indexes is None:
            self.refresh()
            return
        top, height, width = round(self.scroll_y), self.size.height, self.size.width
        if heads and self.heads:
            self.refresh(Region(0, 0, width, self.heads))
        for index in indexes:
            y = index - top + self.heads
            if self.heads <= y < height:
                self.refresh(Region(0, y, width, 1))

    def render_line(self, y: int) -> Strip:
        self.painted += 1
        width = self.room
        base = self.rich_style
        if y < self.heads:
            return self._strip(self.head(y), width, base)
        index = y - self.heads + round(self.scroll_y)
        if index >= self.body_count:
            return Strip.blank(width, base)
        if self.is_cursor(index):
            palette = self.app.palette
            base = base + palette.cursor if self.has_focus else base
        return self._strip(self.body(index), width, base)

    def _strip(self, segments: Segments, width: int, base: Style) -> Strip:
        return draw(segments, width, base, self.app.palette)

    # moving, by the keys of the scope `lists`

    def move(self, lines: int) -> None:
        self.scroll_relative(y=lines, animate=False, immediate=True, force=True)

    @property
    def page(self) -> int:
        """Lines of a page."""
        return max(1, self.size.height - self.heads - 1)

    def move_to_end(self, last: bool) -> None:
        self.scroll_to(y=self.max_scroll_y if last else 0, animate=False, immediate=True, force=True)

    def text_lines(self) -> list[str]:
        """What is shown, as plain text, for copying and for tests."""
        lines = ["".join(t for t, _ in self.head(i)).rstrip() for i in range(self.heads)]
        return lines + ["".join(t for t, _ in self.body(i)).rstrip() for i in range(self.body_count)]

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


class LineList(LinePane):
    """Rows with keys and a cursor. `set_rows` paints only the rows that differ."""

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, pane: LineList) -> None:
            super().__init__()
            self.pane = pane

        @property
        def control(self) -> LineList:
            return self.pane

    class Chosen(Message):
        """A row was clicked that was already under the cursor."""

        def __init__(self, pane: LineList) -> None:
            super().__init__()
            self.pane = pane

        @property
        def control(self) -> LineList:
            return self.pane

    empty = ""
    """Shown when there are no rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.keys: list[str] = []
        self._rows: list[Segments] = []
        self.cursor = 0

    @property
    def body_count(self) -> int:
        return len(self._rows) or (1 if self.empty else 0)

    def body(self, index: int) -> Segments:
        if not self._rows:
            return (("   " + self.empty, "dim"),)
        mark = ">" if index == self.cursor else " "
        return ((mark, "key" if mark == ">" else ""), *self._rows[index])

    def is_cursor(self, index: int) -> bool:
        return bool(self._rows) and index == self.cursor

    @property
    def current(self) -> str | None:
        """Key of the row under the cursor."""
        return self.keys[self.cursor] if self.keys else None

    def set_rows(self, rows: Sequence[tuple[str, Segments]]) -> None:
        """Show these (key, line) rows; the cursor stays on its key."""
        keys = [key for key, _ in rows]
        lines = [line for _, line in rows]
        if keys == self.keys:
            changed = [i for i, line in enumerate(lines) if line != self._rows[i]]
            self._rows = lines
            if changed:
                self.repaint(changed)
            return
        kept = self.current
        self.keys, self._rows = keys, lines
        self.resized()
        self.cursor = keys.index(kept) if kept in keys else min(self.cursor, max(0, len(keys) - 1))
        self.refresh()
        self._show_cursor()
        if self.current != kept:
            self.post_message(self.Moved(self))

    def move(self, lines: int) -> None:
        self.go(self.cursor + lines)

    def move_to_end(self, last: bool) -> None:
        self.go(len(self.keys) - 1 if last else 0)

    def go(self, index: int) -> None:
        """Put the cursor on row `index`, or the nearest there is."""
        index = max(0, min(index, len(self.keys) - 1))
        if index == self.cursor or not self.keys:
            return
        before, self.cursor = self.cursor, index
        self.repaint((before, index))
        self._show_cursor()
        self.post_message(self.Moved(self))

    def go_to(self, key: str) -> None:
        if key in self.keys:
            self.go(self.keys.index(key))

    def _show_cursor(self) -> None:
        top, rows = round(self.scroll_y), max(1, self.size.height - self.heads)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True, force=True)
        elif self.cursor >= top + rows:
            self.scroll_to(y=self.cursor - rows + 1, animate=False, immediate=True, force=True)

    def on_resize(self) -> None:
        self._show_cursor()

    def on_click(self, event: events.Click) -> None:
        index = event.y - self.heads + round(self.scroll_y)
        if event.y < self.heads or index >= len(self.keys):
            return
        if index == self.cursor:
            self.post_message(self.Chosen(self))
        self.go(index)


class Page(LinePane):
    """Text wrapped to the width, made again when the width changes."""

    def __init__(
        self, *, id: str | None = None, classes: str | None = None, make: Callable[[int], list[Segments]] | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._make = make or (lambda width: [])
        self._lines: list[Segments] = []
        self.follow = False
        """Stay at the end when lines are added there."""

    @property
    def body_count(self) -> int:
        return len(self._lines)

    def body(self, index: int) -> Segments:
        return self._lines[index]

    def show(self, make: Callable[[int], list[Segments]]) -> None:
        """Show what `make(width)` gives; lines that are as before are not painted."""
        self._make = make
        self.update()

    def update(self) -> None:
        """Make the lines again."""
        width = self.room
        if width <= 0:
            return
        lines = self._make(width)
        at_end = round(self.scroll_y) >= self.max_scroll_y
        old, self._lines = self._lines, lines
        changed = [i for i, line in enumerate(lines) if i >= len(old) or line != old[i]]
        changed += range(len(lines), len(old))
        if len(lines) != len(old):
            self.resized()
        if changed:
            self.repaint(changed)
        if self.follow and at_end and len(lines) > len(old):
            self.move_to_end(True)

    def on_resize(self) -> None:
        self.update()


def draw(segments: Segments, width: int, base: Style, palette: Palette) -> Strip:
    """One row of a pane or bar as Textual paints it.

    Whatever came from elsewhere than a gateway (a file's name, the supervisor's words, what was typed here) is made
    safe for the terminal at this last place.
    """
    strip = Strip([Segment(printable_row(text), base + palette[style]) for text, style in segments])
    return strip.adjust_cell_length(width, base).simplify()


def cut(text: str, width: int, mark: str = "…") -> str:
    """`text` in exactly `width` cells, `mark` at its end if something was cut off."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - cell_len(mark))) + mark


def wrap(text: str, width: int, style: str = "", indent: str = "") -> list[Segments]:
    """`text` as lines of at most `width` cells, broken at spaces where there are any."""
    lines: list[Segments] = []
    for paragraph in text.splitlines() or [""]:
        for piece in pieces(paragraph.expandtabs(4), max(8, width - cell_len(indent))):
            lines.append(((indent + piece, style),))
    return lines


def pieces(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    parts: list[str] = []
    while text and cell_len(text) > width:
        fit = len(text) if len(text) <= width and text.isascii() else _fit(text, width)
        space = text.rfind(" ", 1, fit + 1)
        end = space if space > width // 3 else fit
        parts.append(text[:end].rstrip())
        text = text[end:].lstrip() if space > width // 3 else text[end:]
    if text:
        parts.append(text)
    return parts


def _fit(text: str, width: int) -> int:
    """How many characters of `text` fit in `width` cells, at least one."""
    if text.isascii():
        return width
    used = 0
    for index, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            return max(1, index)
    return len(text)
