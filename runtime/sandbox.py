"""The sandbox of DESIGN section 12, from outside: what a command of an agent is granted, and how it is started in it.

`runtime/confine.py` is the inside. A command line made here starts any program in the sandbox: the shell's commands
and MCP servers alike.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from runtime.config_shell import ShellTable
from runtime.home import Home
from runtime.sharing import refusal

SCOPE = "ATOMIZER_SCOPE"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/etc", "/opt", "/nix/store", "/gnu/store")
_KERNEL = ("/proc", "/sys/devices/system/cpu", "/sys/devices/system/node")
"""Of other processes, /proc shows a command line and counters: environment, memory and open files are behind
Landlock's rule for ptrace."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
_KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR", SCOPE})
_NICE = 5
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Policy(msgspec.Struct, kw_only=True):
    """What `runtime/confine.py` is told, as JSON."""

    parent: int
    report: int
    """A descriptor that is told how it went, or -1."""
    confine: str
    """`bubblewrap` (which is part of the command), `off`, or anything else for Landlock."""
    read: list[str]
    write: list[str]
    network: bool
    processes: int
    memory: int
    file_size: int
    nice: int = _NICE


class Sandbox:
    """What one agent's commands may reach. Each command is granted what is there as it starts."""

    def __init__(self, home: Home, agent: str, workspace: Path, table: ShellTable) -> None:
        self._home = home
        self._agent = agent
        self._workspace = workspace
        self._table = table
        self._kind: str | None = None

    @property
    def kind(self) -> str:
        """`landlock`, `bubblewrap`, `off`, or `none` where nothing works. Found out once; this may take a moment."""
        wanted = self._table.sandbox
        if self._kind is None:
            if wanted == "off":
                self._kind = "off"
            elif wanted != "bubblewrap" and _landlock_works():
                self._kind = "landlock"
            elif wanted != "landlock" and _bubblewrap_works():
                self._kind = "bubblewrap"
            else:
                self._kind = "none"
        return self._kind

    def problem(self) -> str:
        """Why nothing can be started here, with the mend; empty if it can."""
        if self.kind != "none":
            return ""
        missing = {
            "auto": "this kernel has no Landlock, and there is no bwrap that works (install bubblewrap)",
            "landlock": "this kernel has no Landlock",
            "bubblewrap": "there is no bwrap that works (install bubblewrap)",
        }[self._table.sandbox]
        return f'{missing}; without a sandbox write [shell] sandbox = "off" (docs/security.md)'

    def command(
        self,
        command: Iterable[str],
        *,
        scratch: Path,
        report: int = -1,
        read: Iterable[str] = (),
        limits: bool = True,
    ) -> list[str]:
        """The argv that starts `command` in the sandbox, as a child of this process.

        `scratch` is its private temporary folder, `read` what else it may read (a server's own files). Without
        `limits`, the number of processes, memory and file sizes are left as they are.
        """
        table = self._table
        policy = Policy(
            parent=os.getpid(),
            report=report,
            confine=self.kind,
            read=[*self._readable(), *read] if self.kind == "landlock" else [],
            write=[*self._writable(), str(scratch)] if self.kind == "landlock" else [],
            network=table.network,
            processes=table.processes if limits else 0,
            memory=table.memory_mb * 2**20 if limits else 0,
            file_size=table.file_mb * 2**20 if limits else 0,
        )
        if self.kind == "bubblewrap":
            command = [*self._bubblewrap([*self._readable(), *read], [*self._writable(), str(scratch)]), *command]
        program = str(Path(__file__).with_name("confine.py"))
        return [sys.executable, "-I", "-S", "-B", program, msgspec.json.encode(policy).decode(), *command]

    def environment(self, source: Mapping[str, str], scratch: Path, **extra: str) -> dict[str, str]:
        """What a command sees: an allow-list of `source`, the table's `env`, and `extra`."""
        kept = {name: value for name, value in source.items() if name in _KEPT or name.startswith("LC_")}
        own = {"HOME": str(self._workspace), "TMPDIR": str(scratch), "TERM": "dumb", "ATOMIZER_AGENT": self._agent}
        return {"PATH": _PATH, **kept, **self._table.env, **own, **extra}

    def _readable(self) -> list[str]:
        """System folders without what lies in the home; the interpreter; the shared folder."""
        wide = [Path(path) for path in (*_SYSTEM, sys.prefix, sys.base_prefix)]
        found = [part for path in wide if path.exists() for part in _without(path.resolve(), self._home.root.resolve())]
        own = [*_KERNEL, *self._paths(self._table.read), str(self._home.shared)]
        return [*dict.fromkeys(map(str, found)), *own, *(_RESOLVERS if self._table.network else ())]

    def _writable(self) -> list[str]:
        """Nothing can be created at the top of the shared folder: Landlock could then not keep its files apart."""
        shared: list[str] = []
        try:
            with os.scandir(self._home.shared) as entries:
                for entry in entries:
                    if not entry.is_symlink() and not refusal(Path(entry.name), self._agent):
                        shared.append(entry.path)
        except OSError:
            pass
        return [str(self._workspace), *shared, *_DEVICES, *self._paths(self._table.write)]

    def _bubblewrap(self, read: list[str], write: list[str]) -> list[str]:
        """The same grants as name spaces: what is not bound is not there at all."""
        argv = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--unshare-all", "--cap-drop", "ALL"]
        argv += ["--share-net"] if self._table.network else []
        argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        binds = {path: "--ro-bind-try" for path in read if path != "/proc"}
        binds |= {path: "--bind-try" for path in write if not path.startswith("/dev/")}
        for path in sorted(binds):  # a folder comes before what is in it
            argv += [binds[path], path, path]
        for path in _SYSTEM:
            if os.path.islink(path):
                argv += ["--symlink", os.readlink(path), path]
        return [*argv, "--"]

    @staticmethod
    def _paths(texts: list[str]) -> list[str]:
        return [str(Path(text).expanduser()) for text in texts]


def _landlock_works() -> bool:
    from runtime import confine  # ctypes, which a gateway without a shell need not load

    return confine.landlock_abi() > 0 and confine.machine_known()


def _bubblewrap_works() -> bool:
    """Is it there, and may this user make name spaces?"""
    program = shutil.which("bwrap")
    if program is None:
        return False
    try:
        test = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"]
        return subprocess.run(test, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _without(path: Path, kept_out: Path) -> list[Path]:
    """`path`, or in its place its parts, so that `kept_out` is not among them."""
    if path.is_relative_to(kept_out):
        return []
    if not kept_out.is_relative_to(path):
        return [path]
    try:
        return [part for child in path.iterdir() if not child.is_symlink() for part in _without(child, kept_out)]
    except OSError:
        return []
