"""The control API, for tests in other processes: POST /control/<action> with its arguments, GET /control/state.

POST answers {"result": ...}, or 400 {"error": ...}. GET /control/state?after=V&wait=S answers the data of a `View` as
soon as its version is beyond V, at the latest after S seconds; with `events=N` and `requests=M` these two lists, which
grow long, only from there on.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from typing import TYPE_CHECKING

from aiohttp import web

from tests.standins.discord.call import answer
from tests.standins.discord.model import Refused
from tests.standins.discord.view import snapshot

if TYPE_CHECKING:
    from tests.standins.discord.server import DiscordServer


GATHER_SECONDS = 0.005
"""What changes together is told together."""


def control_app(server: DiscordServer) -> web.Application:
    async def state(request: web.Request) -> web.Response:
        after, wait = int(request.query.get("after", -1)), float(request.query.get("wait", 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await server.state.wait_change(after)
                await asyncio.sleep(GATHER_SECONDS)
        data = snapshot(server.state, server.gateway)
        for name in ("events", "requests"):
            data[name] = data[name][int(request.query.get(name, 0)) :]
        return answer(data)

    async def act(request: web.Request) -> web.Response:
        try:
            arguments = json.loads(await request.read() or b"{}")
            result = server.call(request.match_info["action"], arguments)
            if inspect.isawaitable(result):
                result = await result
        except (LookupError, AssertionError, TypeError, ValueError, Refused) as error:
            return answer({"error": f"{type(error).__name__}: {error}"}, 400)
        return answer({"result": result})

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_get("/control/state", state)
    app.router.add_post("/control/{action}", act)
    return app
