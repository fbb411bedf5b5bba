"""A real gateway with a bot, as a process: what it shows and costs, and that its HTTP API does not mind Discord."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.control import Acted
from protocols.status import ChannelStatus
from runtime.secrets import Secrets
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess
from tests.standins.discord import DiscordProcess

CONNECTED_MIB = 55.0
"""Of a gateway that is connected and idle; the library is 8 of it."""


@pytest.fixture
def discord() -> Iterator[DiscordProcess]:
    with DiscordProcess() as server:
        yield server


class Agent:
    """`webster` with a bot of the stand-in."""

    def __init__(self, home: ClusterHome, discord: DiscordProcess) -> None:
        self.home = home
        self.discord = discord
        world = discord.furnish(["webster"])
        toml = f'[discord]\nguild = "{world["guild"]}"\n'
        toml += f'api_base = "{discord.api_base}"\ngateway_url = "{discord.gateway_url}"\n'
        path = home.home.cluster_toml
        path.write_text(path.read_text() + toml)
        self.store(world["bots"]["webster"]["token"])
        self.gateway = GatewayProcess(home)

    def store(self, token: str) -> None:
        Secrets(self.home.home).set("webster", "discord", token)

    def remove(self) -> None:
        Secrets(self.home.home).path("webster", "discord").unlink()

    def channel(self) -> ChannelStatus:
        [found] = self.gateway.status().channels
        return found

    def until(self, state: str, seconds: float = 20.0) -> ChannelStatus:
        deadline = time.monotonic() + seconds
        while (found := self.channel()).state != state:
            assert time.monotonic() < deadline, f"not {state}: {found}\n{self.gateway.output()}"
            time.sleep(0.05)
        return found


@pytest.fixture
def agent(make_home: Callable[..., ClusterHome], discord: DiscordProcess) -> Iterator[Agent]:
    made = Agent(make_home("webster"), discord)
    yield made
    made.gateway.close()


def resident(pid: int) -> float:
    """MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def test_connected_and_idle_it_takes_little_memory(agent: Agent) -> None:
    for _ in ("to write the bytecode", "to be measured"):
        agent.gateway.start(PYTHONDONTWRITEBYTECODE="")
        agent.until("ready")
        time.sleep(1)  # what its start has left behind is gone by then
        taken = resident(agent.gateway.pid)
        agent.gateway.stop()
    assert taken <= CONNECTED_MIB


def test_it_serves_while_discord_is_down_and_connects_when_it_is_up(agent: Agent) -> None:
    agent.discord.down()
    agent.gateway.start()
    shown = agent.until("degraded")
    assert shown.next_at is not None
    assert agent.gateway.wait_healthy()
    agent.discord.up()
    assert agent.until("ready").name == "webster"


def test_a_token_that_is_revoked_is_shown_and_a_new_one_taken_by_a_reload(agent: Agent) -> None:
    agent.gateway.start()
    agent.until("ready")
    agent.discord.revoke("webster")
    assert "atomizer secrets set webster discord" in agent.until("auth_failed").detail
    token = agent.discord.restore("webster", "another.token.of-webster")
    agent.store(token)
    agent.gateway.ask.send("POST", "/control/reload", {}, Acted)
    agent.until("ready")


def test_no_token_is_in_a_log_or_the_status(agent: Agent) -> None:
    agent.gateway.start()
    agent.until("ready")
    agent.discord.revoke("webster")
    agent.until("auth_failed")
    token = agent.discord.view.bot("webster")["token"]
    logs = "".join(path.read_text() for path in agent.home.home.logs("webster").iterdir())
    assert token not in logs + str(agent.channel())
