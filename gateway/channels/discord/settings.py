"""What a connection to Discord needs to know, and the token as a person may have pasted it."""

from __future__ import annotations

import msgspec

from runtime.config import Cluster, Instance
from runtime.config_discord import API_BASE, ears
from runtime.discord_token import TokenError as TokenError
from runtime.discord_token import clean_token as clean_token
from runtime.discord_token import looks_usual as looks_usual
from runtime.home import Home

GATEWAY_URL = "wss://gateway.discord.gg/"


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
