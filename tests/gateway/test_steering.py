"""People who go on talking to a run that is at work: it takes in what it has room for, and the rest is not lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from protocols.runs import Run, RunState
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Reply, Script, Seen
from tests.standins.models.server import ModelServer

MakeHome = Callable[..., ClusterHome]
SESSION = "agent:webster:main"
MESSAGES = 15


class Interrupted(Script):
    """While it answers somebody says something more, so often; `runs` are theirs, the first one's first."""

    def __init__(self) -> None:
        super().__init__([])
        self.gateway: GatewayProcess | None = None
        self.runs: list[str] = []
        self.answers = 0

    def say(self) -> None:
        assert self.gateway is not None
        self.runs.append(self.gateway.delegate(f"message {len(self.runs)}", session_key=SESSION))

    def take(self, seen: Seen) -> Reply | None:
        self.answers += 1
        if 0 < len(self.runs) < MESSAGES:
            self.say()
        return Reply(text=f"answer {self.answers}")


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with obedient_model() as server:
        server.script = Interrupted()
        yield server


def flood(gateway: GatewayProcess, script: Interrupted) -> list[Run]:
    """All runs of a session in which somebody speaks whenever the model does."""
    script.gateway = gateway
    script.say()
    runs = [gateway.result(script.runs[0])]
    while len(runs) < MESSAGES:
        runs.append(gateway.result(script.runs[len(runs)]))
    return runs


def said(gateway: GatewayProcess) -> list[str]:
    rows = gateway.sql("SELECT content FROM messages WHERE session_key = ? AND role = 'user' ORDER BY seq", SESSION)
    return [block["text"] for (content,) in rows for block in json.loads(content) if block["type"] == "text"]


def test_a_flood_never_uses_up_the_steps_of_the_run_that_takes_it_in(make_home: MakeHome, model: ModelServer) -> None:
    home = make_home("webster")
    obey(home, model, "webster", "[limits]\nmax_steps = 8")
    with running(home, "webster") as (gateway,):
        runs = flood(gateway, model.script)
        assert [run.state for run in runs] == [RunState.SUCCEEDED] * MESSAGES, runs[0].reason
        answered = [run for run in runs if not run.reason]
        assert [len(run.steps) for run in answered] == [6, 6, 3], "two of the eight are left"
        assert [run.reason for run in runs[1:6]] == [f"answered with {runs[0].run_id}"] * 5
        assert runs[0].text == "\n\n".join(f"answer {n}" for n in range(1, 7))
        assert said(gateway) == [f"message {n}" for n in range(MESSAGES)]


def test_nor_its_money(make_home: MakeHome, model: ModelServer) -> None:
    home = make_home("webster")
    obey(home, model, "webster")
    with running(home, "webster") as (gateway,):
        once = gateway.result(gateway.delegate("What does it cost?")).cost_usd
        assert once
        path = home.home.instance_toml("webster")
        path.write_text(f"{path.read_text()}\n[limits]\nmax_cost_usd = {4.5 * once}\n")
        gateway.post("/control/reload", {})
        runs = flood(gateway, model.script)
        assert [run.state for run in runs] == [RunState.SUCCEEDED] * MESSAGES, runs[0].reason
        assert {len(run.steps) for run in runs if not run.reason} == {4, 3}
        assert said(gateway) == [f"message {n}" for n in range(MESSAGES)]
