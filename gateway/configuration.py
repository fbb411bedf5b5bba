"""What people wrote about one agent: read at the start and by a reload, and turned into what its parts want."""

from __future__ import annotations

import msgspec

from gateway.agent.heartbeat import BeatConfig
from gateway.agent.permissions import Permissions
from gateway.agent.schedule import ScheduleConfig
from gateway.channels.discord.settings import Settings, discord_settings
from gateway.mcp.launch import Launcher
from protocols.control import HeartbeatChange
from protocols.errors import AtomizerError, ProtocolError, StorageFull
from runtime.config import (
    Cluster,
    ConfigError,
    Instance,
    InstanceFile,
    load_cluster,
    load_instance,
    parse_duration,
    parse_quiet,
)
from runtime.home import Home, explain_os_error
from runtime.overrides import OverridesBusy, change_overrides
from runtime.sandbox import Sandbox
from runtime.secrets import PROVIDERS, SERVICES, Redactor, Secrets

ALWAYS = ("status", "skill")
"""Tools that need no permission: they show the agent itself, and how its work is done."""


class Configuration:
    """The good configuration of this moment. A bad one never replaces it."""

    def __init__(self, home: Home, agent: str) -> None:
        """Reads the files; raises ConfigError or HomeError."""
        self.home = home
        self.agent = agent
        self.cluster, self.instance = _read(home, agent)
        self.secrets = Secrets(home)
        self.redact = Redactor()
        self.callers: dict[str, str] = {}
        """Whose token has which hash, as of `learn_secrets` or the last good reload."""
        self.error = ""
        """Why the last reload changed nothing."""

    @property
    def file(self) -> InstanceFile:
        """What `instance.toml` says."""
        return self.instance.file

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as of now."""
        return self.instance.spec.host, self.instance.spec.port

    def reload(self) -> bool:
        """Read all again. True if the address changed, which takes a restart; ProtocolError (409) if it is bad."""
        try:
            cluster, instance = _read(self.home, self.agent)
            callers = self._learn_secrets(cluster, instance)
        except (AtomizerError, OSError) as error:
            self.error = str(error)
            raise ProtocolError(409, "bad_config", f"nothing was changed: {error}") from None
        before = self.address
        self.cluster, self.instance, self.callers, self.error = cluster, instance, callers, ""
        return self.address != before

    def learn_secrets(self) -> None:
        """What must not appear in a log or a transcript; raises SecretError."""
        self.callers = self._learn_secrets(self.cluster, self.instance)

    def _learn_secrets(self, cluster: Cluster, instance: Instance) -> dict[str, str]:
        """Our own secrets by value, others' tokens by hash."""
        secrets = self.secrets
        own = [secrets.get(self.agent, name) for owner, name in secrets.list() if owner == self.agent]
        keys = [secrets.api_key(name, self.agent) for name in (*PROVIDERS, *cluster.file.providers, *SERVICES)]
        given = {path for table in instance.file.mcp.values() for path in table.secrets.values()}
        own += [secrets.get(owner, name) for owner, name in (path.split("/") for path in given)]
        callers = secrets.callers()
        self.redact.know([value for value in (*own, *keys) if value], callers)
        return callers

    # -- what the parts want -----------------------------------------------------------------------------------

    def beat(self) -> BeatConfig:
        """The heartbeat's, with what was changed from the console."""
        table, over = self.file.heartbeat, self.instance.overrides
        every = parse_duration(table.every) if over.heartbeat_every_seconds is None else over.heartbeat_every_seconds
        return BeatConfig(
            enabled=over.heartbeat_enabled is not False and (every > 0),
            every=every,
            quiet=parse_quiet(table.quiet) if table.quiet else None,
            tz=table.tz,
            target=None if table.target == "none" else table.target,
            only_if_changed=table.only_if_changed,
            isolated=table.isolated,
            model=table.model,
        )

    def change_heartbeat(self, change: HeartbeatChange) -> BeatConfig:
        """Write it down and return what holds from now on; ProtocolError or StorageFull if it could not be kept."""
        given = {"heartbeat_enabled": change.enabled, "heartbeat_every_seconds": change.every_seconds}
        changed = {field: value for field, value in given.items() if value is not None}
        try:
            after = change_overrides(self.home, self.agent, **changed)
        except ConfigError as error:
            raise ProtocolError(409, "overrides_damaged", f"{error}; the heartbeat was not changed") from None
        except OverridesBusy as error:
            raise ProtocolError(503, "overrides_busy", f"{error}; the heartbeat was not changed") from None
        except OSError as error:
            raise StorageFull(explain_os_error(error, "the heartbeat was not changed")) from None
        self.instance = msgspec.structs.replace(self.instance, overrides=after)
        return self.beat()

    def schedule(self) -> ScheduleConfig:
        """The time zone of schedules, and what becomes of missed ones."""
        return ScheduleConfig(tz=self.file.schedule.tz, missed=self.file.schedule.missed)

    def run_timeout(self) -> float:
        """Seconds."""
        return parse_duration(self.file.limits.run_timeout)

    def approval_expires(self) -> float:
        """Seconds."""
        return parse_duration(self.file.limits.approval_expires)

    def permissions(self, offered: list[str]) -> Permissions:
        """`offered`: tools of MCP servers, which the table of their server has allowed."""
        table = self.file.tools
        return Permissions([*ALWAYS, *offered, *table.allow], table.ask, table.deny)

    def sandbox(self) -> Sandbox:
        """For the commands of the shell."""
        return Sandbox(self.home, self.agent, self.instance.workspace, self.file.shell)

    def launcher(self) -> Launcher:
        """For MCP servers on stdio."""
        return Launcher(self.home, self.agent, self.instance.workspace, self.file.shell, self.secrets.get)

    def discord(self) -> tuple[str | None, Settings]:
        """The bot's token (None: no bot) and settings of this moment; raises SecretError."""
        token = self.secrets.get(self.agent, "discord")
        return token, discord_settings(self.home, self.agent, self.cluster, self.instance)


def _read(home: Home, agent: str) -> tuple[Cluster, Instance]:
    """What people wrote, checked; raises ConfigError or HomeError."""
    cluster = load_cluster(home)
    instance = load_instance(cluster, agent)
    table = instance.file.tools
    try:
        Permissions(table.allow, table.ask, table.deny)
    except ValueError as error:
        raise ConfigError(f"{home.instance_toml(agent)}: [tools] {error}") from None
    return cluster, instance
