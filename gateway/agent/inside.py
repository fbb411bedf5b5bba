"""Opening files that an agent's own commands may have exchanged: nothing leads out of its folders, nothing waits.

A command can put a link, a pipe or a folder in the place of any file of the workspace. The gateway, which may read
everything, must not follow the one, hang on the other, or read what has no end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_DEPTH = 40
"""Folders inside each other that a walk goes down into: deeper ones are made, not grown."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Without waiting: a pipe that nobody writes to would hold us for good."""


class NotPlain(OSError):
    """A link, a pipe, a folder or a device where a plain file was expected."""


def open_folder(root: Path, parts: Sequence[str], *, make: bool = False) -> int:
    """A descriptor of the folder `parts` below `root`, following no link below it; `make` makes it. Raises OSError."""
    handle = os.open(root, _FOLDER)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            below = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_plain(folder: int, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the plain file `name` in the open `folder`; raises OSError, NotPlain if it is none."""
    handle = os.open(name, flags | _PLAIN, 0o644, dir_fd=folder)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise NotPlain(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "it is no plain file", name)
    return handle


def read_inside(path: Path, roots: Sequence[Path], limit: int) -> bytes:
    """At most `limit` bytes of the plain file `path`, which may be a link but not out of `roots`; raises OSError."""
    try:
        real = path.resolve()
    except RuntimeError:  # a ring of links
        raise NotPlain(errno.ELOOP, "it is a ring of links", str(path)) from None
    for root in roots:
        base = root.resolve()
        if real.is_relative_to(base) and real != base:
            *folders, name = real.relative_to(base).parts
            folder = open_folder(base, folders)
            try:
                with open(open_plain(folder, name), "rb") as file:
                    return file.read(limit)
            finally:
                os.close(folder)
    raise NotPlain(errno.EPERM, "it leads out of the folder by a link", str(path))


def walk_files(root: Path, most: int) -> Iterator[Path]:
    """Files below `root`, sorted, hidden ones and links to folders left out; at most `most`, none too deep."""
    depth = len(root.parts)
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if len(here.parts) - depth < MAX_DEPTH else []
        for name in sorted(names):
            if most <= 0:
                return
            most -= 1
            yield here / name
