"""A Discord with one guild, two bots and two people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.standins.discord import DiscordServer
from tests.standins_tests.bot import point_at


class World:
    def __init__(self, server: DiscordServer) -> None:
        made: dict[str, Any] = server.furnish(["manager", "webster"], ["antoine", "berta"])
        self.discord = server
        self.guild: str = made["guild"]
        self.channels: dict[str, str] = made["channels"]
        self.people: dict[str, str] = made["people"]
        self.bots: dict[str, dict[str, str]] = made["bots"]
        self.token = self.bots["webster"]["token"]
        self.research = int(self.channels["research"])


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with DiscordServer() as server:
        point_at(server, monkeypatch)
        yield World(server)
