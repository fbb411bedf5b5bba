"""What could be the next part of a long text, and where it is best cut: the half of `splitting` that decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from gateway.channels.fences import Fence, fence_opened_by
from gateway.channels.measure import boundary, reach, units
from gateway.channels.spans import Spans

LOOK_AHEAD = 12
"""Characters behind the window that are looked at, to see what a next part would begin with."""

_MARKED = re.compile(r"[ \t]*+(?:```|~~~)")
_TELLING = frozenset(" \t\r\v\f`~#\n")
"""A line that begins otherwise is plain text. (Other kinds of white space alone on a line pass for text.)"""
_WORD = re.compile(r"\S")
_BLANK = re.compile(r"[^\S\n]*+(?:\n|\Z)")
_HEADING = re.compile(r" {0,3}#{1,6}\s")
# No part may begin with what is a fence, a heading, a quote or a list item only at a line's start.
_STARTER = r"(?!```|~~~|(?:#{1,6}|-#|[-*+]|>{1,3}|\d{1,9}[.)])\s)"
_SPACE = re.compile(rf"\s++{_STARTER}")
# Western sentences end before a space, Chinese and Japanese ones (full-width marks) anywhere.
_SENTENCE = re.compile(
    rf"(?:(?<![\s.(]\w)\.|[!?\u2026])[.!?\u2026\"'\u201d\u2019)\]*_]*+(?=\s++{_STARTER})|[\u3002\uff01\uff1f\uff1b]++"
)


class Rank(IntEnum):
    """Where a part may end, the best first."""

    PARAGRAPH = 0
    LINE = 1
    BLANK_IN_CODE = 2
    LINE_IN_CODE = 3
    SENTENCE = 4
    SPACE = 5


class Kind(Enum):
    """Of a line."""

    TEXT = auto()
    HEADING = auto()
    BLANK = auto()
    OPENER = auto()
    CODE = auto()
    BLANK_CODE = auto()
    CLOSER = auto()


class Open(NamedTuple):
    """A fence that is open somewhere in a part."""

    fence: Fence
    at: int
    """Where its opening line starts in the text; if an earlier part opened it, where this part starts."""
    inside: int
    """Where its content starts."""


class Line(NamedTuple):
    """text[start:stop], without its newline and cut off at the window's end."""

    start: int
    stop: int
    whole: bool
    """It ends in the window."""
    kind: Kind
    within: Open | None
    """The fence it opens, closes, or lies in."""
    marked: bool
    """It starts like a fence. Cut in two it could become one."""


class Cut(NamedTuple):
    """A part may end at `at`, within an open fence or not."""

    at: int
    within: Open | None


class Region(NamedTuple):
    """A stretch of a window that may be cut between its words."""

    start: int
    stop: int
    within: Open | None


def short_line(text: str, at: int, most: int) -> str | None:
    """The line from `at`, if it has at most `most` characters."""
    stop = text.find("\n", at, at + most + 1)
    if stop < 0:
        if len(text) - at > most:
            return None
        stop = len(text)
    return text[at:stop]


class Window:
    """What could be the next part: text[at:] as far as its limit goes, with the places where it may end."""

    def __init__(
        self, text: str, at: int, fence: Fence | None, limit: int, lines: int | None, mid_line: bool = False
    ) -> None:
        """`fence` is reopened at its start; `lines`: at most so many, softly; `mid_line`: `at` is no line's start."""
        self._text, self._at, self._fence, self._limit = text, at, fence, limit
        self._lines, self._mid_line = lines, mid_line
        self._budget = limit - (units(fence.opening) + 1 if fence is not None else 0)
        self._end = reach(text, at, self._budget)
        self._reaches: dict[int, int] = {}
        self._contents: dict[int, int] = {}
        self._searched: set[Rank] = set()
        self._spans_to: tuple[int, Spans] | None = None
        self._cuts: list[list[Cut]] = [[] for _ in Rank]
        self._regions: list[Region] = []
        self._soft: int | None = None
        """Where `lines` lines end, if there are more."""
        self.final: Cut | None = None
        """Set if all that is left fits."""
        self._scan(Open(fence, at, at) if fence is not None else None)

    def cut(self) -> Cut:
        """Where the part ends, beyond its start."""
        if self.final is not None:
            return self.final
        if self._soft is None:
            return self._best(self._end)[0] or self._edge() or self._best(self._end, whole=False)[0] or self._hard()
        found, rank = self._best(self._soft)
        if rank is not Rank.PARAGRAPH:
            found = next((cut for cut in self._cuts[Rank.PARAGRAPH] if cut.at > self._soft), found)
        if found is not None:
            return found
        return Window(self._text, self._at, self._fence, self._limit, None, self._mid_line).cut()

    # -- its lines ---------------------------------------------------------------------------------------------------

    def _scan(self, within: Open | None) -> None:
        """Line by line, to the limit."""
        before: Line | None = None
        headed = False
        position, count = self._at, 0
        overrun = None if self._lines is None else self._lines + self._lines // 4
        while position <= self._end + 1:
            if position >= len(self._text):
                if len(self._text) <= (self._end if within is None else self._reach(within)):
                    self.final = Cut(len(self._text), within)
                elif within is None:
                    self._cuts[Rank.PARAGRAPH].append(Cut(position - 1, None))  # all but its last newline fits
                return
            line = self._line(position, within)
            if before is not None:
                self._add_cut(before, line, headed)
            if count == self._lines and self._soft is None:
                self._soft = max(self._at + 1, position - 1)
            if (count == overrun and line.kind is not Kind.CLOSER) or position > self._end:
                return
            if line.kind is Kind.OPENER or line.kind is Kind.CLOSER:
                within = line.within if line.kind is Kind.OPENER else None
            else:
                count += 1
                self._add_region(line)
            if not line.whole:
                return
            headed = line.kind is Kind.HEADING or (headed and line.kind is Kind.BLANK)
            before, position = line, line.stop + 1

    def _line(self, start: int, within: Open | None) -> Line:
        text, end = self._text, self._end
        stop = text.find("\n", start, end + 1)
        whole = stop >= 0 or len(text) <= end
        if stop < 0:
            stop = max(start, min(len(text), end))
        if start < len(text) and text[start] not in _TELLING:
            return Line(start, stop, whole, Kind.TEXT if within is None else Kind.CODE, within, False)
        short = None
        marked = not (self._mid_line and start == self._at) and (
            _MARKED.match(text, start, start + self._limit // 4) is not None
        )
        if marked:
            short = short_line(text, start, self._limit // 4)
        if within is not None and short is not None and within.fence.closed_by(short):
            kind = Kind.CLOSER
        elif within is None and short is not None and (fence := fence_opened_by(short)) is not None:
            kind = Kind.OPENER
            within = Open(fence, start, min(len(text), start + len(short) + 1))
        elif _BLANK.match(text, start, start + self._limit):
            kind = Kind.BLANK if within is None else Kind.BLANK_CODE
        elif within is None:
            kind = Kind.HEADING if _HEADING.match(text, start) else Kind.TEXT
        else:
            kind = Kind.CODE
        return Line(start, stop, whole, kind, within, marked)

    def _add_cut(self, before: Line, line: Line, headed: bool) -> None:
        """The end of the line `before`, if a part may end there."""
        at = line.start - 1
        if line.within is not None and line.kind is not Kind.OPENER:
            if before.kind is not Kind.BLANK_CODE and at <= self._reach(line.within) and self._filled(line.within, at):
                rank = Rank.BLANK_IN_CODE if line.kind is Kind.BLANK_CODE else Rank.LINE_IN_CODE
                self._cuts[rank].append(Cut(at, line.within))
        elif at > self._at and before.kind is not Kind.BLANK:
            good = before.kind is Kind.CLOSER or line.kind in (Kind.BLANK, Kind.OPENER, Kind.HEADING)
            rank = Rank.SPACE if headed else Rank.PARAGRAPH if good else Rank.LINE
            self._cuts[rank].append(Cut(at, None))

    def _add_region(self, line: Line) -> None:
        start = line.start + (self._limit // 4 + 1 if line.marked else 0)
        stop = line.stop if line.within is None else min(line.stop, self._reach(line.within))
        if start > stop or (start == stop and line.stop > line.start):
            return
        last = self._regions[-1] if self._regions else None
        if last is not None and last.within is line.within and last.stop + 1 == start:
            self._regions[-1] = Region(last.start, stop, last.within)
        else:
            self._regions.append(Region(start, stop, line.within))

    def _reach(self, within: Open) -> int:
        """How far the part may go if `within` is to be closed at its end."""
        known = self._reaches.get(within.inside)
        if known is None:
            budget = self._budget - units(within.fence.closing) - 1
            known = self._reaches[within.inside] = reach(self._text, self._at, budget)
        return known

    def _filled(self, within: Open, at: int) -> bool:
        """Is there anything in the fence before `at`?"""
        known = self._contents.get(within.inside)
        if known is None:
            found = _WORD.search(self._text, within.inside, self._end)
            known = self._contents[within.inside] = found.start() if found is not None else self._end
        return at > known

    # -- its best end ------------------------------------------------------------------------------------------------

    def _best(self, last: int, *, whole: bool = True) -> tuple[Cut | None, Rank | None]:
        """The best cut up to `last`, in the window's second half if there is one; leaves links whole, or not."""
        spans = self._spans(last)
        half = self._at + (last - self._at) // 2
        for inline_too in (True, False):
            for floor, below in ((half, last + 1), (self._at + 1, half)):
                for rank in Rank:
                    for cut in reversed(self._of(rank)):
                        if cut.at < floor:
                            break
                        if cut.at >= below or (whole and spans.in_link(cut.at)):
                            continue
                        if not (inline_too and spans.in_inline(cut.at)) and self._parts_characters(rank, cut):
                            return cut, rank
        return None, None

    def _parts_characters(self, rank: Rank, cut: Cut) -> bool:
        """Where no space follows, a mark may, which belongs to what is before it."""
        return rank is not Rank.SENTENCE or boundary(self._text, self._at, cut.at) == cut.at

    def _spans(self, last: int) -> Spans:
        if self._spans_to is None or self._spans_to[0] != last:
            prose = [(region.start, region.stop) for region in self._regions if region.within is None]
            self._spans_to = (last, Spans(self._text, self._at, last, prose))
        return self._spans_to[1]

    def _of(self, rank: Rank) -> list[Cut]:
        """The cuts of a rank, in order; those between words are looked for when first wanted."""
        if rank >= Rank.SENTENCE and rank not in self._searched:
            self._searched.add(rank)
            self._cuts[rank] = sorted([*self._cuts[rank], *self._between_words(rank)], key=lambda cut: cut.at)
        return self._cuts[rank]

    def _between_words(self, rank: Rank) -> Iterator[Cut]:
        for start, stop, within in self._regions:
            if rank is Rank.SPACE:
                for found in _SPACE.finditer(self._text, start, stop + LOOK_AHEAD):
                    if found.start() > stop:
                        break
                    if found.start() > self._at and (within is None or self._filled(within, found.start())):
                        yield Cut(found.start(), within)
            elif within is None:
                for found in _SENTENCE.finditer(self._text, start, stop + LOOK_AHEAD):
                    if found.end() > stop:
                        break
                    yield Cut(found.end(), within)

    def _edge(self) -> Cut | None:
        """Right before a link that nothing separates from the word before it."""
        for link in reversed(self._spans(self._end).links):
            for region in self._regions:
                if max(self._at, region.start) < link.start <= region.stop and (
                    region.within is None or self._filled(region.within, link.start)
                ):
                    return Cut(link.start, region.within)
        return None

    def _hard(self) -> Cut:
        """In the middle of a word, but between two characters as people see them."""
        region = self._regions[-1] if self._regions else Region(self._at, max(self._end, self._at + 1), None)
        low = max(self._at, region.start)
        position = boundary(self._text, low, max(region.stop, self._at + 1))
        # Neither part may begin or end like a fence.
        while position > low and self._text[position : position + 3] and self._text[position] in "`~":
            position -= 1
        return Cut(position if position > low else max(region.stop, self._at + 1), region.within)
