"""The stretches of a text that should stay in one piece: links and mentions, inline code, bold and its kin."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from typing import NamedTuple

MOST_OPEN = 200
"""Characters: what is open for longer at a window's end (a lone asterisk, a lone bracket) is taken for plain text."""
LOOK_AHEAD = 10
"""Characters behind the window that show that a link goes on there."""

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef"
# What the window's end cuts off counts as a link too: `\Z` is where the search ends. Possessive, so as to stay linear.
_LINK = re.compile(
    r"<(?:https?://|mailto:|tel:|@[!&]?\d|#\d|a?:\w|t:-?\d|/\w|id:\w)[^<>\n]*+(?:>|\Z)"
    r"|!?\[(?:[^\[\]\n]{0,200}\Z|[^\[\]\n]*+\](?:\Z|\((?:[^()\n]++|\([^()\n]*+\))*+(?:\)|\Z)))"
    rf"|https?://[^\s<>\"`{_CJK}]*+"
)
_TOKEN = re.compile(r"\\[\\`*_~|]|`++|\*\*|__|~~|\|\||\n[^\S\n]*+\n")


class Span(NamedTuple):
    """text[start:stop] belongs together: `start` < cut < `stop` cuts it."""

    start: int
    stop: int


class Spans:
    """Of one window: may a part end at a position of it?"""

    def __init__(self, text: str, start: int, end: int, prose: Iterable[tuple[int, int]]) -> None:
        """`prose`: the stretches outside code fences, in which inline code and bold are sought."""
        seen = min(len(text), end + LOOK_AHEAD)
        self.links = [Span(*found.span()) for found in _LINK.finditer(text, start, seen)]
        self._link_starts = [span.start for span in self.links]
        inline = [span for begin, stop in prose for span in _inline(text, begin, stop, end)]
        self._inline = _merged(inline)
        self._inline_starts = [span.start for span in self._inline]

    def in_link(self, position: int) -> bool:
        return _inside(self.links, self._link_starts, position)

    def in_inline(self, position: int) -> bool:
        return _inside(self._inline, self._inline_starts, position)


def _inside(spans: list[Span], starts: list[int], position: int) -> bool:
    found = bisect.bisect_left(starts, position) - 1
    return found >= 0 and position < spans[found].stop


def _merged(spans: list[Span]) -> list[Span]:
    """In order and apart, so that a position lies in one at most."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(span.stop, merged[-1].stop))
        else:
            merged.append(span)
    return merged


def _inline(text: str, start: int, stop: int, end: int) -> list[Span]:
    """Inline code and what `**`, `__`, `~~` and `||` enclose, each within its paragraph."""
    tokens = [(found[0], *found.span()) for found in _TOKEN.finditer(text, start, stop)]
    after = _next_alike(tokens)
    spans: list[Span] = []
    opened: dict[str, int] = {}
    index = 0
    while index < len(tokens):
        token, begin, finish = tokens[index]
        if token[0] == "\n":
            opened.clear()
        elif token[0] == "`":
            if after[index] is not None:
                index = after[index] or index
                spans.append(Span(begin, tokens[index][2]))
            else:
                opened.setdefault("`", begin)
        elif token[0] != "\\":
            before = opened.pop(token, None)
            if before is None:
                opened[token] = begin
            else:
                spans.append(Span(before, finish))
        index += 1
    if stop >= end:
        spans += [Span(begin, end + 1) for begin in opened.values() if end - begin <= MOST_OPEN]
    return spans


def _next_alike(tokens: list[tuple[str, int, int]]) -> list[int | None]:
    """For each run of backticks the next one as long in its paragraph, which closes it."""
    after: list[int | None] = [None] * len(tokens)
    seen: dict[str, int] = {}
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index][0]
        if token[0] == "\n":
            seen.clear()
        elif token[0] == "`":
            after[index] = seen.get(token)
            seen[token] = index
    return after
