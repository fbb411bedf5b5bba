"""What a connection to Discord needs to know, and the token as a person may have pasted it."""

from __future__ import annotations

import re

import msgspec

from protocols.errors import AtomizerError
from runtime.config import Cluster, Instance
from runtime.config_discord import API_BASE, ears
from runtime.home import Home

GATEWAY_URL = "wss://gateway.discord.gg/"
_USUAL = re.compile(r"[\w-]{20,}\.[\w-]{5,}\.[\w-]{20,}")


class TokenError(AtomizerError):
    """Text that cannot be a bot's token; the message says why and never shows it."""


class Settings(msgspec.Struct, frozen=True):
    """Of one agent's bot. The two addresses are set for the whole process, which has one bot."""

    agent: str
    home: str
    """The folder of the cluster: named to another agent that has the same token."""
    guilds: frozenset[str] = frozenset()
    """Servers whose members may use its commands, and which get them; none: every server it is in."""
    api_base: str = API_BASE
    gateway_url: str = GATEWAY_URL


def discord_settings(home: Home, agent: str, cluster: Cluster, config: Instance) -> Settings:
    """What the two configuration files say of one agent's bot."""
    table = cluster.file.discord
    return Settings(
        agent=agent,
        home=str(home.root),
        guilds=ears(table, config.file.discord, agent).guilds,
        api_base=(table.api_base or API_BASE).rstrip("/"),
        gateway_url=table.gateway_url or GATEWAY_URL,
    )


def clean_token(text: str) -> str:
    """The token without surrounding white space; raises TokenError."""
    token = text.strip()
    if token.lower().startswith("bot "):
        raise TokenError("the Discord token begins with `Bot `: store only what the portal shows, without that word")
    if not token or any(letter.isspace() for letter in token):
        raise TokenError("the Discord token has spaces or line breaks in it: copy it again from the portal, Bot page")
    if not token.isascii() or not token.isprintable():
        raise TokenError("the Discord token has letters that no token has: copy it again from the portal, Bot page")
    return token


def looks_usual(token: str) -> bool:
    """Does it have the shape of today's tokens? Discord promises none, so this is worth a warning and no more."""
    return _USUAL.fullmatch(token) is not None
