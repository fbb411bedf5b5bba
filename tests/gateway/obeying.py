"""A model that calls exactly the tools it is told to, and a gateway whose model it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protocols.runs import Run
from runtime.secrets import API_KEY, Secrets
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words
from tests.standins.models.server import ModelServer


class Obedient(Script):
    """Takes the task's JSON, `[["tool", {arguments}], ...]`, for its answer's calls; then says "done"."""

    def take(self, seen: Seen) -> Reply | None:
        text, has_result = _last_words(seen)
        if has_result:
            return Reply(text="done")
        found = re.search(r"\[\[.*\]\]", text, re.DOTALL)
        calls = json.loads(found.group()) if found else []
        if not calls:
            return Reply(text="nothing to do")
        return Reply(calls=[Call(name, arguments, id=f"toolu_{n:02}") for n, (name, arguments) in enumerate(calls)])


@contextlib.contextmanager
def obedient_model() -> Iterator[ModelServer]:
    """Its server, in a thread of ours."""
    server = ModelServer()
    server.script = Obedient([])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def obey(home: ClusterHome, server: ModelServer, agent: str, tables: str = "", *, allow: tuple[str, ...] = ()) -> None:
    """Make `agent` ask that model; `allow` are more tools, `tables` more of its instance.toml."""
    path = home.home.cluster_toml
    if server.url not in path.read_text():
        text = path.read_text().replace('profile = "offline"', 'profile = "live"')
        providers = "".join(f'\n[providers.{p}]\nbase_url = "{server.url}"\n' for p in ("anthropic", "google"))
        path.write_text(text + providers)
        for provider in ("anthropic", "google"):
            Secrets(home.home).set(provider, API_KEY, server.key)
    instance = home.home.instance_toml(agent)
    names = "".join(f'"{name}", ' for name in allow)
    text = re.sub(r"(?m)^ask = .*$", "", instance.read_text())
    instance.write_text(text.replace("allow = [", f"allow = [{names}", 1) + f"\n{tables}\n")


class Hands:
    """What a model can do on one gateway."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.home = gateway.home.home
        self.workspace: Path = self.home.workspace(gateway.agent)

    def start(self, tool: str, **arguments: Any) -> str:
        """Have it called; the run's id."""
        return self.gateway.delegate(json.dumps([[tool, arguments]]))

    def call(self, tool: str, *, seconds: float = 60, **arguments: Any) -> str:
        """Its result, good or bad."""
        return self.calls((tool, arguments), seconds=seconds)[0]

    def calls(self, *calls: tuple[str, dict[str, Any]], seconds: float = 60) -> list[str]:
        """The results of several calls of one answer."""
        run: Run = self.gateway.result(self.gateway.delegate(json.dumps(calls)), seconds)
        query = "SELECT output FROM steps WHERE run_id = ? AND kind = 'tool' AND call_id NOT LIKE '%/%' ORDER BY idx"
        results = [str(row[0]) for row in self.gateway.sql(query, run.run_id)]
        assert len(results) == len(calls), f"{run.state}: {run.reason}"
        return results

    def exec(self, line: str, *, seconds: float = 60, **arguments: Any) -> str:
        return self.call("exec", seconds=seconds, command=line, **arguments)


SHELL = ("exec", "process", "write_file", "edit_file", "list_files", "search_files")


@contextlib.contextmanager
def hands(home: ClusterHome, agent: str, tables: str = "", **environment: str) -> Iterator[Hands]:
    """`agent` of `home`, running, with every tool of files and shell and nobody to ask."""
    with obedient_model() as server:
        obey(home, server, agent, tables, allow=SHELL)
        for name, value in environment.items():
            os.environ[name] = value
        try:
            with running(home, agent) as (gateway,):
                yield Hands(gateway)
        finally:
            for name in environment:
                del os.environ[name]


def with_words(*words: str) -> list[int]:
    """Pids of living processes whose command line has all of `words`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if all(word.encode() in line for word in words):
                    found.append(int(name))
    return found


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> float:
    """How long it took until `true()`; fails after `seconds`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never came true"
        time.sleep(0.02)
    return time.monotonic() - began
