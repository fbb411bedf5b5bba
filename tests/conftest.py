"""Fixtures every room shares: a home of one's own, with leased ports, that leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.supervisors import processes
from cluster.supervisors.records import Desired, load_record, save_desired
from cluster.supervisors.supervisor import LOCK
from runtime.home import Home
from runtime.secrets import Secrets
from tests.ports import Lease

DEFAULT_RULES = {
    "manager": ["*"],
    "tech-lead": ["*", "!manager"],
    "optimizer": ["study-builder", "nx-expert", "post-processor"],
}


class ClusterHome:
    """One temporary home. Its agents are those asked for, each on a leased port family."""

    def __init__(self, agents: tuple[str, ...], extra_toml: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="atomizer-test-"))
        self.home = Home(self.folder / "home")
        self.lease = Lease(len(agents))
        self.ports = dict(zip(agents, self.lease.ports, strict=True))
        self.home.root.mkdir(mode=0o700)
        self.home.cluster_toml.write_text(self._toml(extra_toml))
        self.cli("init")

    @property
    def root(self) -> Path:
        return self.home.root

    def _toml(self, extra: str) -> str:
        lines = ['name = "test"', "[models]", 'profile = "offline"', "[authority]"]
        for name, rule in DEFAULT_RULES.items():
            kept = [entry for entry in rule if entry == "*" or entry.removeprefix("!") in self.ports]
            if name in self.ports:
                lines.append(f"{name} = {json.dumps(kept)}")
        for name, port in self.ports.items():
            lines += [f"[agents.{name}]", f"port = {port}"]
        return "\n".join([*lines, extra, ""])

    def token(self, owner: str = "operator") -> str:
        return Secrets(self.home).token(owner)

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """`atomizer ARGUMENTS` in a process of its own, whatever it ends with."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "cluster.cli", *arguments],
            env={**os.environ, "ATOMIZER_HOME": str(self.root), **environment},
            cwd="/",
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=120,
        )

    def cli(self, *arguments: str, stdin: str | None = None) -> str:
        """Its stdout; fails the test if it ends with anything but 0."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"atomizer {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """Its answer with --json."""
        return json.loads(self.cli(*arguments, "--json", stdin=stdin))

    def use_program(self, *program: str) -> None:
        """Another program in the gateway's place, for this home."""
        save_desired(self.home, Desired(program=list(program)))

    def pid(self, agent: str) -> int | None:
        """The gateway's pid, from the supervisor's record."""
        record = load_record(self.home, agent)
        return record.pid if record else None

    def supervisor_pid(self) -> int | None:
        """The supervisor that holds this home's lock, if it lives."""
        try:
            pid = int((self.home.run / LOCK).read_text())
        except (OSError, ValueError):
            return None
        return pid if str(self.root) in processes.command_of(pid) else None

    def processes(self) -> list[int]:
        """Pids of everything of this cluster: supervisor, gateways, and what they started."""
        supervisor = self.supervisor_pid()
        return [process.pid for process in processes.scoped(self.home)] + ([supervisor] if supervisor else [])

    def close(self) -> None:
        """End by pid whatever is left, give the ports back, remove the folder."""
        supervisor = self.supervisor_pid()
        if supervisor is not None:
            below = processes.descendants([supervisor])
            os.kill(supervisor, signal.SIGKILL)
        else:
            below = []
        for process in [*processes.scoped(self.home), *below]:
            processes.send(process, signal.SIGKILL)
        processes.sweep(self.home, also=below)
        self.lease.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def make_home() -> Iterator[Callable[..., ClusterHome]]:
    """Makes homes: `make_home("webster", "manager", extra_toml="...")`. Nothing runs in them yet."""
    made: list[ClusterHome] = []

    def make(*agents: str, extra_toml: str = "") -> ClusterHome:
        made.append(ClusterHome(agents or ("webster",), extra_toml))
        return made[-1]

    yield make
    for home in made:
        home.close()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[ClusterHome]:
    """One running cluster (manager, webster) of real gateways, for tests that leave it as they found it."""
    home = ClusterHome(("manager", "webster"))
    try:
        home.cli("start")
        yield home
    finally:
        home.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a stand-in of the model servers that gives these replies: `serve(Reply(...), ...)`, a ModelProcess."""
    from tests.e2e.models import ModelProcess

    made: list[ModelProcess] = []

    def start(*replies: Any) -> ModelProcess:
        made.append(ModelProcess(tmp_path, *replies))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def discord_server() -> Iterator[Any]:
    """A local Discord as a process of its own: a `tests.standins.discord.DiscordProcess`, still without a guild."""
    from tests.standins.discord import DiscordProcess

    with DiscordProcess() as server:
        yield server
