"""Making a home from the shipped cluster: only what is missing, each file whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from protocols.errors import AtomizerError
from protocols.registry import AGENTS
from runtime.config import ConfigError, load_placements
from runtime.home import Home, explain_os_error, shipped_instances, write_atomic
from runtime.secrets import API_KEY, PROVIDERS, Secrets

NOT_FOR_WORKSPACES = ("instance.toml", "avatar.png")
"""A bot's picture is set from the shipped file: in a workspace the agent could exchange it."""
FIRST_PORT = 18800
"""The base port of the first shipped agent; `--ports` moves all families by the difference to it."""
HELD_SECONDS = 10.0
"""What one command that changes the home does takes a moment."""

_PORT = re.compile(r"^(port\s*=\s*)(\d+)", re.M)
_PROFILE = re.compile(r'^profile\s*=\s*"offline"', re.M)


class FoundationError(AtomizerError):
    """The home could not be made; nothing half-written is left."""


class Founded(msgspec.Struct):
    """What `found` did."""

    home: str
    created: list[str]
    """Files, relative to the home."""
    profile: str
    agents: list[str]
    had_cluster: bool


class _Builder:
    """Writes what is missing, and can take it all back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[Path] = []
        self.scratch: list[Path] = []
        """Made as well, but not worth telling."""
        self._folders: list[Path] = []

    def folder(self, path: Path, mode: int = 0o755) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for new in reversed(missing):
            with contextlib.suppress(FileExistsError):
                new.mkdir(mode=mode)
                self._folders.append(new)

    def file(self, path: Path, data: str | bytes, mode: int = 0o644) -> None:
        if path.exists():
            return
        self.folder(path.parent)
        write_atomic(path, data, mode=mode)
        self.files.append(path)

    @contextlib.contextmanager
    def watched(self, folder: Path) -> Iterator[None]:
        """Whatever another writes into `folder` meanwhile counts as made here."""
        before = set(folder.rglob("*"))
        try:
            yield
        finally:
            for path in sorted(set(folder.rglob("*")) - before):
                (self._folders if path.is_dir() else self.files).append(path)

    def undo(self) -> None:
        for path in [*reversed(self.files), *self.scratch]:
            with contextlib.suppress(OSError):
                path.unlink()
        for path in reversed(self._folders):
            with contextlib.suppress(OSError):
                path.rmdir()


def found(home: Home, first_port: int | None = None) -> Founded:
    """Make or complete `home`. Raises FoundationError (nothing half-written is left) or ConfigError."""
    had_cluster = home.exists
    build = _Builder(home.root)
    try:
        build.folder(home.root, 0o700)
        os.chmod(home.root, 0o700)
        with locked(home, build):
            profile, agents = _build(home, build, first_port)
    except OSError as error:
        build.undo()
        raise FoundationError(explain_os_error(error, f"cannot make a home at {home.root}")) from None
    except BaseException:
        build.undo()
        raise
    return Founded(
        home=str(home.root),
        created=[str(path.relative_to(home.root)) for path in build.files],
        profile=profile,
        agents=agents,
        had_cluster=had_cluster,
    )


@contextlib.contextmanager
def locked(home: Home, build: _Builder | None = None, *, seconds: float = HELD_SECONDS) -> Iterator[None]:
    """One at a time among those who make, add or remove. Raises OSError; FoundationError if another stays `seconds`."""
    if build is not None:
        build.folder(home.run, 0o700)
    else:
        home.run.mkdir(mode=0o700, exist_ok=True)
    path = home.run / "home.lock"
    if build is not None and not path.exists():
        build.scratch.append(path)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(lock, path, seconds)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise FoundationError(
                    f"{path} has been held for {seconds:g} s by another atomizer command, which may be suspended"
                    f" (`fg`, or `lsof {path}` finds it); try again when it has ended"
                ) from None
            time.sleep(0.02)


def _build(home: Home, build: _Builder, first_port: int | None) -> tuple[str, list[str]]:
    import tomllib

    shipped = shipped_instances()
    text = home.cluster_toml.read_text() if home.exists else _cluster_text(shipped, home, first_port)
    try:
        parsed = tomllib.loads(text)
        names = list(parsed.get("agents", {}))
        profile = str(parsed.get("models", {}).get("profile", "offline"))
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise ConfigError(f"{home.cluster_toml}: not valid TOML: {error}") from None
    placements = load_placements(home)
    agents = [name for name in dict.fromkeys([*names, *placements.agents]) if name not in placements.removed]
    for name in agents:
        _agent(home, build, shipped / name, name)
    ports = _moved_ports(parsed.get("agents", {}))
    for source in sorted((shipped / "shared").rglob("*")):
        if source.is_file():
            data = _with_ports(source.read_text(), ports) if source.suffix == ".md" else source.read_bytes()
            build.file(home.shared / source.relative_to(shipped / "shared"), data)
    for source in sorted((shipped / "workflows").glob("*.y*ml")):
        build.file(home.root / "workflows" / source.name, source.read_bytes())
    build.folder(home.secrets, 0o700)
    with build.watched(home.secrets):
        Secrets(home).ensure_tokens(["operator", "viewer", *agents])
    # Last: a home is one once its cluster.toml is there.
    build.file(home.cluster_toml, text)
    return profile, agents


def _moved_ports(agents: dict[str, dict[str, object]]) -> dict[str, str]:
    """Shipped port -> this cluster's, for agents that listen elsewhere: the shared pages are to tell the truth."""
    return {
        str(entry.port): str(agents[entry.name]["port"])
        for entry in AGENTS
        if agents.get(entry.name, {}).get("port", entry.port) != entry.port
    }


def _with_ports(text: str, moved: dict[str, str]) -> str:
    return re.sub(r"\b\d{5}\b", lambda found: moved.get(found.group(), found.group()), text)


def _agent(home: Home, build: _Builder, shipped: Path, name: str) -> None:
    build.folder(home.instance(name))
    build.folder(home.logs(name), 0o700)
    if not shipped.is_dir():
        return
    build.file(home.instance_toml(name), (shipped / "instance.toml").read_bytes())
    workspace = home.workspace(name)
    build.folder(workspace / "memory")
    for source in sorted(shipped.rglob("*")):
        if source.is_file() and source.name not in NOT_FOR_WORKSPACES:
            build.file(workspace / source.relative_to(shipped), source.read_bytes())


def _cluster_text(shipped: Path, home: Home, first_port: int | None) -> str:
    text = (shipped / "cluster.toml").read_text()
    if first_port is not None:
        move = first_port - FIRST_PORT
        text = _PORT.sub(lambda match: f"{match[1]}{int(match[2]) + move}", text)
        import tomllib

        from protocols.registry import RegistryError, check_families, check_reserved

        ports = {name: int(placed["port"]) for name, placed in tomllib.loads(text)["agents"].items()}
        try:
            check_families(ports)
            check_reserved(ports)
        except RegistryError as error:
            raise RegistryError(f"--ports {first_port} does not do: {error}") from None
    if any(Secrets(home).get(provider, API_KEY) for provider in PROVIDERS):
        text = _PROFILE.sub('profile = "live"', text)
    return text
