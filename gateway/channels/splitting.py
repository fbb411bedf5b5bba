"""A long text in parts that a channel takes: `split`.

Parts are decided from left to right, each by the text up to its own limit and hardly anything behind it, so that the
parts of a text that still grows stay as they are, all but the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.channels.fences import Fence
from gateway.channels.window import Cut, Window, short_line

LIMIT = 2000
"""UTF-16 units in a bot's message on Discord (50035 above it), whatever its API schema says."""
SOFT_LINES = 40
"""Lines: a longer message fills more than a screen."""
SMALLEST_LIMIT = 64
"""Below it there is no room for a fence to be closed and reopened."""

_BLANKS = re.compile(r"(?:[^\S\n]*+\n)*+(?:\s*+\Z)?")
_GAP = re.compile(r"[^\S\n]*+(\n(?:[^\S\n]*+\n)*+)?")
_REST_OF_LINE = re.compile(r"[^\S\n]*+\n")


def split(text: str, limit: int = LIMIT, soft_lines: int | None = SOFT_LINES) -> list[str]:
    """`text` in parts of at most `limit` UTF-16 code units each (see `measure.units`); none for a blank text.

    Cut at a paragraph, else a line, a sentence, a space; never inside a link, a mention or a grapheme cluster that fits
    into a part, nor inside inline code or bold where there is another way. A code fence that is open at a part's end is
    closed there and opened again in the next, with its language. A part has at most `soft_lines` lines (those of fences
    not counted), or up to a quarter more if a paragraph or a block of code ends there. Nothing is lost but white space
    at the cuts and fence lines with nothing between them. A text that fits and leaves no fence open comes back as it
    is. Takes time linear in the text.

    Raises ValueError for a limit below 64 units or less than one line.
    """
    if limit < SMALLEST_LIMIT or (soft_lines is not None and soft_lines < 1):
        raise ValueError(f"a part has at least {SMALLEST_LIMIT} characters and 1 line, not {limit} and {soft_lines}")
    return list(_parts(text, limit, soft_lines))


def _parts(text: str, limit: int, lines: int | None) -> Iterator[str]:
    if not text.strip():
        return
    whole = Window(text, 0, None, limit, lines).final
    if whole is not None and whole.within is None:
        yield text
        return
    at, fence, mid_line = 0, None, False
    while at < len(text):
        if not mid_line:
            at = _end(_BLANKS, text, at)
            if fence is not None and (closing := short_line(text, at, limit // 4)) and fence.closed_by(closing):
                # Reopened, it would hold nothing.
                fence = None
                at = _end(_GAP, text, at + len(closing))
                continue
        cut = Window(text, at, fence, limit, lines, mid_line).cut()
        part = _written(text, at, fence, cut)
        if part.strip():
            yield part
        fence = cut.within.fence if cut.within is not None else None
        after = _end(_GAP, text, cut.at) if fence is None else _end(_REST_OF_LINE, text, cut.at, limit)
        mid_line = "\n" not in text[cut.at : after]
        at = after


def _written(text: str, at: int, fence: Fence | None, cut: Cut) -> str:
    """The part from `at`, where `fence` was open, to `cut`, with the fence lines that it needs."""
    head = f"{fence.opening}\n" if fence is not None else ""
    if cut.within is None:
        return head + text[at : cut.at].rstrip()
    if text[cut.within.inside : cut.at].strip():
        return f"{head}{text[at : cut.at].rstrip()}\n{cut.within.fence.closing}"
    return head + text[at : cut.within.at].rstrip() if cut.within.at > at else ""


def _end(pattern: re.Pattern[str], text: str, at: int, most: int | None = None) -> int:
    found = pattern.match(text, at) if most is None else pattern.match(text, at, at + most)
    return found.end() if found is not None else at
