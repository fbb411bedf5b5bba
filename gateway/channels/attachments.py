"""Files that come with a message: looked at before they are read, then kept in the workspace's `inbox/`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

from gateway.channels.channel import Attachment, Channel, ChannelError, Heard, Refusal
from gateway.channels.composing import File
from gateway.ledger.records import Picture
from gateway.models.outside import MAX_OUTSIDE
from gateway.models.pictures import kind_of
from protocols.errors import StorageFull
from protocols.runs import one_line

log = logging.getLogger("hearing")

MOST_FILES = 10
"""Of one message."""
TEXT_BYTES = 100_000
"""A text up to this size is read to the model at once; a longer one it reads with its tools."""
FOLDER = "inbox"
DAY_BYTES = 500_000_000
DAY_FILES = 2000
"""Of one day's folder: anybody who is heard can send files, and nobody is to fill the disk with them."""
PROGRAMS = frozenset(
    "apk app bat cmd com cpl deb dll dmg exe hta jar js jse lnk msi msix ps1 reg rpm scr sh so sys vb vbs wsf".split()
)
"""Endings of files that are programs: they are not taken in."""
_PROGRAM_TYPES = ("application/x-msdownload", "application/x-executable", "application/x-sh", "application/x-sharedlib")
_TRIES = (1.0, 3.0)
"""Seconds before a file that could not be fetched is fetched again."""
_NAME_CHARS = 80


class Inbox:
    """Takes attachments in for one agent."""

    def __init__(self, channel: Channel, workspace: Callable[[], Path]) -> None:
        self._channel = channel
        self._workspace = workspace

    async def receive(self, heard: Heard, most: int) -> list[File]:
        """Each file, kept or with the reason why not. `most`: bytes of one; 0 takes none. Raises StorageFull.

        Receiving the same message again finds what it kept before.
        """
        files: list[File] = []
        for attachment in heard.attachments[:MOST_FILES]:
            shown = sum(len(file.text) for file in files)
            files.append(await self._take(heard, attachment, most, MAX_OUTSIDE - shown))
        over = heard.attachments[MOST_FILES:]
        return files + [File(a.name, f"not taken in: more than {MOST_FILES} files in one message") for a in over]

    async def _take(self, heard: Heard, attachment: Attachment, most: int, room: int) -> File:
        """`room`: characters of it that are shown at most."""
        day = time.strftime("%Y-%m-%d", time.gmtime(heard.at))
        if problem := refused(attachment, most) or await asyncio.to_thread(
            no_room, self._workspace(), day, attachment.size
        ):
            log.info("%s of message %s is not taken in: %s", attachment.name, heard.id, problem)
            return File(attachment.name, f"not taken in: {problem}")
        try:
            data = await self._fetch(attachment, most)
        except ChannelError as error:
            log.warning("%s of message %s could not be fetched: %s", attachment.name, heard.id, error)
            return File(attachment.name, f"not taken in: it could not be fetched ({_plain(error)})")
        try:
            path = await asyncio.to_thread(keep, self._workspace(), day, file_name(attachment), data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"no room for {attachment.name}: {error.strerror}") from None
            log.error("%s of message %s could not be kept: %s", attachment.name, heard.id, error)
            return File(attachment.name, f"not taken in: it could not be kept ({error.strerror})")
        return await asyncio.to_thread(_described, attachment, path, data, room)

    async def _fetch(self, attachment: Attachment, most: int) -> bytes:
        for pause in _TRIES:
            try:
                return await self._channel.fetch(attachment, most)
            except Refusal:
                raise
            except ChannelError:
                await asyncio.sleep(pause)
        return await self._channel.fetch(attachment, most)


def _described(attachment: Attachment, path: str, data: bytes, room: int) -> File:
    """What the model is told of it. Not for the event loop: an image's header may be long."""
    size = f"{len(data) / 1000:.1f} kB, in your workspace as {path}"
    kind = kind_of(data)
    if isinstance(kind, str):
        picture = Picture(path, kind, hashlib.sha256(data).hexdigest())
        return File(attachment.name, f"an image, {size}", picture=picture)
    text = _as_text(data)
    if text is None:
        return File(attachment.name, size)
    if len(text) > room:
        return File(attachment.name, f"a text, {size}" + ("; its beginning:" if room else ""), text[:room])
    return File(attachment.name, f"a text, {size}", text)


def _plain(error: Exception) -> str:
    """An error may hold the file's name, which must not look like a line of ours."""
    return one_line("".join(c if c.isprintable() and c not in "[]" else " " for c in str(error)))


def refused(attachment: Attachment, most: int) -> str:
    """Why a file is not even read; empty if it may be."""
    if most <= 0:
        return "this agent takes no files ([discord] attachment_mb = 0)"
    if attachment.size > most:
        return f"{attachment.size / 1e6:.1f} MB, the most is {most / 1e6:g} MB ([discord] attachment_mb)"
    ending = file_name(attachment).rpartition(".")[2].lower()
    if ending in PROGRAMS or attachment.content_type.partition(";")[0].strip().lower() in _PROGRAM_TYPES:
        return "it is a program"
    return ""


def no_room(workspace: Path, day: str, size: int) -> str:
    """Why a day's folder takes no file of so many bytes more; empty if it does. Not for the event loop."""
    count = taken = 0
    with contextlib.suppress(OSError), os.scandir(workspace / FOLDER / day) as entries:
        for entry in entries:
            count += 1
            with contextlib.suppress(FileNotFoundError):
                taken += entry.stat(follow_symlinks=False).st_size
    return f"{FOLDER}/{day} is full" if count >= DAY_FILES or taken + size > DAY_BYTES else ""


def file_name(attachment: Attachment) -> str:
    """The name it is kept under: without anything a path, a shell or a terminal could take for more than a name."""
    stem, dot, ending = attachment.name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    if not dot:
        stem, ending = ending, ""
    stem = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._-")[:_NAME_CHARS] or "file"
    ending = re.sub(r"[^\w]+", "", ending, flags=re.ASCII)[:12]
    mark = re.sub(r"[^0-9A-Za-z]", "", attachment.id)[-6:] or "0"
    return f"{stem}-{mark}{'.' if ending else ''}{ending}"


def keep(workspace: Path, day: str, name: str, data: bytes) -> str:
    """Write the file whole or not at all, over nothing; its path in the workspace. Raises OSError.

    The agent's commands write in the workspace too, so no link on the way is followed.
    """
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    folders = [root]
    try:
        for part in (FOLDER, day):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folders[-1])
            folders.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folders[-1]))
        return f"{FOLDER}/{day}/{_place(folders[-1], name, data)}"
    finally:
        for folder in folders:
            os.close(folder)


def _place(folder: int, name: str, data: bytes) -> str:
    """Under `name`, or the next free one like it; a file that holds the same already is that file."""
    beside = f".{secrets.token_hex(8)}.part"
    out = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(out, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        stem, dot, ending = name.rpartition(".")
        for count in range(1, 1000):
            free = name if count == 1 else f"{stem}-{count}{dot}{ending}" if dot else f"{name}-{count}"
            try:
                os.link(beside, free, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if _holds(folder, free, data):
                    return free
            else:
                os.fsync(folder)
                return free
        raise OSError(errno.EEXIST, f"there are too many files named {name}")
    finally:
        os.unlink(beside, dir_fd=folder)


def _holds(folder: int, name: str, data: bytes) -> bool:
    try:
        there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(there, "rb") as file:
        found = os.fstat(file.fileno())
        return stat.S_ISREG(found.st_mode) and found.st_size == len(data) and file.read() == data


def _as_text(data: bytes) -> str | None:
    """What is in it, if it is text and not long."""
    if len(data) > TEXT_BYTES or b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
