"""The home folder: where one cluster's files are, and how to write them so that none is ever half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from protocols.errors import AtomizerError

EXIT_CONFIG = 78
"""sysexits' EX_CONFIG: a local file is wrong; nothing restarts such a process."""
EXIT_PORT_TAKEN = 75
"""sysexits' EX_TEMPFAIL: somebody else holds our port; retried with backoff."""


class HomeError(AtomizerError):
    """The home folder is missing, or cannot be read or written."""


class Home:
    """Paths of one cluster. Knows where things are, not what is in them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"Home({str(self.root)!r})"

    @property
    def cluster_toml(self) -> Path:
        return self.root / "cluster.toml"

    @property
    def exists(self) -> bool:
        return self.cluster_toml.is_file()

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run(self) -> Path:
        """Pids, sockets and other things of this boot."""
        return self.root / "run"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def shared(self) -> Path:
        """The workspace all agents share."""
        return self.root / "workspaces" / "shared"

    @property
    def project_log(self) -> Path:
        return self.shared / "project_log.md"

    def instance(self, agent: str) -> Path:
        """The folder of `agent`'s own state; also its working folder."""
        return self.root / "instances" / agent

    def instance_toml(self, agent: str) -> Path:
        return self.instance(agent) / "instance.toml"

    def overrides_toml(self, agent: str) -> Path:
        return self.instance(agent) / "overrides.toml"

    def state_db(self, agent: str) -> Path:
        return self.instance(agent) / "state.db"

    def logs(self, agent: str) -> Path:
        return self.instance(agent) / "logs"

    def workspace(self, agent: str) -> Path:
        return self.root / "workspaces" / agent

    def require(self) -> Home:
        """Itself if a cluster is there; raises HomeError with the command that makes one."""
        if not self.exists:
            raise HomeError(f"no cluster at {self.root}; make one with `atomizer init --home {self.root}`")
        return self


def find_home(given: str | os.PathLike[str] | None = None) -> Home:
    """`given`, else ATOMIZER_HOME, else the platform's user data folder. The folder need not exist."""
    chosen = given or os.environ.get("ATOMIZER_HOME")
    if chosen:
        return Home(Path(chosen).expanduser().resolve())
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("atomizer", appauthor=False)))


def shipped_instances() -> Path:
    """The folder `instances/` as shipped: beside this package, in a checkout and in an installed wheel alike."""
    return Path(__file__).resolve().parent.parent / "instances"


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data` in one step: written beside it, fsynced, renamed.

    Raises OSError, which names `path`; `path` is then as before.
    """
    raw = data.encode() if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.new")
    try:
        _write_beside(path, beside, raw, mode)
    except OSError as error:
        error.filename = str(path)  # not the passing one beside it, and not nothing (a full disk names no file)
        raise
    sync_folder(path.parent)


def _write_beside(path: Path, beside: Path, raw: bytes, mode: int) -> None:
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)
            view = memoryview(raw)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename or creation in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def explain_os_error(error: OSError, what: str) -> str:
    """One plain line for a failed file operation: `what` could not be done, why, and what to do."""
    path = error.filename or "it"
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}: the disk is full{where}; free some space and try again"
    if error.errno == errno.EROFS:
        return f"{what}: {path} is on a read-only file system; remount it or choose another home with --home"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{what}: no permission for {path}; check its owner and mode, or choose another home with --home"
    return f"{what}: {error.strerror or error}{where}"
