"""Code fences in Markdown, line by line: what opens one, what closes it.

After CommonMark 4.5, with one liberty: a fence may be opened at any depth of indentation, since answers put code into
list items and Discord and Slack heed no indentation at all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENING = re.compile(r"([ \t]*)(`{3,}|~{3,})([^\n]*)")
_CLOSING = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t\r]*")
MARKS = ("```", "~~~")
"""What every fence starts and ends with."""


class Fence(NamedTuple):
    """An open fence."""

    indent: str
    marks: str
    """Its run of backticks or tildes, three or more."""
    language: str
    """The first word of its info string."""

    @property
    def opening(self) -> str:
        return f"{self.indent}{self.marks}{self.language}"

    @property
    def closing(self) -> str:
        return f"{self.indent}{self.marks}"

    def closed_by(self, line: str) -> bool:
        """By a run of the same mark at least as long, alone on its line, no more than three columns deeper."""
        found = _CLOSING.fullmatch(line)
        return found is not None and found[2].startswith(self.marks) and _depth(found[1]) <= _depth(self.indent) + 3


def fence_opened_by(line: str) -> Fence | None:
    """The fence that `line` opens, where none is open. An info string after backticks holds none (CommonMark)."""
    found = _OPENING.match(line)
    if found is None or (found[2][0] == "`" and "`" in found[3]):
        return None
    words = found[3].split(None, 1)
    return Fence(found[1], found[2], words[0] if words else "")


def _depth(indent: str) -> int:
    return len(indent.expandtabs(4))
