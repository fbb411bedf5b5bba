"""The stand-in beside the test, in a process or a thread, with the same actions over the control API."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from tests.standins.discord.server import DiscordServer
from tests.standins.discord.view import View

ROOT = Path(__file__).resolve().parents[3]
T = TypeVar("T")
START_SECONDS = 60


class Remote:
    """Every action of DiscordServer as a plain call: `remote.say("general", "antoine", "hello")`."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.api_base = addresses["api_base"]
        self.gateway_url = addresses["gateway_url"]
        self.cdn = addresses["cdn"]
        self.control_url = addresses["control"]
        self._known: dict[str, list[dict[str, Any]]] = {"events": [], "requests": []}
        self._merging = threading.Lock()

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """AssertionError with the stand-in's words where it refuses."""
        status, body = self._ask("POST", f"/{method}", json.dumps(arguments).encode())
        assert status == 200, f"{method}: {body.get('error', body)}"
        return body["result"]

    @property
    def view(self) -> View:
        return self._look(-1, 0.0)

    def _look(self, after: int, wait: float) -> View:
        """The state, of which the long lists are fetched only where they may have changed."""
        with self._merging:
            counts = {name: len(rows) for name, rows in self._known.items()}
        path = f"/state?after={after}&wait={wait:.3f}&events={counts['events']}&requests={counts['requests']}"
        data = self._ask("GET", path)[1]
        with self._merging:
            for name, known in self._known.items():
                data[name] = known[: counts[name]] + data[name]
                settled = [row.get("done", True) for row in data[name]]
                final = settled.index(False) if False in settled else len(settled)
                if final > len(known):  # another thread may have seen more already
                    self._known[name] = data[name][:final]
        return View(data)

    def wait_for(self, holds: Callable[[View], T], seconds: float = 10.0) -> T:
        """The first true value of `holds`, asked again after each change; AssertionError with the last events else."""
        until = time.monotonic() + seconds
        after = -1
        while True:
            left = max(0.0, until - time.monotonic())
            view = self._look(after, left)
            if found := holds(view):
                return found
            if left == 0.0:
                raise AssertionError(f"not seen within {seconds} s\n{view.tail()}")
            after = view.version

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        at = urlsplit(self.control_url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
        try:
            connection.request(method, at.path + path, body)
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()


def _forward(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    def forward(self: Remote, *positional: Any, **named: Any) -> Any:
        arguments = dict(signature.bind(self, *positional, **named).arguments)
        del arguments["self"]
        for parameter in signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= arguments.pop(parameter.name, {})
        return self.call(name, arguments)

    forward.__name__, forward.__doc__ = name, function.__doc__
    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


for _name, _function in inspect.getmembers(DiscordServer, inspect.isfunction):
    if getattr(_function, "is_action", False):
        setattr(Remote, _name, _forward(_name, _function))


class DiscordProcess(Remote):
    """`python -m tests.standins.discord`; close it, or use it as a context. It ends with us, however we end."""

    def __init__(self, port: int = 0, heartbeat_seconds: float = 41.25) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.standins.discord"),
                *("--port", str(port), "--heartbeat", str(heartbeat_seconds), "--until-stdin-ends"),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_SECONDS)[0]:
            self.close()
            raise AssertionError(f"the stand-in did not start within {START_SECONDS} s")
        super().__init__(json.loads(self._process.stdout.readline()))

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise
        finally:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> DiscordProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiscordThread(Remote):
    """The server on a loop of its own in a thread; close it, or use it as a context."""

    def __init__(self, port: int = 0, heartbeat_seconds: float = 41.25) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = DiscordServer(heartbeat_seconds)
        self._thread = threading.Thread(target=self._loop.run_forever, name="discord-standin", daemon=True)
        self._thread.start()
        self._run(self._server.start(port))
        super().__init__(self._server.addresses)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def close(self) -> None:
        self._run(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> DiscordThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
