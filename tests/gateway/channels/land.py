"""A local Discord with a guild, and gateways of one home that are its bots."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from protocols.approvals import ApprovalList
from runtime.secrets import Secrets
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess
from tests.standins.discord import DiscordThread

PERSON = "antoine"


class Land:
    """`discord` is the stand-in, `home` the cluster's; `gateway(agent)` a process that is started on demand."""

    def __init__(self, discord: DiscordThread, home: ClusterHome, people: tuple[str, ...] = (PERSON,)) -> None:
        self.discord = discord
        self.home = home
        self.made: dict[str, Any] = discord.furnish(list(home.ports), list(people))
        self._gateways: dict[str, GatewayProcess] = {}
        path = home.home.cluster_toml
        path.write_text(path.read_text() + self._table())
        for agent, bot in self.made["bots"].items():
            Secrets(home.home).set(agent, "discord", bot["token"])

    def _table(self) -> str:
        channels = "".join(f'{name} = "{ident}"\n' for name, ident in self.made["channels"].items())
        return (
            f'\n[discord]\nguild = "{self.made["guild"]}"\noperators = ["{self.person()}"]\n'
            f'api_base = "{self.discord.api_base}"\n'
            f'gateway_url = "{self.discord.gateway_url}"\n\n[discord.channels.all]\n{channels}'
        )

    def person(self, name: str = PERSON) -> str:
        return str(self.made["people"][name])

    def channel(self, name: str) -> str:
        return str(self.made["channels"][name])

    def configure(self, agent: str, **values: object) -> None:
        """Keys of `[discord]` in its instance.toml; before it starts."""
        path = self.home.home.instance_toml(agent)
        lines = "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values.items())
        text = path.read_text()
        if re.search(r"(?m)^\[discord\]$", text):
            path.write_text(re.sub(r"(?m)^\[discord\]$", f"[discord]\n{lines}", text))
        else:
            path.write_text(f"{text}\n[discord]\n{lines}")

    def gateway(self, agent: str = "webster", **environment: str) -> GatewayProcess:
        """Running and connected."""
        if agent not in self._gateways:
            self._gateways[agent] = GatewayProcess(self.home, agent).start(**environment)
            self.wait_connected(agent)
        return self._gateways[agent]

    def put(self, gateway: GatewayProcess) -> None:
        """One of another kind, in the place of that agent's; it is started by whoever made it."""
        self._gateways[gateway.agent] = gateway

    def wait_connected(self, agent: str, seconds: float = 30.0) -> None:
        self.discord.wait_for(lambda view: view.connected(agent), seconds)
        until = time.monotonic() + seconds
        while self._gateways[agent].status().channels[0].state != "ready":
            assert time.monotonic() < until, self._gateways[agent].status().channels
            time.sleep(0.05)

    def say(self, text: str, *, to: str = "webster", channel: str | None = None, by: str = PERSON, **more: Any) -> str:
        """A message that mentions an agent, in its channel or another; its id."""
        return self.discord.say(channel or self.channel(to), by, text, mentions=[to], **more)

    def answer(self, message: str, by: str = "webster", seconds: float = 30.0) -> str:
        """The text of the answer to a message, once the message is marked as done."""
        self.discord.wait_for(lambda v: by in v.message(message)["reactions"].get("✅", []), seconds)
        (first, *_) = self.discord.wait_for(lambda v: v.replies(message), seconds)
        return str(first["content"])

    def approvals(self, agent: str) -> ApprovalList:
        return self.gateway(agent).ask.get("/approvals", ApprovalList)

    def close(self) -> None:
        for gateway in self._gateways.values():
            gateway.close()


@contextlib.contextmanager
def land(*agents: str, people: tuple[str, ...] = (PERSON,)) -> Iterator[Land]:
    """With these agents in a home of their own."""
    home = ClusterHome(agents or ("webster",))
    try:
        with DiscordThread() as discord:
            made = Land(discord, home, people)
            try:
                yield made
            finally:
                made.close()
    finally:
        home.close()
