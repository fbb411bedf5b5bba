"""What one agent's bot needs, by the configuration alone: in which channels it has something to do, and what it must be
allowed there. Imports nothing of the library."""

from __future__ import annotations

import msgspec

from protocols.targets import TargetError, parse_target
from runtime.config import Cluster, Instance
from runtime.config_discord import ClusterDiscordTable, InstanceDiscordTable, channel_id, channel_map, ears

PERMISSIONS = {
    "view_channel": "View Channel",
    "send_messages": "Send Messages",
    "send_messages_in_threads": "Send Messages in Threads",
    "create_public_threads": "Create Public Threads",
    "read_message_history": "Read Message History",
    "add_reactions": "Add Reactions",
    "attach_files": "Attach Files",
    "embed_links": "Embed Links",
    "use_application_commands": "Use Application Commands",
}
"""Discord's name in its API -> the name that its settings show."""
OPTIONAL = frozenset({"embed_links"})
"""Without it links show no preview, and nothing else."""
MIRROR = ("view_channel", "send_messages", "read_message_history")
"""What telling of runs asks for; the history is what a message whose fate is unknown is looked for in."""


class Place(msgspec.Struct, frozen=True):
    """A channel in which an agent has something to do."""

    id: str
    name: str
    """As the configuration calls it: a name without `#`, or empty."""
    uses: tuple[str, ...]
    """Of `hears`, `home`, `heartbeat`, `log` and `delegations`."""
    required: bool
    """Whether the configuration means this agent. A channel open to all agents may be kept from some on Discord."""

    def needs(self, features: list[str]) -> list[str]:
        """The permissions it needs there, of `features`."""
        if set(self.uses) & {"hears", "home", "heartbeat"}:
            return features
        return [name for name in features if name in MIRROR]


class Needs(msgspec.Struct, frozen=True):
    agent: str
    title: str
    """The name its bot is to have."""
    guilds: list[str]
    permissions: list[str]
    """By the features that are on; the keys of PERMISSIONS."""
    places: list[Place]
    people: list[str]
    """User ids whose direct messages it answers without pairing."""
    dm: str
    dm_session: str


def needs(cluster: Cluster, instance: Instance) -> Needs:
    """What the two files say."""
    table, own = cluster.file.discord, instance.file.discord
    agent = instance.spec.name
    heard = ears(table, own, agent)
    return Needs(
        agent=agent,
        title=instance.file.agent.title or agent,
        guilds=sorted(heard.guilds),
        permissions=features(own),
        places=_places(table, own, agent, instance.file.heartbeat.target),
        people=sorted(heard.users | heard.operators),
        dm=own.dm,
        dm_session=own.dm_session,
    )


def features(own: InstanceDiscordTable) -> list[str]:
    """The permissions that the features ask for which are on."""
    wanted = ["view_channel", "send_messages", "send_messages_in_threads", "read_message_history"]
    wanted += ["create_public_threads"] if own.threads else []
    wanted += ["add_reactions"] if own.reactions else []
    return [name for name in PERMISSIONS if name in {*wanted, "attach_files", "embed_links"}]


def _places(table: ClusterDiscordTable, own: InstanceDiscordTable, agent: str, beat: str | None) -> list[Place]:
    heard = ears(table, own, agent)
    names = {placed.id: name for name, placed in channel_map(table)}
    uses: dict[str, list[str]] = {}
    required: set[str] = set()

    def add(ident: str, use: str, meant: bool) -> None:
        uses.setdefault(ident, []).append(use)
        if meant:
            required.add(ident)

    own_channels = {channel_id(table, name) for name in (*own.channels, *own.free)}
    for name, placed in channel_map(table):
        if heard.hears(placed.id):
            add(placed.id, "hears", agent in placed.agents or placed.id in own_channels)
        names.setdefault(placed.id, name)
    for ident in sorted(own_channels - uses.keys()):
        add(ident, "hears", True)
    for use, target in (("home", own.home), ("heartbeat", beat)):
        if spoken_to := _channel_of(target):
            add(spoken_to, use, True)
    for use, named in (("log", table.log_channel), ("delegations", table.delegation_channel)):
        if named:
            add(channel_id(table, named), use, True)
    return [Place(ident, names.get(ident, ""), tuple(what), ident in required) for ident, what in uses.items()]


def _channel_of(target: str | None) -> str | None:
    """The channel's id of `discord:channel:<id>`, None for anything else."""
    try:
        parsed = parse_target(target or "")
    except TargetError:
        return None
    return parsed.id if (parsed.provider, parsed.kind) == ("discord", "channel") else None
