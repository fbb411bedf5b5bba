"""What every command shares: which home, which form of output, and how failure is told."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from cluster.cli import exits
from protocols.errors import AtomizerError
from protocols.text import printable

if TYPE_CHECKING:
    from cluster.supervisors.supervisor import SupervisorClient
    from protocols.ask import Ask
    from runtime.config import AgentSpec, Cluster
    from runtime.home import Home

_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON lets stand as it is, and a terminal obeys or turns around; below a space it is escaped by itself."""

_LISTED_BY = {
    "unknown_session": "sessions {}",
    "unknown_schedule": "schedule {}",
    "unknown_letter": "deadletters {}",
    "unknown_run": "runs {}",
}
"""Code of a refusal -> the command that shows what there is, for those whose message names the HTTP call."""

P = ParamSpec("P")
R = TypeVar("R")


class CommandFailure(AtomizerError):
    """A command that ends with `exit_code`. `code` is a stable snake_case word for scripts."""

    def __init__(self, message: str, exit_code: int = exits.FAILED, code: str = "failed") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code


class Invocation:
    """One call of the command: filled from the options, wherever they stood."""

    def __init__(self) -> None:
        self.home_given: Path | None = None
        self.json = False
        self._asked: str | None = None
        """The agent that was asked last."""

    @property
    def home(self) -> Home:
        from runtime.home import find_home

        return find_home(self.home_given)

    @functools.cached_property
    def cluster(self) -> Cluster:
        """The cluster of this home; a supervisor that should run and does not is started again first."""
        from runtime.config import load_cluster

        cluster = load_cluster(self.home)
        self.revived = self.revive()
        return cluster

    revived = False

    def supervisor(self) -> SupervisorClient:
        from cluster.supervisors.supervisor import SupervisorClient

        return SupervisorClient(self.home)

    def revive(self) -> bool:
        """Start a supervisor that is dead although its cluster is meant to be up; true if that was so."""
        from cluster.supervisors.records import load_desired

        if not load_desired(self.home).agents:
            return False
        from cluster.supervisors.supervisor import SupervisorError
        from runtime.home import explain_os_error

        try:
            if not self.supervisor().ensure():
                return False
        except SupervisorError as error:
            self.note(str(error))
            return False
        except OSError as error:
            self.note(explain_os_error(error, "the supervisor is dead and cannot be started"))
            return False
        self.note("the supervisor had died; it runs again and looks after its agents")
        return True

    def agent(self, name: str) -> AgentSpec:
        """The agent called `name`; raises CommandFailure (usage) naming the nearest one."""
        from runtime.config import ConfigError

        cluster = self.cluster
        try:
            return cluster.agent(name)
        except ConfigError as error:
            raise CommandFailure(str(error), exits.USAGE, "no_such_agent") from None

    def ask(self, name: str, *, timeout: float = 5.0) -> Ask:
        """The client of one agent's gateway, as the operator."""
        from protocols.ask import Ask
        from runtime.secrets import Secrets

        spec = self.agent(name)
        self._asked = name
        host = "127.0.0.1" if spec.host in ("0.0.0.0", "::") else spec.host
        return Ask(spec.port, Secrets(self.home).token("operator"), host=host, timeout=timeout)

    def why_down(self, name: str) -> str | None:
        """Why nobody is going to start this agent, in a few words; None if the supervisor looks after it."""
        from cluster.supervisors.supervisor import SupervisorError

        try:
            child = next((child for child in self.supervisor().list() if child.agent == name), None)
        except SupervisorError:
            child = None
        if child is None:
            return "the cluster is not running"
        if child.desired == "stopped" or child.state in ("crash-loop", "config-error"):
            return child.state + (f": {child.detail}" if child.detail else "")
        return None

    def explain(self, error: AtomizerError) -> str:
        """What is told of an error that ends the command: with the next command to type, where the error knows only
        of a port or of an HTTP call."""
        from protocols.errors import ProtocolError, Unreachable

        agent = self._asked
        if agent is None:
            return str(error)
        if isinstance(error, Unreachable):
            if why := self.why_down(agent):
                return f"{agent} is down ({why}); `atomizer start {agent}`"
            return f"{agent}: {error}; `atomizer status` says how it stands"
        if isinstance(error, ProtocolError) and error.code in _LISTED_BY:
            listing = _LISTED_BY[error.code].format(agent)
            return f"{str(error).partition('; GET ')[0]}; `atomizer {listing}` lists what there is"
        return str(error)

    def answer(self, document: Any, text: str | Callable[[], str]) -> None:
        """The result: one JSON document with --json, else `text`."""
        if self.json:
            click.echo(json_text(document))
        else:
            shown = text if isinstance(text, str) else text()
            if shown:
                click.echo(printable(shown))

    def note(self, text: str) -> None:
        """Something to know that is not the result: a line on stderr."""
        click.echo(f"note: {printable(text)}", err=True)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _set_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).home_given = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Invocation).json = True


def shared_options(command: Callable[P, R]) -> Callable[P, R]:
    """--home and --json, accepted before and after the subcommand alike."""
    home = click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_set_home,
        help="The cluster's home folder. Default: $ATOMIZER_HOME, else your data folder.",
    )
    as_json = click.option(
        "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print one JSON document."
    )
    return home(as_json(command))


def json_text(document: Any) -> str:
    import msgspec

    return escaped(json.dumps(msgspec.to_builtins(document), ensure_ascii=False, indent=2))


def escaped(text: str) -> str:
    """JSON that means the same, and in which nothing is left that a terminal obeys."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def classify(error: AtomizerError) -> tuple[int, str]:
    """(exit code, word for scripts) of an error that a command ended with."""
    from protocols.errors import DecodeError, ProtocolError, Unreachable

    if isinstance(error, CommandFailure):
        return error.exit_code, error.code
    if isinstance(error, ProtocolError):
        return exits.REFUSED, error.code
    if isinstance(error, Unreachable):
        return exits.UNREACHABLE, "unreachable"
    if isinstance(error, DecodeError):
        return exits.CONFIG, "bad_config"
    kind = type(error).__name__
    if kind in ("SupervisorDown", "SupervisorHung"):
        return exits.UNREACHABLE, "supervisor"
    if kind in ("RegistryError", "MembershipError"):
        return exits.USAGE, "bad_agent"
    if kind == "FoundationError":
        return exits.CONFIG, "file"
    words = {"ConfigError": "bad_config", "HomeError": "no_home", "SecretError": "no_secret", "TokenError": "bad_token"}
    if kind in words:
        return exits.CONFIG, words[kind]
    return exits.FAILED, "failed"


def fail(message: str, exit_code: int, code: str, as_json: bool) -> NoReturn:
    """Tell why the command failed, and end."""
    if as_json:
        document = {"ok": False, "error": {"code": code, "message": message}}
        click.echo(escaped(json.dumps(document, ensure_ascii=False)))
    else:
        click.echo(f"atomizer: {printable(message)}", err=True)
    sys.exit(exit_code)
