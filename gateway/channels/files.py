"""Which answers become a file, and what files may be called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from gateway.channels.channel import Upload
from gateway.channels.fences import MARKS
from gateway.channels.measure import boundary
from gateway.channels.splitting import split

MOST_PARTS = 5
"""Messages: an answer that needs more goes out as a file."""
ANSWER_FILE = "answer.md"
LEAD_UNITS = 600
"""UTF-16 units of an answer's beginning that are shown above its file."""
NAME_BYTES = 120
"""UTF-8 bytes of a file's name; file systems take 255."""

_ELLIPSIS = "\u2026"
# What some file system, shell or URL reads as more than a letter.
_FORBIDDEN = re.compile(r"[<>:\"/\\|?*\x00-\x1f\x7f]+")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|\Z)", re.IGNORECASE)
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are not seen, among them those that turn the direction of writing around."""


class LongAnswer(NamedTuple):
    """An answer that goes out as a short message with a file."""

    lead: str
    """At most `LEAD_UNITS` units and a line that names the file."""
    file: Upload


def as_file(text: str, parts: Sequence[str], *, most: int = MOST_PARTS) -> LongAnswer | None:
    """The answer as its beginning and a file with the whole of `text`; None if its `parts` are at most `most`."""
    if len(parts) <= most:
        return None
    data = text.encode("utf-8", "replace")
    lead = f"{lead_of(text)}\n\n(The whole answer, {len(data) / 1000:.1f} kB, is in {ANSWER_FILE}.)"
    return LongAnswer(lead.lstrip(), Upload(ANSWER_FILE, data))


def lead_of(text: str, most: int = LEAD_UNITS) -> str:
    """The first paragraph, with the heading above it, cut to `most` units; any fence it leaves open is closed."""
    paragraphs = re.split(r"\n[^\S\n]*\n", text.strip(), maxsplit=2)
    headed = len(paragraphs) > 1 and re.fullmatch(r"#{1,6}\s.*", paragraphs[0]) is not None
    wanted = "\n".join(paragraphs[: 2 if headed else 1])
    parts = split(wanted, most - 2, None)
    if len(parts) < 2:
        return "".join(parts)
    return parts[0] + ("\n" if parts[0].endswith(MARKS) else " ") + _ELLIPSIS


def safe_name(name: str, default: str = "file") -> str:
    """`name` without a path, hidden characters, or anything that a file system or a shell takes for more than a name.

    At most 120 bytes in UTF-8, the ending kept; `default` if nothing is left. Two names may become the same.
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(" " if unicodedata.category(each) == "Zs" else each for each in name)
    name = "".join(each for each in name if unicodedata.category(each) not in _HIDDEN)
    name = _FORBIDDEN.sub("_", name).strip(" .-~").rstrip(" .")
    if not name.strip("_"):
        return default
    if _DEVICES.match(name):
        name = f"_{name}"
    ending = PurePosixPath(name).suffix
    ending = ending if len(ending.encode()) <= NAME_BYTES // 4 else ""
    stem = _cut(name.removesuffix(ending), NAME_BYTES - len(ending.encode())).rstrip(" .")
    return f"{stem}{ending}" if stem else default


def safe_names(names: Iterable[str], default: str = "file") -> list[str]:
    """Each name made safe, and none twice, whatever the case: `a.txt`, `A-2.txt`."""
    taken: set[str] = set()
    result: list[str] = []
    for name in names:
        wanted = safe_name(name, default)
        ending = PurePosixPath(wanted).suffix
        stem, free, count = wanted.removesuffix(ending), wanted, 1
        while free.casefold() in taken:
            count += 1
            free = f"{_cut(stem, NAME_BYTES - len(ending.encode()) - 5)}-{count}{ending}"
        taken.add(free.casefold())
        result.append(free)
    return result


def _cut(text: str, most: int) -> str:
    """At most so many bytes, between two characters as people see them."""
    end = len(text.encode()[:most].decode(errors="ignore"))
    return text[: boundary(text, 0, end)]
