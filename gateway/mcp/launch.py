"""What is started for an MCP server on stdio, where, and with which environment; and the headers of one over HTTP."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from protocols.errors import AtomizerError
from runtime.config_reach import McpTable
from runtime.config_shell import ShellTable
from runtime.home import Home
from runtime.sandbox import Sandbox


class LaunchError(AtomizerError):
    """The server cannot be started as it is configured; says what to change."""


class Launch(msgspec.Struct, frozen=True):
    """A program to start: `argv` in `cwd` with exactly `env`."""

    argv: list[str]
    env: dict[str, str]
    cwd: str


class Launcher:
    """Turns a server's table into what is started. All stdio servers go through here, and so through the sandbox."""

    def __init__(
        self,
        home: Home,
        agent: str,
        workspace: Path,
        shell: ShellTable,
        secret: Callable[[str, str], str | None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`secret(owner, name)` is a secret's value, or None."""
        self._home = home
        self._agent = agent
        self._workspace = workspace
        self._shell = shell
        self._secret = secret
        self._environ = environ

    def prepare(self, name: str, table: McpTable) -> Launch:
        """Raises LaunchError."""
        granted = msgspec.structs.replace(
            self._shell,
            network=table.network,
            read=[*self._shell.read, *table.read],
            write=[*self._shell.write, *table.write],
        )
        sandbox = Sandbox(self._home, self._agent, self._workspace, granted)
        if problem := sandbox.problem():
            raise LaunchError(f"it would run without a sandbox: {problem}")
        tools = self._home.root / "tools"
        cwd = self._home.root / Path(table.cwd).expanduser() if table.cwd else self._workspace
        if not cwd.is_dir():
            raise LaunchError(f"its working folder {cwd} is missing ([mcp.{name}] cwd)")
        scratch = self._home.run / "tmp" / self._agent / f"mcp-{name}"
        try:
            scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LaunchError(f"its folder for passing files cannot be made: {error.strerror} ({scratch})") from None
        given = {key: self._environ[key] for key in table.pass_env if key in self._environ}
        env = sandbox.environment(self._environ, scratch, **given, **table.env)
        env.update(self.secrets(name, table))
        command = [str(Path(table.command[0]).expanduser()), *table.command[1:]]
        if shutil.which(command[0], path=env["PATH"]) is None and not (cwd / command[0]).is_file():
            raise LaunchError(f"there is no program {command[0]!r} ([mcp.{name}] command)")
        readable = [str(path) for path in (cwd, tools) if path.is_dir() and not self._is_private(path)]
        argv = sandbox.command(command, scratch=scratch, read=readable, limits=False)
        return Launch(argv=argv, env=env, cwd=str(cwd))

    def headers(self, name: str, table: McpTable) -> dict[str, str]:
        """The request headers of a server over HTTP; raises LaunchError."""
        found = self.secrets(name, table)
        for key, value in found.items():
            if key.lower() == "authorization" and " " not in value:
                found[key] = f"Bearer {value}"
        return found

    def secrets(self, name: str, table: McpTable) -> dict[str, str]:
        """Variable or header -> secret; raises LaunchError naming one that is not there."""
        found: dict[str, str] = {}
        for key, path in table.secrets.items():
            owner, _, word = path.partition("/")
            value = self._secret(owner, word)
            if value is None:
                raise LaunchError(
                    f"there is no secret {path} ([mcp.{name}] secrets): store it in secrets/{path}, mode 0600"
                )
            found[key] = value
        return found

    def _is_private(self, path: Path) -> bool:
        """Whether `path` would open what no tool server may see."""
        real = path.resolve()
        private = [self._home.secrets, self._home.root / "instances", self._home.run, self._home.root / "workspaces"]
        return any(p.resolve().is_relative_to(real) or real.is_relative_to(p.resolve()) for p in private)
