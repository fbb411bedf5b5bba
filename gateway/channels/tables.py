"""Markdown tables, which Discord and Slack show as raw pipes, made readable: `readable`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import Literal, NamedTuple

from gateway.channels.fences import Fence, fence_opened_by
from gateway.channels.measure import cells, padded

WIDTH = 80
"""Cells: a wider block of code wraps in Discord's window."""
COLUMN_GAP = "  "
NOTHING = "-"
"""Stands for an empty cell in a record."""

Side = Literal["left", "right", "center"]

_DELIMITERS = re.compile(r"[ \t]*+\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+\|?[ \t\r]*+")
_TOKEN = re.compile(r"\\.|`++|\|")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# In a block of code no link can be followed and no mention is resolved.
_LIVE = re.compile(r"https?://|\]\(|<[@#:/at]|```|~~~")
_WHOLLY_MARKED = re.compile(r"(\*\*|__|`)(?P<inner>(?:(?!\1).)++)\1")
_OTHER_BLOCK = re.compile(r"[ \t]*(?:#{1,6}\s|>)")


class Table(NamedTuple):
    """One table: cells as text, `|` no longer escaped. Rows may be shorter or longer than the header."""

    header: list[str]
    sides: list[Side]
    rows: list[list[str]]


def readable(text: str, width: int = WIDTH) -> str:
    """`text` with each Markdown table as an aligned block of code at most `width` cells wide.

    A table that is wider, or that holds links, becomes a list of records, one "**Header**: value" to a line. Tables in
    code fences, and all else, stay byte for byte as they are. A row is a line with a pipe: a table ends before the
    first line without.
    """
    if "|" not in text or "-" not in text:
        return text
    return "\n".join(_lines(text.split("\n"), width))


def _lines(lines: list[str], width: int) -> Iterator[str]:
    fence: Fence | None = None
    index = 0
    while index < len(lines):
        line = lines[index]
        if fence is not None:
            fence = None if fence.closed_by(line) else fence
        elif (opened := fence_opened_by(line)) is not None:
            fence = opened
        elif index + 1 < len(lines) and (heads := _heads(line, lines[index + 1])) is not None:
            stop = index + 2
            while stop < len(lines) and _is_row(lines[stop]):
                stop += 1
            header, sides = heads
            table = Table(header, sides, [_cells(row, len(header)) for row in lines[index + 2 : stop]])
            yield from _aligned(table, width) or _records(table)
            index = stop
            continue
        yield line
        index += 1


def _heads(line: str, delimiters: str) -> tuple[list[str], list[Side]] | None:
    """The header's cells and the columns' sides, if these two lines begin a table."""
    if "|" not in line or "-" not in delimiters or not _is_row(line) or not _DELIMITERS.fullmatch(delimiters):
        return None
    sides = [_side(cell) for cell in _cells(delimiters, 0)]
    header = _cells(line, len(sides))
    return (header, sides) if len(header) == len(sides) and ("|" in delimiters or len(sides) > 1) else None


def _side(delimiter: str) -> Side:
    if delimiter.endswith(":"):
        return "center" if delimiter.startswith(":") else "right"
    return "left"


def _is_row(line: str) -> bool:
    return "|" in line and fence_opened_by(line) is None and _OTHER_BLOCK.match(line) is None


def _cells(row: str, expected: int) -> list[str]:
    """A row's cells. Pipes in inline code belong to it, though GFM says otherwise, unless that gives too few cells."""
    found = _divided(row, code=True)
    if len(found) < expected and len(plain := _divided(row, code=False)) == expected:
        return plain
    return found


def _divided(row: str, *, code: bool) -> list[str]:
    row = row.strip()
    tokens = list(_TOKEN.finditer(row))
    runs: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if token[0][0] == "`":
            runs[token[0]] = number
    cuts: list[int] = []
    inside: str | None = None
    for number, token in enumerate(tokens):
        mark = token[0]
        if mark[0] == "`" and code:
            if inside is None and runs[mark] > number:
                inside = mark
            elif inside == mark:
                inside = None
        elif mark == "|" and inside is None:
            cuts.append(token.start())
    edges = [-1, *cuts, len(row)]
    found = [row[start + 1 : stop] for start, stop in pairwise(edges)]
    if len(found) > 1 and not found[0]:
        del found[0]
    if len(found) > 1 and not found[-1]:
        del found[-1]
    return [cell.strip().replace("\\|", "|").replace("\t", " ") for cell in found]


# -- as a block of code ----------------------------------------------------------------------------------------------


def _aligned(table: Table, width: int) -> list[str] | None:
    """In columns; None if that is too wide or would kill a link."""
    rows = [[_unmarked(cell) for cell in row] for row in (table.header, *table.rows)]
    if any(_LIVE.search(cell) for row in rows for cell in row):
        return None
    physical = [[_BREAK.split(cell) for cell in row] for row in rows]
    columns = max(len(row) for row in physical)
    widths = [0] * columns
    for row in physical:
        for column, parts in enumerate(row):
            widths[column] = max(widths[column], *(cells(part.strip()) for part in parts))
    if sum(widths) + len(COLUMN_GAP) * (columns - 1) > width:
        return None
    sides = list(table.sides)
    sides.extend("left" for _ in range(columns - len(sides)))
    written = [line for row in physical for line in _row(row, widths, sides)]
    height = max(len(parts) for parts in physical[0])
    rule = COLUMN_GAP.join("-" * size for size in widths).rstrip()
    return ["```", *written[:height], rule, *written[height:], "```"]


def _row(row: list[list[str]], widths: list[int], sides: list[Side]) -> Iterator[str]:
    for parts in zip_longest(*row, fillvalue=""):
        yield COLUMN_GAP.join(
            padded(part.strip(), size, side) for part, size, side in zip(parts, widths, sides, strict=False)
        ).rstrip()


def _unmarked(cell: str) -> str:
    """Without the bold or code marks around all of it, which a block of code would show."""
    found = _WHOLLY_MARKED.fullmatch(cell)
    return found["inner"].strip() if found is not None and found["inner"].strip() else cell


# -- as records ------------------------------------------------------------------------------------------------------


def _records(table: Table) -> Iterator[str]:
    rows = [row for row in table.rows if any(row)]
    if not rows:
        yield ", ".join(_bold(head) for head in table.header if head)
        return
    for number, row in enumerate(rows):
        if number:
            yield ""
        for head, cell in zip_longest(table.header, row, fillvalue=""):
            value = _BREAK.sub("\n", cell) or NOTHING
            if head or cell:
                yield f"{_bold(head)}: {value}" if head else value


def _bold(head: str) -> str:
    plain = _BREAK.sub(" ", _unmarked(head))
    return plain if "*" in plain else f"**{plain}**"
