"""The merged log on screen: only visible lines are rendered, and following stops when the reader scrolls up."""

from __future__ import annotations

from rich.cells import cell_len

from console.filters import Filter
from console.logring import LogLine, LogRing
from console.show import LEVELS, Segments, clock
from console.widgets.lines import LinePane, cut, pieces

SINCE = {"1": 60.0, "2": 300.0, "3": 900.0, "4": 3600.0, "5": None}
SINCE_NAMES = {60.0: "1m", 300.0: "5m", 900.0: "15m", 3600.0: "1h"}
_LETTERS = {"debug": ("D", "dim"), "info": ("I", ""), "warning": ("W", "warn"), "error": ("E", "bad")}
_RANK = {level: rank for rank, level in enumerate(LEVELS)}
NAME_WIDTH = 14

Row = tuple[int, LogLine, str, bool]
"""(number in the ring, line, the piece of its text on this row, is it the first piece)"""


class LogView(LinePane):
    """A view of the ring. Level, sources, filter, time span, wrap and following are its own."""

    heads = 1

    def __init__(self, ring: LogRing, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ring = ring
        self._rows: list[Row] = []
        self._seen = 0
        self._generation = -1
        self._fresh = 0
        """Lines that came while not following."""
        self.level = "info"
        self.sources: frozenset[str] | None = None
        """Agents shown; None is all."""
        self.source_name = "all"
        self.filter = Filter()
        self.search = False
        """Show lines that do not match as well, with the hits marked: after `n` or `N`."""
        self.since: float | None = None
        self.following = True
        self.wrapped = False
        self.timestamps = True
        self._hit: int | None = None

    # content

    @property
    def body_count(self) -> int:
        return len(self._rows)

    def lines_shown(self) -> list[LogLine]:
        """The lines that pass, oldest first."""
        return [line for _, line, _, first in self._rows if first]

    def set_filter(self, wanted: Filter) -> None:
        """Show what passes it, and forget a search."""
        self.filter, self.search, self._hit = wanted, False, None
        self.reset()

    def reset(self) -> None:
        """Read the ring again: a setting changed."""
        self._rows.clear()
        self._generation = -1
        self.catch_up(force=True)

    def catch_up(self, force: bool = False) -> None:
        """Take in what is new in the ring; called after each merge of it."""
        ring = self._ring
        whole = self._generation != ring.generation or self._seen < ring.start
        if whole:
            self._rows, self._seen, self._generation = [], ring.start, ring.generation
        elif self._seen == ring.end and not force:
            return
        gone = 0
        rows = self._rows
        while gone < len(rows) and rows[gone][0] < ring.start:
            gone += 1
        if gone:
            del rows[:gone]
        added = 0
        oldest = self.app.store.clock() - self.since if self.since else 0.0
        number = max(self._seen, ring.start)
        for line in ring.since(self._seen):
            if line.at >= oldest and self._passes(line):
                rows += self._split(number, line)
                added += 1
            number += 1
        self._seen = ring.end
        if not (whole or added or gone or force):
            return
        self.resized()
        if self.following:
            self._fresh = 0
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)
            self.refresh()
            return
        if not whole:
            self._fresh += added
        if gone:
            self.scroll_to(y=max(0, round(self.scroll_y) - gone), animate=False, immediate=True, force=True)
        if whole or gone:
            self.refresh()
        else:
            self.repaint(range(len(rows) - added, len(rows)), heads=True)

    def _passes(self, line: LogLine) -> bool:
        if _RANK.get(line.level, 1) < _RANK[self.level]:
            return False
        if self.sources is not None and line.agent not in self.sources:
            return False
        return self.search or not self.filter or self._matches(line)

    def _matches(self, line: LogLine) -> bool:
        return self.filter.matches(f"{line.agent} {line.text}", line.level)

    def _split(self, number: int, line: LogLine) -> list[Row]:
        text = line.text.replace("\n", " / ").expandtabs(4)
        if not self.wrapped:
            return [(number, line, text, True)]
        width = max(20, self.room - self._margin - 1)
        return [(number, line, piece, place == 0) for place, piece in enumerate(pieces(text, width))]

    @property
    def _margin(self) -> int:
        return (9 if self.timestamps else 0) + 3 + NAME_WIDTH + 1

    # drawing

    def head(self, place: int) -> Segments:
        parts = [
            f"{self.source_name}",
            f"level >= {self.level}",
            "follow on" if self.following else "follow off",
        ]
        if self.since:
            parts.append(f"last {SINCE_NAMES[self.since]}")
        if self.wrapped:
            parts.append("wrap")
        if self.filter:
            found = sum(1 for line in self.lines_shown() if self._matches(line)) if self.search else None
            count = len(self.lines_shown()) if found is None else found
            parts.append(f"{'search' if self.search else 'filter'} /{self.filter.source} {count} hits")
        title = " LOGS " + " | ".join(parts)
        fresh = f" | +{self._fresh} new (f follows)" if self._fresh and not self.following else ""
        return ((title, "head"), (fresh, "warn"))

    def body(self, index: int) -> Segments:
        number, line, text, first = self._rows[index]
        letter, style = _LETTERS.get(line.level, ("I", ""))
        cells: list[tuple[str, str]] = []
        if first:
            if self.timestamps:
                cells.append((clock(line.at) + " ", "dim"))
            cells += [(f"{letter} ", style), (cut(line.agent, NAME_WIDTH, self.app.dots) + " ", "head")]
        else:
            cells.append((" " * (self._margin - 1), ""))
        mark = ">" if number == self._hit else " "
        cells.append((mark, "key"))
        if self.filter and not self.filter.problem:
            cells += _highlight(text, self.filter.hits(text), style)
        else:
            cells.append((text, style))
        room = self.room
        if not self.wrapped and sum(cell_len(t) for t, _ in cells) > room and len(cells) > 3:
            keep = room - sum(cell_len(t) for t, _ in cells[:-1])
            if keep > 1:
                cells[-1] = (cut(cells[-1][0], keep, self.app.dots), cells[-1][1])
        return tuple(cells)

    # moving

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        at_end = round(new) >= self.max_scroll_y
        if self.following and new < old and not at_end:
            self.set_following(False)
        elif not self.following and new > old and at_end:
            self.set_following(True)

    def set_following(self, on: bool) -> None:
        self.following = on
        if on:
            self._fresh = 0
            self._hit = None
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)
        self.refresh()

    def move_to_end(self, last: bool) -> None:
        if last:
            self.set_following(True)
        else:
            super().move_to_end(False)

    def next_hit(self, step: int) -> bool:
        """Move to the next (1) or previous (-1) line that the filter matches, among all lines.

        False if there is none.
        """
        if not self.filter:
            return False
        if not self.search:
            self.search = True
            self.reset()
        rows = [i for i, row in enumerate(self._rows) if row[3] and self._matches(row[1])]
        if not rows:
            return False
        here = next((i for i, row in enumerate(self._rows) if row[0] == self._hit), None)
        if here is None:
            target = rows[-1] if step < 0 or self.following else rows[0]
        elif step > 0:
            target = next((i for i in rows if i > here), rows[0])
        else:
            target = next((i for i in reversed(rows) if i < here), rows[-1])
        self._hit = self._rows[target][0]
        self.following = False
        middle = max(0, target - self.page // 2)
        self.scroll_to(y=min(middle, self.max_scroll_y), animate=False, immediate=True, force=True)
        self.refresh()
        return True

    def on_resize(self) -> None:
        if self.wrapped:
            self.reset()
        elif self.following:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)


def _highlight(text: str, spans: list[tuple[int, int]], style: str) -> list[tuple[str, str]]:
    cells: list[tuple[str, str]] = []
    place = 0
    for start, end in spans:
        if start > place:
            cells.append((text[place:start], style))
        cells.append((text[start:end], "hit"))
        place = end
    if place < len(text):
        cells.append((text[place:], style))
    return cells
