"""write_file and edit_file: whole files or nothing, in the workspace and the shared folder only."""

from __future__ import annotations

import difflib
from typing import Annotated

import msgspec

from gateway.agent.tool import Replay, ToolError, spec_of
from gateway.tools.paths import FilePath, FileTool
from gateway.tools.roots import MAX_FILE, Place, read_in, replace_in

_COMPARED_LINES = 2000
_COMPARED = 100
"""Lines, and characters of each, that are compared: it takes the square of the characters."""
_SHOWN_LINES = 6


class WriteArguments(msgspec.Struct, forbid_unknown_fields=True):
    path: FilePath
    content: Annotated[str, msgspec.Meta(description="All of the file's text")]


class EditArguments(msgspec.Struct, forbid_unknown_fields=True):
    path: FilePath
    old: Annotated[str, msgspec.Meta(min_length=1, description="Text that stands there once, exactly so")]
    new: Annotated[str, msgspec.Meta(description="What is to stand in its place")]
    all: Annotated[bool, msgspec.Meta(description="Replace it wherever it stands")] = False


class WriteFile(FileTool[WriteArguments]):
    """Writes a whole file, in one step. Repeating it changes nothing."""

    spec = spec_of(
        "write_file",
        "Write a whole text file of your workspace or of shared/; folders are made. Use edit_file for small changes.",
        WriteArguments,
    )
    arguments = WriteArguments
    replay = Replay.KEYED

    def work(self, asked: WriteArguments) -> str:
        place = self.roots.find_for_change(asked.path)
        data = _encode(asked.content, place)
        with self.roots.parent(place, make=True, lock=True) as folder:
            made = replace_in(folder, place, data)
        return f"{'made' if made else 'replaced'} {asked.path}: {len(asked.content.splitlines())} lines"


class EditFile(FileTool[EditArguments]):
    """Replaces one piece of a file. An edit that is already made changes nothing, so repeating it is safe."""

    spec = spec_of(
        "edit_file",
        "Replace a piece of text in a file. `old` must stand there exactly once; give more lines if it does not.",
        EditArguments,
    )
    arguments = EditArguments
    replay = Replay.KEYED

    def work(self, asked: EditArguments) -> str:
        if asked.old == asked.new:
            raise ToolError("`old` and `new` are the same: nothing to change")
        place = self.roots.find_for_change(asked.path)
        with self.roots.parent(place, lock=True) as folder:
            try:
                text = read_in(folder, place).decode()
            except UnicodeDecodeError:
                raise ToolError(f"{asked.path!r} is not UTF-8 text, so it cannot be edited") from None
            old, new = asked.old, asked.new
            if old not in text and "\r\n" in text:
                old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
            count = text.count(old)
            if _is_made(text, old, new):
                at = _line_of(text, new)
                return f"nothing was changed: `new` stands in {asked.path} already, at line {at}, and `old` no more"
            if count == 0:
                raise ToolError(f"`old` does not stand in {asked.path!r}. {nearest_text(text, old)}")
            if count > 1 and not asked.all:
                lines = ", ".join(str(n) for n in _lines_of(text, old)[:10])
                raise ToolError(
                    f"`old` stands {count} times in {asked.path!r} (lines {lines}): give more lines around it, or `all`"
                )
            if len(text) + count * (len(new) - len(old)) > MAX_FILE:  # before it is made: it may be gigabytes
                raise ToolError(f"{asked.path!r} would be larger than {MAX_FILE // 1_000_000} MB")
            first = _line_of(text, old)
            replace_in(folder, place, _encode(text.replace(old, new), place))
        times = f"{count} times, first " if count > 1 else ""
        return f"edited {asked.path}: {times}at line {first}"


def _is_made(text: str, old: str, new: str) -> bool:
    """Is there no `old` but within `new`? Then the edit was made before, by this call's first attempt or by another."""
    return text.count(new) == 1 and old not in text.replace(new, "\0") if new else False


def _lines_of(text: str, part: str) -> list[int]:
    found, at = [], text.find(part)
    while at >= 0:
        found.append(text.count("\n", 0, at) + 1)
        at = text.find(part, at + len(part))
    return found


def _line_of(text: str, part: str) -> int:
    return text.count("\n", 0, text.find(part)) + 1


def nearest_text(text: str, old: str) -> str:
    """The part of `text` most like `old`, with line numbers, for a model to see what it got wrong."""
    lines = text.splitlines()
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:_COMPARED]
    plain = [line.strip()[:_COMPARED] for line in lines[:_COMPARED_LINES]]
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.5) if wanted else []
    if not close:
        return "Nothing like it stands there; read the file again."
    at = plain.index(close[0])
    shown = lines[at : at + min(_SHOWN_LINES, max(1, len(old.splitlines())))]
    why = "The same line stands there, so look at white space and at the lines after it" if close[0] == wanted else ""
    listed = "\n".join(f"{n:>5}  {line[:300]}" for n, line in enumerate(shown, start=at + 1))
    return f"{why or 'Nearest'}:\n{listed}"


def _encode(text: str, place: Place) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ToolError("the text holds half a character (a lone surrogate); write it again") from None
    if len(data) > MAX_FILE:
        raise ToolError(f"{place.shown!r} would be larger than {MAX_FILE // 1_000_000} MB")
    return data
