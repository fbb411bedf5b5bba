"""Discord: the tables `[discord]` of cluster.toml and of instance.toml, and what they resolve to for one agent.

The docstrings under the fields are the configuration reference, as in `runtime/config.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from protocols.targets import TargetError, parse_target

API_BASE = "https://discord.com/api/v10"

_ID = re.compile(r"[0-9]{15,21}")


class DiscordChannelTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: str
    """The channel's id: in Discord, right-click the channel, Copy Channel ID (Settings > Advanced > Developer Mode)."""
    agents: list[str] = msgspec.field(default_factory=list)
    """The agents that hear it; none named: every agent whose bot can see it."""
    mention: bool = True
    """Whether an agent must be mentioned there. `false` only where one agent alone hears the channel."""


class ClusterDiscordTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    guild: str | None = None
    """The server's id: right-click its name, Copy Server ID."""
    operators: list[str] = msgspec.field(default_factory=list)
    """User ids of those who may use every slash command and answer approvals on Discord."""
    channels: dict[str, dict[str, str | DiscordChannelTable]] = msgspec.field(default_factory=dict)
    """Category -> channel -> its id, or a table with `id`, `agents` and `mention`."""
    log_channel: str | None = None
    """Where every agent tells of its runs: a name from `channels` (`agent-logs`) or an id."""
    delegation_channel: str | None = None
    """Where every agent tells what it delegated: a name from `channels` (`inter-agent`) or an id."""
    api_base: str | None = None
    """Another REST endpoint (https, or http on loopback)."""
    gateway_url: str | None = None
    """Another gateway (wss, or ws on loopback)."""


class InstanceDiscordTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    home: str | None = None
    """Target of answers that name no other: `discord:channel:<id>`."""
    guilds: list[str] = msgspec.field(default_factory=list)
    """Ids of the servers it listens to; none named: the one of cluster.toml."""
    channels: list[str] = msgspec.field(default_factory=list)
    """Channels it hears, by id or by their names in cluster.toml; none named: as cluster.toml says."""
    free: list[str] = msgspec.field(default_factory=list)
    """Channels in which it answers without being mentioned, by id or name."""
    users: list[str] = msgspec.field(default_factory=list)
    """User ids it listens to; none named: in channels everybody, in direct messages nobody but those paired."""
    dm: Literal["pairing", "allowed", "off"] = "pairing"
    """Direct messages: from `users`, and with `pairing` from whoever a person of the cluster has approved."""
    dm_session: Literal["main", "person"] = "main"
    """Direct messages continue the agent's `main` session, or each `person` has one apart. With more than one person,
    choose `person`: in one session everybody can ask about what the others said."""
    bots: list[str] = msgspec.field(default_factory=list)
    """User ids of bots and webhooks it answers when they mention it; all others are not heard."""
    bot_turns: Annotated[int, msgspec.Meta(ge=0, le=50)] = 3
    """Answers to bots in a row in one channel, until a person writes there."""
    history: Annotated[int, msgspec.Meta(ge=0, le=100)] = 20
    """Messages before a mention that it is shown, those since its last answer."""
    attachment_mb: Annotated[float, msgspec.Meta(ge=0, le=100)] = 8.0
    """Size of one file it takes in, in MB; 0: none."""
    threads: bool = False
    """Whether an answer to a mention in a channel goes into a thread made from the message."""
    stream: bool = True
    """Whether an answer is shown while it is written."""
    reactions: bool = True
    """Whether a message is marked as seen, done or failed."""
    file_over: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    """An answer of more messages than this is sent as a file with its beginning."""
    lines: Annotated[int, msgspec.Meta(ge=5, le=200)] = 40
    """Lines of one message, about."""


class Ears(msgspec.Struct, frozen=True):
    """What one agent listens to."""

    guilds: frozenset[str]
    channels: frozenset[str] | None
    """Ids; None: all of its guilds but `others`."""
    others: frozenset[str]
    """Channels that cluster.toml gives to other agents alone."""
    free: frozenset[str]
    """Where it needs no mention."""
    users: frozenset[str]
    bots: frozenset[str]
    operators: frozenset[str]

    def hears(self, channel: str, parent: str | None = None) -> bool:
        """Does it listen there? A thread is heard with its channel."""
        ids = {channel, parent} if parent else {channel}
        if self.channels is not None:
            return bool(ids & self.channels)
        return not ids & self.others

    def needs_mention(self, channel: str, parent: str | None = None) -> bool:
        return channel not in self.free and (parent is None or parent not in self.free)


def ears(cluster: ClusterDiscordTable, own: InstanceDiscordTable, agent: str) -> Ears:
    """What `agent` listens to, from both tables (which have been checked)."""
    placed = dict(channel_map(cluster))
    free = {table.id for table in placed.values() if not table.mention and agent in table.agents}
    free |= {channel_id(cluster, name) for name in own.free}
    channels = {channel_id(cluster, name) for name in own.channels}
    given = {table.id for table in placed.values() if agent in table.agents}
    return Ears(
        guilds=frozenset(own.guilds or ([cluster.guild] if cluster.guild else [])),
        channels=frozenset(channels | given | free) if channels else None,
        others=frozenset(table.id for table in placed.values() if table.agents and agent not in table.agents),
        free=frozenset(free),
        users=frozenset(own.users),
        bots=frozenset(own.bots),
        operators=frozenset(cluster.operators),
    )


def channel_map(cluster: ClusterDiscordTable) -> Iterator[tuple[str, DiscordChannelTable]]:
    """(name, table) of every channel of cluster.toml."""
    for channels in cluster.channels.values():
        for name, placed in channels.items():
            yield name, DiscordChannelTable(id=placed) if isinstance(placed, str) else placed


def channel_id(cluster: ClusterDiscordTable, name_or_id: str) -> str:
    """The id of a channel given by its id or by its name in cluster.toml; raises ValueError."""
    if _ID.fullmatch(name_or_id):
        return name_or_id
    name = name_or_id.removeprefix("#")
    known = dict(channel_map(cluster))
    if name not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"{name_or_id!r} is no channel: write its id, or a name from [discord.channels] ({names})")
    return known[name].id


def check_cluster_discord(
    table: ClusterDiscordTable, agents: set[str], *, places: bool = True
) -> list[tuple[list[str], str]]:
    """What is wrong with `[discord]` of cluster.toml: (key, a sentence) each. `agents`: those of the cluster. Without
    `places`, `log_channel` and `delegation_channel` may name channels that are not in the list yet."""
    wrong: list[tuple[list[str], str]] = []
    if table.guild is not None and not _ID.fullmatch(table.guild):
        wrong.append((["guild"], _no_id(table.guild, "a server's")))
    wrong += [(["operators"], _no_id(user, "a user's")) for user in table.operators if not _ID.fullmatch(user)]
    seen: dict[str, str] = {}
    for category, channels in table.channels.items():
        for name, placed in channels.items():
            ident = placed if isinstance(placed, str) else placed.id
            where = ["channels", category, name]
            if not _ID.fullmatch(ident):
                wrong.append((where, _no_id(ident, "a channel's")))
            if name in seen:
                wrong.append((where, f"{name!r} is also in {seen[name]}; channels need names of their own"))
            seen[name] = category
            if isinstance(placed, DiscordChannelTable):
                wrong += [(where, f"{a!r} is no agent of this cluster") for a in placed.agents if a not in agents]
                if not placed.mention and len(placed.agents) != 1:
                    wrong.append((where, "mention = false needs one agent in `agents`, or several would answer"))
    for key, value in (("log_channel", table.log_channel), ("delegation_channel", table.delegation_channel)):
        if value is not None and places:
            try:
                channel_id(table, value)
            except ValueError as error:
                wrong.append(([key], f"{error}; `atomizer discord channels` prints them"))
    for key, value, secure, plain in (
        ("api_base", table.api_base, "https", "http"),
        ("gateway_url", table.gateway_url, "wss", "ws"),
    ):
        if value is not None and not _reachable(value, secure, plain):
            wrong.append(([key], f"{value!r}: write a {secure} address, or {plain} on loopback; a token goes there"))
    return wrong


def check_instance_discord(table: InstanceDiscordTable, cluster: ClusterDiscordTable) -> list[tuple[list[str], str]]:
    """What is wrong with `[discord]` of instance.toml: (key, a sentence) each."""
    wrong: list[tuple[list[str], str]] = []
    if table.home is not None:
        try:
            parse_target(table.home)
        except TargetError as error:
            wrong.append((["home"], str(error)))
    for key, ids, whose in (
        ("guilds", table.guilds, "a server's"),
        ("users", table.users, "a user's"),
        ("bots", table.bots, "a user's"),
    ):
        wrong += [([key], _no_id(ident, whose)) for ident in ids if not _ID.fullmatch(ident)]
    for key, names in (("channels", table.channels), ("free", table.free)):
        for name in names:
            try:
                channel_id(cluster, name)
            except ValueError as error:
                wrong.append(([key], str(error)))
    return wrong


def _no_id(text: str, whose: str) -> str:
    return f"{text!r} is not {whose} id: 15 to 21 digits, by Copy ID with Developer Mode on"


def _reachable(url: str, secure: str, plain: str) -> bool:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.query:
        return False
    if parts.scheme == secure:
        return True
    if parts.scheme != plain:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
