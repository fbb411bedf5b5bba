"""What a bot may do in a channel, and where what it may not do is taken from it."""

from __future__ import annotations

from typing import NamedTuple

import discord


class Denial(NamedTuple):
    """Why one permission is missing."""

    where: str
    """`role`: no role gives it; `channel` or `category`: settings there take it; `timeout`: the bot is timed out."""
    whom: str
    """Whom the settings take it from: `@everyone`, a role's name, or the bot."""
    category: str = ""


Channel = discord.abc.GuildChannel


def missing(
    channel: Channel, category: Channel | None, bot: discord.Member, wanted: list[str]
) -> list[tuple[str, Denial]]:
    """(permission, why) of those of `wanted` that `bot` does not have. Only the one at the root: who cannot view the
    channel can do nothing else there either, and who cannot send can attach nothing."""
    has = channel.permissions_for(bot)
    lacking = [name for name in wanted if not getattr(has, name)]
    if "view_channel" in lacking:
        lacking = ["view_channel"]
    elif "send_messages" in lacking:
        lacking = [name for name in lacking if name not in ("attach_files", "embed_links")]
    return [(name, _denial(channel, category, bot, name)) for name in lacking]


def _denial(channel: Channel, category: Channel | None, bot: discord.Member, name: str) -> Denial:
    if bot.is_timed_out():
        return Denial("timeout", bot.name)
    if not getattr(bot.guild_permissions, name):
        return Denial("role", "")
    # The settings of a channel are a copy of its category's as long as nobody changes them.
    if category is not None and category.overwrites == channel.overwrites:
        return Denial("category", _whom(channel, bot, name), category.name)
    return Denial("channel", _whom(channel, bot, name))


def _whom(channel: Channel, bot: discord.Member, name: str) -> str:
    """Whose overwrite decides: the bot's own before its roles', and those before @everyone's."""
    own = channel.overwrites_for(bot)
    if getattr(own, name) is False:
        return bot.name
    for role in reversed(bot.roles):
        if not role.is_default() and getattr(channel.overwrites_for(role), name) is False:
            return f"the role {role.name}"
    return "@everyone"


def people_may(channel: Channel, name: str) -> bool:
    """May everybody who sees this channel? True where it is not for everybody."""
    everyone = channel.permissions_for(channel.guild.default_role)
    return not everyone.view_channel or bool(getattr(everyone, name))
