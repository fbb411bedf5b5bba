"""How long and how wide a text is to those who count: Discord, and the eye.

`wcwidth` costs some 8 MiB, so it is imported only for text that holds marks, joiners or variation selectors.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from typing import Literal

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_FIRST_MARK = 0x300
"""Below it no character joins its neighbour (but CR and LF), and each is one cell wide."""
_LOOK_BACK = 64
"""Characters in which the beginning of a grapheme cluster is sought."""


def units(text: str) -> int:
    """Length in UTF-16 code units, by which no Discord limit is exceeded.

    Discord's staff said that its API counts code points (discord-api-docs#1315, 2020), its clients and several
    libraries count UTF-16 units; a text has never fewer units than code points, so a limit kept in units is kept.
    """
    if text.isascii():
        return len(text)
    return len(text) + sum(1 for _ in _ASTRAL.finditer(text))


def reach(text: str, start: int, budget: int) -> int:
    """The last position to which text[start:] goes in at most `budget` UTF-16 units."""
    end = min(len(text), start + max(0, budget))
    while (over := units(text[start:end]) - budget) > 0:
        end -= (over + 1) // 2
    # A removed character may have been two units, and so one more may fit.
    if end < len(text) and units(text[start : end + 1]) <= budget:
        end += 1
    return end


def boundary(text: str, start: int, position: int) -> int:
    """The last end of a grapheme cluster in text[start:position], or `position` if that cluster began at `start`."""
    if position >= len(text) or position <= start:
        return position
    before, after = ord(text[position - 1]), ord(text[position])
    if before < _FIRST_MARK and after < _FIRST_MARK:
        return position - 1 if (before, after) == (13, 10) and position - 1 > start else position
    if 0xD800 <= before < 0xDC00 <= after < 0xE000:
        return position - 1 if position - 1 > start else position
    if 0x3000 <= before < 0xA000 and 0x3041 <= after < 0xA000 and after not in (0x3099, 0x309A):
        return position
    from wcwidth import iter_graphemes

    origin = max(start, position - _LOOK_BACK)
    for at in range(position - 1, origin, -1):
        if 32 <= ord(text[at]) < _FIRST_MARK:
            origin = at
            break
    origin -= _flags_before(text, start, origin) % 2
    ends, at = [], origin
    for cluster in iter_graphemes(text[origin : position + 1]):
        at += len(cluster)
        ends.append(at)
    found = bisect.bisect_right(ends, position)
    return ends[found - 1] if found else (origin if origin > start else position)


def _flags_before(text: str, start: int, position: int) -> int:
    """How many regional indicators end there: two by two they make flags."""
    at = position
    while at > start and "\U0001f1e6" <= text[at - 1] <= "\U0001f1ff":
        at -= 1
    return position - at


def cells(text: str) -> int:
    """Width in the cells of a fixed-width font: wide characters and emoji take two."""
    if text.isascii():
        return len(text)
    total = 0
    for character in text:
        if ord(character) < _FIRST_MARK:
            total += 1
        elif unicodedata.category(character)[0] in "MC" or 0x1F1E6 <= ord(character) <= 0x1F3FF:
            from wcwidth import width

            return width(text)
        else:
            total += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return total


def padded(text: str, width: int, side: Literal["left", "right", "center"]) -> str:
    """`text` with spaces around it, `width` cells in all."""
    room = max(0, width - cells(text))
    before = {"left": 0, "right": room, "center": room // 2}[side]
    return " " * before + text + " " * (room - before)
