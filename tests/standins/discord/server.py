"""The stand-in in the test's own process: `async with DiscordServer() as discord`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from tests.standins.discord.actions import action
from tests.standins.discord.call import API, Limits, Pipeline
from tests.standins.discord.changes import Changes
from tests.standins.discord.control import control_app
from tests.standins.discord.directory import Directory
from tests.standins.discord.faults import GatewayFaults, RestFaults
from tests.standins.discord.furniture import Furniture
from tests.standins.discord.gateway import Gateway
from tests.standins.discord.humans import Humans
from tests.standins.discord.interactions import Interactions, Pressing
from tests.standins.discord.mischief import Mischief
from tests.standins.discord.model import Clock
from tests.standins.discord.ports import Port
from tests.standins.discord.rest import Rest
from tests.standins.discord.state import State
from tests.standins.discord.view import View, snapshot

T = TypeVar("T")


class DiscordServer(Furniture, Humans, Pressing, Mischief):
    """Three ports: REST and CDN (which serves /gw too), the gateway, the control API. Each goes down by itself."""

    def __init__(self, heartbeat_seconds: float = 41.25, clock: Clock | None = None) -> None:
        self.state = State(clock)
        self.changes = Changes(self.state)
        self.faults = RestFaults()
        self.gateway_faults = GatewayFaults()
        self.limits = Limits()
        self.gateway = Gateway(self.state, self.gateway_faults)
        self.gateway.heartbeat_seconds = heartbeat_seconds
        self.changes.publish = self.gateway.publish
        self._ports = {
            "rest": Port(self._rest_app),
            "gateway": Port(self._gateway_app),
            "control": Port(lambda: control_app(self)),
        }

    # --- where it is

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['rest'].number}"

    @property
    def api_base(self) -> str:
        """For discord.py's Route.BASE."""
        return self.url + API

    @property
    def gateway_url(self) -> str:
        """For DiscordWebSocket.DEFAULT_GATEWAY."""
        return f"ws://127.0.0.1:{self._ports['gateway'].number}/gw"

    @property
    def cdn(self) -> str:
        """For discord.Asset.BASE."""
        return f"{self.url}/cdn"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['control'].number}/control"

    @property
    def addresses(self) -> dict[str, str]:
        return {
            "api_base": self.api_base,
            "gateway_url": self.gateway_url,
            "cdn": self.cdn,
            "control": self.control_url,
        }

    # --- its life

    async def __aenter__(self) -> DiscordServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """`port` is REST's; the others take free ones."""
        self._ports["rest"].reserve(port)
        for each in self._ports.values():
            await each.open()
        self.state.cdn = self.cdn
        self.gateway.url = self.gateway_url

    async def stop(self) -> None:
        self.faults.hung.set()
        for each in self._ports.values():
            await each.close(keep=False)

    @action
    async def down(self, what: str = "both") -> None:
        """`rest`, `gateway` or `both`: connections are cut, new ones refused. Await it where the server is yours."""
        for name in ("rest", "gateway") if what == "both" else (what,):
            await self._ports[name].close()
        self.state.record("down", what=what)

    @action
    async def up(self, what: str = "both") -> None:
        """On the same ports as before."""
        for name in ("rest", "gateway") if what == "both" else (what,):
            await self._ports[name].open()
        self.state.record("up", what=what)

    def _rest_app(self) -> web.Application:
        pipeline = Pipeline(self.state, self.faults, self.limits)
        app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[pipeline.__call__])
        Rest(self.state, self.changes, self.gateway).add_to(app)
        Directory(self.state, self.gateway).add_to(app)
        Interactions(self.state, self.changes).add_to(app)
        app.router.add_get("/gw", self.gateway.handle)
        return app

    def _gateway_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/gw", self.gateway.handle)
        app.router.add_get("/", self.gateway.handle)
        return app

    # --- what it has seen

    @property
    def view(self) -> View:
        """This moment."""
        return View(snapshot(self.state, self.gateway))

    async def wait_for(self, holds: Callable[[View], T], seconds: float = 10.0) -> T:
        """The first true value of `holds`, asked again after each change; AssertionError with the last events else."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    view = self.view
                    if found := holds(view):
                        return found
                    await self.state.wait_change(view.version)
        except TimeoutError:
            raise AssertionError(f"not seen within {seconds} s\n{self.view.tail()}") from None

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """An action by name; LookupError for what is none."""
        function = getattr(self, method, None)
        if not getattr(function, "is_action", False):
            raise LookupError(f"no action is called {method!r}")
        assert function is not None
        return function(**arguments)
