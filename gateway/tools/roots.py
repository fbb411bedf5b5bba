"""The folders an agent's file tools may touch, and how a file in them is opened so that no link leads out of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePath

import msgspec

from gateway.agent.inside import NotPlain, open_folder, open_plain
from gateway.agent.tool import ToolError
from runtime.home import explain_os_error
from runtime.sharing import refusal

MAX_FILE = 2_000_000
"""Bytes of the largest file that is read or written."""
_LOCK_SECONDS = 5.0
_LOCKS = 64
"""Lock files; folders share them."""


class Place(msgspec.Struct, frozen=True):
    """A path that was found to lie in one of the roots when it was looked at."""

    shown: str
    """As the model wrote it."""
    root: Path
    inside: PurePath
    """Relative to the root, without links."""


class Roots:
    """Holds an agent to its workspace and the shared folder.

    A path is resolved first, so links within the roots work. Then it is opened part by part, following no link: one
    that is put there in between does not lead out, it fails.
    """

    def __init__(self, workspace: Path, shared: Path, agent: str, locks: Path) -> None:
        """`locks` is a folder that all agents of the host share and no command reaches."""
        self._locks = locks
        self._workspace = workspace
        self._shared = shared
        self._agent = agent

    def find(self, text: str) -> Place:
        """`text` as a place inside the roots; raises ToolError."""
        name = self._workspace.name
        plain = text.removeprefix("./")
        if plain == "shared" or plain.startswith("shared/"):
            candidate = self._shared / plain.removeprefix("shared").lstrip("/")
        elif plain.startswith(f"{name}/") and not (self._workspace / name).exists():
            candidate = self._workspace / plain.removeprefix(f"{name}/")
        else:
            candidate = self._workspace / plain
        try:
            real = candidate.resolve()
            for root in (self._workspace.resolve(), self._shared.resolve()):
                if real.is_relative_to(root):
                    return Place(shown=text, root=root, inside=real.relative_to(root))
        except (OSError, RuntimeError, ValueError) as error:  # a ring of links; a NUL
            raise ToolError(f"{text!r} is no path: {error}") from None
        raise ToolError(f"{text!r} is outside your workspace; you may use files of it and of shared/")

    def name_of(self, text: str) -> str:
        """The one name of what `text` leads to, as patterns are written: `notes/x.md`, `shared/x.md`; else `text`."""
        try:
            place = self.find(text)
        except ToolError:
            return text
        return str(PurePath("shared", place.inside) if place.root == self._shared.resolve() else place.inside)

    def find_for_change(self, text: str) -> Place:
        """As `find`, for a file that this agent may change; raises ToolError that says who may."""
        place = self.find(text)
        if not place.inside.parts:
            raise ToolError(f"{text!r} is a folder")
        if place.root == self._shared.resolve() and (why := refusal(place.inside, self._agent)):
            raise ToolError(why)
        return place

    @contextlib.contextmanager
    def folder(self, place: Place, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder `place`; `make` makes it and those above it. Raises ToolError."""
        with self._open_folder(place, place.inside.parts, make) as handle:
            yield handle

    @contextlib.contextmanager
    def parent(self, place: Place, *, make: bool = False, lock: bool = False) -> Iterator[int]:
        """A descriptor of the folder that `place` is in; with `lock`, for one change at a time by whoever it is."""
        with self._open_folder(place, place.inside.parts[:-1], make) as handle:
            if lock:
                with self._lock(handle, place):
                    yield handle
            else:
                yield handle

    @contextlib.contextmanager
    def _open_folder(self, place: Place, parts: tuple[str, ...], make: bool) -> Iterator[int]:
        try:
            handle = open_folder(place.root, parts, make=make)
        except OSError as error:
            raise _explain(error, place) from None
        try:
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _lock(self, folder: int, place: Place) -> Iterator[None]:
        """Not the folder itself is locked: whoever may read it could hold that, for as long as it likes."""
        about = os.fstat(folder)
        path = self._locks / f"folder-{(about.st_dev + about.st_ino) % _LOCKS}.lock"
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _explain(error, place) from None
        try:
            until = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise ToolError(f"somebody else is changing the folder of {place.shown!r}; try again") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def read(self, place: Place) -> bytes:
        """The bytes of a regular file of at most MAX_FILE; raises ToolError."""
        if not place.inside.parts:
            raise ToolError(f"{place.shown!r} is a folder; look into it with list_files")
        with self.parent(place) as folder:
            return read_in(folder, place)

    def size(self, text: str) -> int:
        """Bytes of the plain file `text`; raises ToolError."""
        place = self.find(text)
        if not place.inside.parts:
            raise ToolError(f"{text!r} is a folder")
        with self.parent(place) as folder:
            try:
                handle = open_plain(folder, place.inside.name)
            except NotPlain:
                raise ToolError(f"{text!r} is no plain file") from None
            except OSError as error:
                raise _explain(error, place) from None
            try:
                return os.fstat(handle).st_size
            finally:
                os.close(handle)


def read_in(folder: int, place: Place) -> bytes:
    """The file `place`, whose folder is open; raises ToolError."""
    try:
        with open(open_plain(folder, place.inside.name), "rb") as file:
            data = file.read(MAX_FILE + 1)
    except NotPlain as error:
        if error.errno == errno.EISDIR:
            raise ToolError(f"{place.shown!r} is a folder; look into it with list_files") from None
        raise ToolError(f"{place.shown!r} is no plain file") from None
    except OSError as error:
        raise _explain(error, place) from None
    if len(data) > MAX_FILE:
        raise ToolError(f"{place.shown!r} is larger than {MAX_FILE // 1_000_000} MB")
    return data


def replace_in(folder: int, place: Place, data: bytes) -> bool:
    """Put `data` in the place of the file, in one step; its mode stays. True if there was none. Raises ToolError."""
    name = place.inside.name
    beside = f".{os.getpid()}-{time.monotonic_ns()}.new"
    try:
        mode = None
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise ToolError(f"{place.shown!r} is no plain file, so it was left as it is")
            mode = stat.S_IMODE(found.st_mode) & 0o777
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(beside, flags, 0o644, dir_fd=folder), "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise
        os.fsync(folder)
    except OSError as error:
        raise _explain(error, place) from None
    return mode is None


def _explain(error: OSError, place: Place) -> ToolError:
    if error.errno == errno.ENOENT:
        return ToolError(f"there is no file {place.shown!r}")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return ToolError(f"{place.shown!r}: a part of it is no folder, or was exchanged meanwhile; look and try again")
    return ToolError(explain_os_error(error, place.shown))
