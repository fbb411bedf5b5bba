"""Who may do what where: Discord's permission bits, and how roles and overwrites become one number.

Source: Discord's documentation, "Permissions" (bit values; base permissions, then overwrites for @everyone, for the
roles together, for the member; a thread asks its parent).
"""

from __future__ import annotations

from tests.standins.discord.model import THREADS, Channel, Guild

BITS = {
    "kick_members": 1,
    "administrator": 3,
    "manage_channels": 4,
    "manage_guild": 5,
    "add_reactions": 6,
    "view_channel": 10,
    "send_messages": 11,
    "manage_messages": 13,
    "embed_links": 14,
    "attach_files": 15,
    "read_message_history": 16,
    "mention_everyone": 17,
    "use_external_emojis": 18,
    "change_nickname": 26,
    "manage_nicknames": 27,
    "manage_roles": 28,
    "manage_webhooks": 29,
    "use_application_commands": 31,
    "manage_threads": 34,
    "create_public_threads": 35,
    "create_private_threads": 36,
    "send_messages_in_threads": 38,
    "pin_messages": 51,
}
ALL = (1 << 53) - 1


def bits(*names: str) -> int:
    """The number for these names; KeyError for a name that is not in BITS."""
    return sum(1 << BITS[name] for name in names)


EVERYONE = bits(
    "add_reactions",
    "view_channel",
    "send_messages",
    "embed_links",
    "attach_files",
    "read_message_history",
    "use_external_emojis",
    "change_nickname",
    "use_application_commands",
    "create_public_threads",
    "create_private_threads",
    "send_messages_in_threads",
)
"""What @everyone may in a new guild."""


def in_guild(guild: Guild, user: str) -> int:
    """What `user` may in the guild as a whole; 0 for somebody who is no member."""
    member = guild.members.get(user)
    if member is None:
        return 0
    if guild.owner_id == user:
        return ALL
    value = guild.roles[guild.id].permissions
    for role in member.roles:
        value |= guild.roles[role].permissions
    return ALL if value & bits("administrator") else value


def in_channel(guild: Guild, channel: Channel, user: str) -> int:
    """What `user` may in `channel`, which is not a DM; 0 if it is not to be seen."""
    base = in_guild(guild, user)
    if base in (0, ALL):
        return base
    holder = guild.channels.get(channel.parent_id or "", channel) if channel.type in THREADS else channel
    overwrites = holder.overwrites
    value = base
    if (everyone := overwrites.get(guild.id)) is not None:
        value = value & ~everyone.deny | everyone.allow
    roles = [overwrites[role] for role in guild.members[user].roles if role in overwrites]
    for overwrite in roles:
        value &= ~overwrite.deny
    for overwrite in roles:
        value |= overwrite.allow
    if (own := overwrites.get(user)) is not None:
        value = value & ~own.deny | own.allow
    if not value & bits("send_messages"):
        value &= ~bits("mention_everyone", "embed_links", "attach_files")
    return value if value & bits("view_channel") else 0


def has(value: int, name: str) -> bool:
    return bool(value & 1 << BITS[name])
