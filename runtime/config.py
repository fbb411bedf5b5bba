"""Configuration: the human-written TOML files, the machine-written overrides, and what the two resolve to.

The docstrings under the fields are the configuration reference: `docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from protocols.authority import DEFAULT_AUTHORITY, Authority, AuthorityError
from protocols.decoding import decode_toml, line_of, nearest
from protocols.errors import AtomizerError, DecodeError
from protocols.hooks import Thinking
from protocols.registry import AgentName, RegistryError, check_families, check_reserved, parse_agent_name, roster_entry
from protocols.schedules import Missed
from protocols.targets import TargetError, parse_target
from runtime.config_discord import (
    ClusterDiscordTable,
    InstanceDiscordTable,
    check_cluster_discord,
    check_instance_discord,
)
from runtime.config_providers import ProviderTable, check_providers
from runtime.config_reach import McpTable, WebTable, check_mcp, check_web
from runtime.config_shell import ShellTable, check_shell
from runtime.home import Home, explain_os_error, write_atomic

Profile = Literal["offline", "live"]
T = TypeVar("T")

PLACEMENTS = "placements.toml"

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)\s*$")
_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")


class ConfigError(AtomizerError):
    """A local file is wrong: one line with file, line and the mend. The process exits 78."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class ModelsTable(_Table):
    profile: Profile = "offline"
    """`offline`: every agent without a model override answers by retrieval, without keys or network.
    `live`: the models configured in `instance.toml`."""
    offline_model: Literal["offline/retrieval", "offline/echo"] = "offline/retrieval"
    """The model of the offline profile: `offline/retrieval` searches the workspace, `offline/echo` repeats."""


class PlacementTable(_Table):
    port: int | None = None
    """Base port N; the agent also owns N+3. Default: the shipped registry's."""
    enabled: bool = True
    """Started by `atomizer up`. `atomizer agent enable|disable` overrides it without touching this file."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback exposes the agent to the network: read docs/security.md first."""


class BudgetTable(_Table):
    daily_usd: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """US dollars a day (UTC), at list prices. What a call may cost at most is reserved before it is made."""
    daily_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Tokens a day, sent and answered, of all models but the offline ones.
    With `daily_usd` alone, models without a known price may use two million."""
    over: Literal["wait", "fail"] = "wait"
    """What becomes of a run over budget: it waits for the next day or a larger budget, or it fails."""


class ClusterFile(_Table):
    """cluster.toml"""

    name: str = "atomizer"
    """The cluster's name: in the console's title, and what is typed to confirm stopping all of it."""
    models: ModelsTable = msgspec.field(default_factory=ModelsTable)
    providers: dict[str, ProviderTable] = msgspec.field(default_factory=dict)
    agents: dict[str, PlacementTable] = msgspec.field(default_factory=dict)
    authority: dict[str, list[str]] = msgspec.field(default_factory=lambda: dict(DEFAULT_AUTHORITY))
    """Who may delegate to whom: `*` everybody, `!name` an exception. Not listed: nobody."""
    allowed_hosts: list[str] = msgspec.field(default_factory=list)
    """Host names besides loopback that requests may name; others get 421."""
    budget: BudgetTable = msgspec.field(default_factory=BudgetTable)
    discord: ClusterDiscordTable = msgspec.field(default_factory=ClusterDiscordTable)
    web: WebTable = msgspec.field(default_factory=WebTable)


class AgentTable(_Table):
    title: str
    """The name people read."""
    description: str = ""
    """One line: what this agent is for."""
    capabilities: list[str] = msgspec.field(default_factory=list)
    """Words by which work is routed to it."""
    workspace: str | None = None
    """Another folder for its workspace, absolute or relative to the home; default `workspaces/<agent>`."""


class ModelTable(_Table):
    primary: str
    """`provider/model`, for example `anthropic/claude-opus-4-6`."""
    fallbacks: list[str] = msgspec.field(default_factory=list)
    """Asked in this order when the primary cannot answer."""
    thinking: Thinking = "off"
    """How long the model may think: `off`, `low`, `medium` or `high`."""
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=200_000)] = 8192
    """Tokens one answer may have."""
    context_tokens: Annotated[int, msgspec.Meta(ge=4000)] | None = None
    """Tokens of a conversation before its older part is summarised; default: the model's window, at most 200,000."""


class HeartbeatTable(_Table):
    every: str = "30m"
    """Time between beats: a number with s, m, h or d; `0m` is off."""
    quiet: str | None = None
    """No beats between these times, `22:00-07:00`."""
    tz: str = "UTC"
    """Time zone of `quiet`, as in `Europe/Berlin`."""
    target: str | None = None
    """Where an alert goes: `provider:kind:id`; `last`, from where a person last wrote; `none`: it is only logged."""
    only_if_changed: bool = True
    """No beat while nothing has changed since the last: work, delegations, approvals, dead letters, notes, and the
    files that HEARTBEAT.md names."""
    isolated: bool = True
    """Each beat is a conversation of its own, with SOUL.md and HEARTBEAT.md alone; else it joins the main session."""
    model: str | None = None
    """Another model for beats, `provider/model`: a cheap one does."""


class ScheduleTable(_Table):
    tz: str = "UTC"
    """Time zone of schedules that name none, as in `Europe/Berlin`."""
    missed: Missed = "once"
    """What was due while the gateway was down: `once` runs it once after the start, `skip` passes it over.
    A schedule may say otherwise for itself."""


class ToolsTable(_Table):
    allow: list[str] = msgspec.field(
        default_factory=lambda: ["memory_search", "memory_write", "read_file", "project_log"]
    )
    """Tools this agent has: a name, or `name(pattern)` with `*` and `?` for some calls only, as in `exec(git log*)` or
    `write_file(notes/*)`. A path is meant by where it leads; a command line must be one plain command."""
    ask: list[str] = msgspec.field(default_factory=list)
    """Calls that a person is asked about first; written like `allow`."""
    deny: list[str] = msgspec.field(default_factory=list)
    """Calls that are never made; wins over the others."""


class LimitsTable(_Table):
    concurrent_runs: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    """Runs at one time; one place is kept for people."""
    max_steps: Annotated[int, msgspec.Meta(ge=1, le=500)] = 40
    """Model answers and tool calls in one run."""
    run_timeout: str = "30m"
    """Time one run may take unless it says otherwise, more than nothing; time it waits does not count."""
    max_cost_usd: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """US dollars one run may cost; unknown prices count nothing."""
    steer: Literal["collect", "interrupt", "queue"] = "collect"
    """A person's new message in a session that is at work: `collect` takes it into the next step if both
    are answered in the same place and more than a quarter of the steps and of the money is left, `interrupt` ends the
    work and begins anew (what another person asked for goes on), `queue` lets it wait for its own run."""
    approval_expires: str = "72h"
    """Time a question to a person stays open; then the answer is no."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important line that is logged."""
    retention_days: Annotated[int, msgspec.Meta(ge=1)] = 90
    """Ended runs older than this are removed."""
    retention_mb: Annotated[int, msgspec.Meta(ge=16)] = 2048
    """Above this size of its ledger, the oldest ended runs are removed. The file itself is reused, not shrunk."""


class InstanceFile(_Table):
    """instances/<agent>/instance.toml"""

    agent: AgentTable
    model: ModelTable
    heartbeat: HeartbeatTable = msgspec.field(default_factory=HeartbeatTable)
    schedule: ScheduleTable = msgspec.field(default_factory=ScheduleTable)
    tools: ToolsTable = msgspec.field(default_factory=ToolsTable)
    shell: ShellTable = msgspec.field(default_factory=ShellTable)
    limits: LimitsTable = msgspec.field(default_factory=LimitsTable)
    budget: BudgetTable = msgspec.field(default_factory=BudgetTable)
    discord: InstanceDiscordTable = msgspec.field(default_factory=InstanceDiscordTable)
    mcp: dict[str, McpTable] = msgspec.field(default_factory=dict)


class Overrides(_Table):
    """instances/<agent>/overrides.toml: written by the program, in force above the human files."""

    enabled: bool | None = None
    """Started by `atomizer up`, above what cluster.toml says."""
    model: str | None = None
    """The model to ask, in place of the configured one and of the profile's."""
    heartbeat_enabled: bool | None = None
    """Whether it beats."""
    heartbeat_every_seconds: float | None = None
    """Seconds between two beats."""


class Placements(_Table):
    """placements.toml: written by `atomizer agent add|remove`; the human cluster.toml is never rewritten."""

    agents: dict[str, PlacementTable] = msgspec.field(default_factory=dict)
    """Agents that were added. One that also stands in cluster.toml is placed as cluster.toml says."""
    removed: list[str] = msgspec.field(default_factory=list)
    """Agents that were removed, though cluster.toml may still name them."""


class AgentSpec(msgspec.Struct, frozen=True):
    """One agent of the cluster, as placed."""

    name: AgentName
    port: int
    host: str
    enabled: bool


class Cluster(msgspec.Struct, frozen=True):
    """cluster.toml, checked and resolved."""

    name: str
    home: Home
    file: ClusterFile
    agents: dict[str, AgentSpec]
    authority: Authority

    @property
    def enabled(self) -> list[AgentSpec]:
        return [spec for spec in self.agents.values() if spec.enabled]

    def agent(self, name: str) -> AgentSpec:
        """The agent called `name`; raises ConfigError naming the nearest one."""
        if name in self.agents:
            return self.agents[name]
        close = nearest(name, self.agents)
        hint = f"did you mean {close}?" if close else f"known: {', '.join(self.agents)}"
        raise ConfigError(f"no agent {name!r} in {self.home.cluster_toml}; {hint}")


class Instance(msgspec.Struct, frozen=True):
    """One agent's instance.toml and overrides, checked."""

    spec: AgentSpec
    file: InstanceFile
    overrides: Overrides
    workspace: Path


def load_cluster(home: Home, *, places: bool = True) -> Cluster:
    """Read and check cluster.toml and the agents' overrides; raises ConfigError (one line) or HomeError. Without
    `places` it may name Discord channels that it does not list yet: for the command that prints their ids."""
    home.require()
    path = home.cluster_toml
    text = _read(path, "restore it or run `atomizer init` in a new home")
    file = _decode(text, ClusterFile, path)
    for key, problem_with in check_providers(file.providers, file.agents):
        raise _at(path, text, ["providers", *key], ValueError(problem_with))
    for key, problem_with in check_web(file.web):
        raise _at(path, text, ["web", *key], ValueError(problem_with))
    placements = load_placements(home)
    placed_agents = {**placements.agents, **file.agents}
    ever = {*placed_agents, *placements.removed}
    for key, problem_with in check_cluster_discord(file.discord, ever, places=places):
        raise _at(path, text, ["discord", *key], ValueError(problem_with))
    in_order = [*file.agents, *(name for name in placements.agents if name not in file.agents)]
    agents: dict[str, AgentSpec] = {}
    for name in (name for name in in_order if name not in placements.removed):
        placed = placed_agents[name]
        where = ["agents", name]
        try:
            agent = parse_agent_name(name)
            known = roster_entry(name)
            if placed.port is None and known is None:
                raise RegistryError(f"{name} is not in the shipped registry, so it needs `port` in [agents.{name}]")
            port = placed.port if placed.port is not None else known.port  # type: ignore[union-attr]
            where.append("port")
            check_families({name: port})
        except RegistryError as error:
            if name in file.agents:
                raise _at(path, text, where, error) from None
            raise _at(home.root / PLACEMENTS, "", [], error) from None
        overrides = load_overrides(home, name)
        enabled = placed.enabled if overrides.enabled is None else overrides.enabled
        agents[name] = AgentSpec(name=agent, port=port, host=placed.host, enabled=enabled)
    try:
        ports: dict[str, int] = {spec.name: spec.port for spec in agents.values()}
        check_families(ports)
        check_reserved(ports, services_only=True)
    except RegistryError as error:
        name = str(error).split(" ", 1)[0]
        if name not in file.agents:
            raise _at(home.root / PLACEMENTS, "", [], error) from None
        raise _at(path, text, ["agents", name, "port"], error) from None
    try:
        names = [*agents, *placements.removed]  # a rule may outlive the agent it names
        shipped = file.authority == DEFAULT_AUTHORITY  # a small cluster need not have every agent they name
        authority = Authority(file.authority, None if shipped else names)
    except AuthorityError as error:
        raise _at(path, text, ["authority", str(error).split(" ")[2]], error) from None
    return Cluster(name=file.name, home=home, file=file, agents=agents, authority=authority)


def load_instance(cluster: Cluster, name: str) -> Instance:
    """Read and check one agent's instance.toml and overrides; raises ConfigError."""
    spec = cluster.agent(name)
    home = cluster.home
    path = home.instance_toml(name)
    text = _read(path, f"restore it, or remove [agents.{name}] from {home.cluster_toml}")
    file = _decode(text, InstanceFile, path)
    checks: list[tuple[list[str], Any]] = [
        (["heartbeat", "every"], lambda: parse_duration(file.heartbeat.every)),
        (["heartbeat", "quiet"], lambda: file.heartbeat.quiet and parse_quiet(file.heartbeat.quiet)),
        (["heartbeat", "tz"], lambda: _check_zone(file.heartbeat.tz)),
        (["schedule", "tz"], lambda: _check_zone(file.schedule.tz)),
        (["heartbeat", "target"], lambda: _check_beat_target(file.heartbeat.target)),
        (["heartbeat", "model"], lambda: file.heartbeat.model and split_model(file.heartbeat.model)),
        (["limits", "run_timeout"], lambda: _check_timeout(file.limits.run_timeout)),
        (["shell", "timeout"], lambda: _check_timeout(file.shell.timeout)),
        (["shell", "background_after"], lambda: _check_timeout(file.shell.background_after)),
        (["limits", "approval_expires"], lambda: _check_timeout(file.limits.approval_expires)),
        (["model", "primary"], lambda: split_model(file.model.primary)),
        (["model", "fallbacks"], lambda: [split_model(m) for m in file.model.fallbacks]),
    ]
    for server, table in file.mcp.items():
        checks.append((["mcp", server, "timeout"], lambda table=table: _check_timeout(table.timeout)))
        for key, problem in check_mcp(server, table):
            raise _at(path, text, ["mcp", server, *key], ValueError(problem))
        for key, problem in check_shell(ShellTable(read=table.read, write=table.write), home):
            raise _at(path, text, ["mcp", server, *key], ValueError(problem))
    for key, problem in check_shell(file.shell, home):
        raise _at(path, text, ["shell", *key], ValueError(problem))
    for key, problem in check_instance_discord(file.discord, cluster.file.discord):
        raise _at(path, text, ["discord", *key], ValueError(problem))
    for where, check in checks:
        try:
            check()
        except (ValueError, TargetError) as error:
            raise _at(path, text, where, error) from None
    folder = home.root / Path(file.agent.workspace).expanduser() if file.agent.workspace else home.workspace(name)
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: the workspace of {name} is missing; restore it or set [agent] workspace in {path}"
        )
    return Instance(spec=spec, file=file, overrides=load_overrides(home, name), workspace=folder)


def load_overrides(home: Home, name: str) -> Overrides:
    """The machine-written overrides of one agent; none if there is no file."""
    path = home.overrides_toml(name)
    return _decode(_read(path), Overrides, path)


def save_overrides(home: Home, name: str, overrides: Overrides) -> None:
    """Write one agent's overrides in one step; raises OSError."""
    import tomli_w

    values = {k: v for k, v in msgspec.structs.asdict(overrides).items() if v is not None}
    text = "# Written by atomizer; edit instance.toml or cluster.toml instead.\n" + tomli_w.dumps(values)
    write_atomic(home.overrides_toml(name), text)


def load_placements(home: Home) -> Placements:
    """The agents added and removed by command; none if there is no file. Raises ConfigError."""
    path = home.root / PLACEMENTS
    return _decode(_read(path), Placements, path)


def save_placements(home: Home, placements: Placements) -> None:
    """Write the added and removed agents in one step; raises OSError."""
    import tomli_w

    agents = {
        name: {k: v for k, v in msgspec.structs.asdict(placed).items() if v is not None}
        for name, placed in placements.agents.items()
    }
    text = "# Written by `atomizer agent add|remove`; an agent in cluster.toml is placed as it says there.\n"
    text += tomli_w.dumps({"removed": placements.removed, "agents": agents})
    write_atomic(home.root / PLACEMENTS, text)


def parse_duration(text: str) -> float:
    """`30m` and the like in seconds; raises ValueError."""
    match = _DURATION.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration: write a number with s, m, h or d, for example `30m`")
    return float(match.group(1)) * _UNIT[match.group(2)]


def parse_quiet(text: str) -> tuple[int, int]:
    """`22:00-07:00` as minutes of the day (start, end); raises ValueError."""
    match = _QUIET.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a span of quiet hours: write `22:00-07:00`")
    h1, m1, h2, m2 = (int(part) for part in match.groups() if part is not None)
    return h1 * 60 + m1, h2 * 60 + m2


def split_model(text: str) -> tuple[str, str]:
    """`provider/model` as its two parts; raises ValueError."""
    provider, slash, model = text.partition("/")
    if not (provider and slash and model):
        raise ValueError(f"{text!r} is not a model: write provider/model, for example `anthropic/claude-opus-4-6`")
    return provider, model


def _check_timeout(text: str) -> None:
    if parse_duration(text) <= 0:
        raise ValueError(f"{text!r} leaves a run no time; write for example `30m`")


def _check_beat_target(text: str | None) -> None:
    if text not in (None, "last", "none"):
        parse_target(text)


def _check_zone(name: str) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{name!r} is not a time zone of this machine; write one like `Europe/Berlin` or `UTC`"
        ) from None


def _read(path: Path, mend: str | None = None) -> str:
    """The text of `path`, which may begin with a byte order mark. Without a `mend`, a missing file is an empty one."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if mend is None:
            return ""
        raise ConfigError(f"{path}: missing; {mend}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(explain_os_error(error, f"cannot read {path}")) from None


def _decode(text: str, kind: type[T], path: Path) -> T:
    try:
        return decode_toml(text, kind, str(path))
    except DecodeError as error:
        raise ConfigError(str(error)) from None


def _at(path: Path, text: str, where: list[str], error: Exception) -> ConfigError:
    line = line_of(text, where)
    return ConfigError(f"{path}{f':{line}' if line else ''}: {error}")
