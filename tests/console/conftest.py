"""Homes, stand-in gateways on leased ports, and a console driven by Pilot at a fixed size."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from console.app import ConsoleApp, Options
from runtime.config import load_cluster
from runtime.home import Home
from runtime.secrets import Secrets
from tests.console.standin import OPERATOR, VIEWER, StandIn
from tests.ports import Lease

AGENTS = ("manager", "optimizer", "webster")


class FakeSupervisor:
    """What the console needs of a supervisor client; `down` is a dead supervisor."""

    def __init__(self) -> None:
        self.down = False
        self.done: list[tuple[str, list[str]]] = []
        self.revived = 0
        self.children: list[Any] = []

    def connect(self, home: Home, revive: bool) -> FakeSupervisor:
        if revive and self.down:
            self.down = False
            self.revived += 1
        return self

    def list(self) -> list[Any]:
        if self.down:
            raise OSError("no supervisor is running")
        return self.children

    def start(self, names: Any) -> None:
        self.done.append(("start", list(names)))

    def stop(self, names: Any) -> None:
        self.done.append(("stop", list(names)))

    def restart(self, names: Any) -> None:
        self.done.append(("restart", list(names)))


class Fleet:
    """A home with some agents, their stand-ins, and the way to open a console on them."""

    def __init__(self, root: Path, ports: list[int], disabled: tuple[str, ...] = ()) -> None:
        self.home = Home(root)
        text = 'name = "testbed"\n'
        for name, port in zip((*AGENTS, *disabled), ports, strict=False):
            text += f"[agents.{name}]\nport = {port}\nenabled = {'false' if name in disabled else 'true'}\n"
        text += '[authority]\nmanager = ["*"]\n'
        self.home.cluster_toml.write_text(text)
        secrets = Secrets(self.home)
        secrets.set("operator", "token", OPERATOR)
        secrets.set("viewer", "token", VIEWER)
        self.gateways = {name: StandIn(name, port) for name, port in zip(AGENTS, ports, strict=False)}
        self.supervisor = FakeSupervisor()

    def __getitem__(self, name: str) -> StandIn:
        return self.gateways[name]

    def app(self, token: str = OPERATOR, **options: Any) -> ConsoleApp:
        return ConsoleApp(
            load_cluster(self.home),
            token,
            Options(**options),
            connect=self.supervisor.connect,
            jitter=lambda low, high: random.uniform(0.01, 0.05),
        )

    @asynccontextmanager
    async def console(
        self, size: tuple[int, int] = (120, 40), token: str = OPERATOR, **options: Any
    ) -> AsyncIterator[tuple[ConsoleApp, Pilot[None]]]:
        """A running console that has heard every gateway that runs."""
        app = self.app(token, **options)
        async with app.run_test(size=size) as pilot:
            running = [name for name, gateway in self.gateways.items() if gateway.running]
            await until(lambda: all(app.store.agents[n].live and app.store.agents[n].status for n in running))
            await settle(app, pilot)
            yield app, pilot


async def until(true: Callable[[], Any], seconds: float = 8.0) -> None:
    """Wait until `true()`; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is awaited is the screen, which has no event of its own
            await asyncio.sleep(0.01)


async def settle(app: ConsoleApp, pilot: Pilot[None]) -> None:
    """Show everything that the store knows."""
    await pilot.pause()
    app.flush()
    await pilot.pause()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    with Lease(4) as lease:
        made = Fleet(tmp_path, lease.ports, disabled=("it",))
        for gateway in made.gateways.values():
            await gateway.start()
        yield made
        for gateway in made.gateways.values():
            await gateway.stop()
