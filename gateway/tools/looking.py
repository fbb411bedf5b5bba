"""Looking through a folder: a walk that follows no link, names by pattern, lines by regular expression.

Also a program, `python -I -S -B looking.py QUERY`, since a regular expression may take for ever and cannot be stopped
within a process. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase

SKIPPED = frozenset({".git", ".hg", "__pycache__", "node_modules", ".venv"})
MAX_ENTRIES = 50_000
"""Files and folders looked at in one walk."""
MAX_DEPTH = 40
"""Folders inside each other: each that is open costs a descriptor."""
SECONDS = 10
"""The longest one search takes; with the gateway gone, nobody else would end it."""
_MAX_BYTES = 2_000_000
_MAX_LINE = 300


def walk(folder: int) -> Iterator[tuple[str, os.stat_result, int]]:
    """(path, what it is, its folder's descriptor) of what is below the open `folder`, sorted, links not followed."""
    left = MAX_ENTRIES
    for where, folders, files, handle in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        deepest = where.count("/") >= MAX_DEPTH
        for name in sorted([*folders, *files]):
            left -= 1
            if left < 0:
                return
            try:
                found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            except OSError:
                continue
            yield os.path.normpath(os.path.join(where, name)), found, handle
        if deepest:
            folders.clear()


def shown(path: str) -> str:
    """`path` on one line: a name may hold line ends, by which one file would pass for two, and what is no UTF-8."""
    return path if path.isprintable() else repr(path)[1:-1]


def fits(path: str, pattern: str) -> bool:
    """Does `path` fit the glob? `**` is any number of folders; a pattern without `/` is about the last name only."""
    if "/" not in pattern:
        return fnmatchcase(path.rpartition("/")[2], pattern)
    parts, wanted = path.split("/"), pattern.split("/")
    known: dict[tuple[int, int], bool] = {}

    def rest(i: int, j: int) -> bool:
        if (i, j) not in known:
            if j == len(wanted):
                known[i, j] = i == len(parts)
            elif wanted[j] == "**":
                known[i, j] = rest(i, j + 1) or (i < len(parts) and rest(i + 1, j))
            else:
                known[i, j] = i < len(parts) and fnmatchcase(parts[i], wanted[j]) and rest(i + 1, j + 1)
        return known[i, j]

    return rest(0, 0)


def search(folder: int, pattern: str, glob: str, limit: int, flags: int) -> tuple[list[tuple[str, int, str]], int]:
    """((path, line number, line) of the first `limit` lines that match, number of files looked into)."""
    expression = re.compile(pattern, flags)
    hits: list[tuple[str, int, str]] = []
    files = 0
    for path, found, handle in walk(folder):
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES or not fits(path, glob):
            continue
        try:
            opened = os.open(os.path.basename(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        except OSError:
            continue
        with open(opened, "rb") as file:
            data = file.read(_MAX_BYTES)
        if b"\0" in data[:8192]:
            continue
        files += 1
        for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
            if expression.search(line):
                hits.append((shown(path), number, line.strip()[:_MAX_LINE]))
                if len(hits) >= limit:
                    return hits, files
    return hits, files


def main() -> None:
    signal.alarm(SECONDS + 5)
    query = json.loads(sys.argv[1])
    try:
        hits, files = search(query["folder"], query["pattern"], query["glob"], query["limit"], query["flags"])
        answer = {"hits": hits, "files": files, "error": ""}
    except (re.error, RecursionError, OverflowError) as error:
        answer = {"hits": [], "files": 0, "error": f"{query['pattern']!r} is no regular expression: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
