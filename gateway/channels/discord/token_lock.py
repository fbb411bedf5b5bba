"""One token, one gateway: two bots with one token both connect and both answer.

The lock is a file of the user's, named by a hash of the token and held for the connection's life, so it works across
homes and clusters of one host and ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from pathlib import Path
from types import TracebackType

from protocols.errors import AtomizerError

TRIES = 100
"""Each but the last may meet a file that its holder removes at that moment; a file that is never the one that was
opened is a file system's that tells no two of them apart."""


class TokenTaken(AtomizerError):
    """Another agent of this host is connected with the same token; the message names it."""


class TokenLock:
    """Held inside `with`. Raises TokenTaken on entry, OSError if the folder cannot be used."""

    def __init__(self, token: str, agent: str, home: str, folder: Path | None = None) -> None:
        digest = hashlib.sha256(token.encode()).hexdigest()[:32]
        self._path = (folder or lock_folder()) / f"discord-{digest}"
        self._holder = {"agent": agent, "home": home}
        self._fd = -1

    def __enter__(self) -> TokenLock:
        for _ in range(TRIES):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read(fd)
                os.close(fd)
                raise TokenTaken(self._words(holder)) from None
            if self._is(fd):
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(self._holder).encode(), 0)
                self._fd = fd
                return self
            os.close(fd)  # its holder removed it as we opened it
        raise OSError(f"{self._path} is another file each time it is opened")

    def _is(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)

    def _words(self, holder: dict[str, str]) -> str:
        agent = holder.get("agent", "another agent")
        where = "" if holder.get("home") == self._holder["home"] else f" of the cluster in {holder.get('home')}"
        return (
            f"{agent}{where} is connected with the same Discord token, and both would answer every message; "
            f"make a bot of its own for {self._holder['agent']} in the portal and store that token"
        )


def lock_folder() -> Path:
    """The user's folder for things of this boot, whatever the environment says, so that all agree on one.

    Made if need be; raises OSError if it is not the user's own.
    """
    user = os.getuid()
    boot = Path(f"/run/user/{user}")
    path = boot / "atomizer" if os.access(boot, os.W_OK) else Path(tempfile.gettempdir()) / f"atomizer-{user}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.stat(follow_symlinks=False)
    if found.st_uid != user or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a folder of this user's alone (mode 0700)")
    return path


def _read(fd: int) -> dict[str, str]:
    """Who holds it; empty if the file does not say."""
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in holder.items()} if isinstance(holder, dict) else {}
