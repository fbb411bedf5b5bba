"""A real gateway with OpenAI's SDK: a key, a server of one's own, and an account whose token has ended."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.runs import Run, RunState
from runtime.oauth.credential import Credential, CredentialFile
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.obeying import wait_until
from tests.gateway.process import running
from tests.standins.models import ModelServer
from tests.standins.models.script import Call, Fault, Match, Reply
from tests.standins.oauth_server import OAuthServer

MakeHome = Callable[..., ClusterHome]
MODEL = "openai/gpt-6.1-sol"


def configure(home: ClusterHome, agent: str, model: str, *, fallbacks: tuple[str, ...] = (), extra: str = "") -> None:
    """Another primary for `agent`, and more of cluster.toml."""
    path = home.home.instance_toml(agent)
    lines = [
        f'primary = "{model}"'
        if line.startswith("primary")
        else f"fallbacks = {json.dumps(fallbacks)}"
        if line.startswith("fallbacks")
        else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    cluster = home.home.cluster_toml
    cluster.write_text(cluster.read_text().replace('profile = "offline"', 'profile = "live"') + extra)


def test_a_turn_with_a_tool_call_through_the_real_sdk(make_home: MakeHome, serve: Callable[..., ModelProcess]) -> None:
    server = serve(
        Reply(text="I will note it. ", calls=[Call("memory_write", {"text": "the mirror is 1.2 m"}, id="call_1")]),
        Reply(text="Noted."),
    )
    home = make_home("webster")
    use_models(home, server)
    configure(home, "webster", MODEL)
    with running(home, "webster") as (gateway,):
        assert gateway.raw("GET", "/ready")[0] == 200
        run = gateway.result(gateway.delegate("Remember that the mirror is 1.2 m."))
        assert (run.state, run.text, run.model) == (RunState.SUCCEEDED, "Noted.", MODEL)
        assert gateway.notes().count("the mirror is 1.2 m") == 1
        assert run.cost_usd is not None
        assert run.cost_usd > 0
        written = gateway.home.home.logs("webster").joinpath("gateway.jsonl").read_text() + gateway.output()
        assert server.key not in written


def test_a_server_of_ones_own_needs_no_key_and_falls_back_for_a_turn(
    make_home: MakeHome, serve: Callable[..., ModelProcess]
) -> None:
    server = serve(
        Reply(text="This answer is cut", fault=Fault(breaks="cut"), match=Match(api="chat"), times=3),
        Reply(fault=Fault(status=500), match=Match(api="chat")),
        Reply(text="From Claude.", match=Match(api="anthropic"), times=0),
        Reply(text="From the workshop.", match=Match(api="chat"), times=0),
    )
    home = make_home("webster")
    use_models(home, server)
    extra = f'[providers.workshop]\nkind = "openai"\nbase_url = "{server.url}/v1"\n'
    configure(home, "webster", "workshop/qwen3-32b", fallbacks=("anthropic/claude-opus-4-6",), extra=extra)
    assert home.run("secrets", "set", "workshop", stdin=server.key).returncode == 0
    with running(home, "webster") as (gateway,):
        first = gateway.result(gateway.delegate("Say something."), seconds=60)
        assert (first.state, first.text, first.model) == (
            RunState.SUCCEEDED,
            "From Claude.",
            "anthropic/claude-opus-4-6",
        )
        assert "workshop/qwen3-32b is passed over" in gateway.status().model.reason
        second = gateway.result(gateway.delegate("And again."), seconds=60)
        assert second.text == "From Claude.", "the cooldown is shared by the runs of the gateway"
        assert len([r for r in server.requests() if r["api"] == "chat"]) == 4


class Servers:
    """A model server that takes what an authorization server gave; both on a loop of their own."""

    def __init__(self, *replies: Reply) -> None:
        self.models = ModelServer(*replies)
        self.oauth = OAuthServer()
        self.models.accepts = self.oauth.accepts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self.models.start())
        self.call(self.oauth.start())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def close(self) -> None:
        self.call(self.models.stop())
        self.call(self.oauth.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def toml(self) -> str:
        return self.oauth.toml(f"{self.models.url}/v1")


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers(Reply(text="Hello from the plan.", times=0))
    yield made
    made.close()


def sign_in(home: ClusterHome, servers: Servers, *, lasts: float) -> Credential:
    access, refresh = servers.oauth.issue()
    now = time.time()
    credential = Credential(access, refresh, obtained_at=now, expires_at=now + lasts, account_id="acct-1")
    CredentialFile(home.home, "openai").write(credential)
    return credential


def children(pid: int) -> list[str]:
    """Pids of what a process's threads have started."""
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def ask(gateway: Any, text: str = "Say something.") -> Run:
    run: Run = gateway.result(gateway.delegate(text), seconds=60)
    return run


def test_an_account_whose_token_has_ended_is_renewed_once_for_all_agents(make_home: MakeHome, servers: Servers) -> None:
    home = make_home("webster", "manager", "secretary")
    agents = ("webster", "manager", "secretary")
    for agent in agents:
        configure(home, agent, MODEL, extra=servers.toml if agent == "webster" else "")
    before = sign_in(home, servers, lasts=-10)
    with running(home, *agents) as gateways:
        ids = [gateway.delegate("Say something.") for gateway in gateways]
        runs = [gateway.result(id, seconds=60) for gateway, id in zip(gateways, ids, strict=True)]
        assert [(run.state, run.text) for run in runs] == [(RunState.SUCCEEDED, "Hello from the plan.")] * 3
        assert {run.cost_usd for run in runs} == {0.0}
        assert (servers.oauth.refreshes, servers.oauth.asked) == (1, 1)
        after = CredentialFile(home.home, "openai").read()
        assert after is not None
        seen = servers.models.seen[0]
        assert seen.path == "/v1/responses"
        assert seen.headers["authorization"] == f"Bearer {after.access_token}"
        assert seen.headers["chatgpt-account-id"] == "acct-1"
        assert "max_output_tokens" not in seen.body
        told = json.dumps([gateway.raw("GET", "/status", None, gateway.headers())[2] for gateway in gateways])
        logs = "".join(home.home.logs(agent).joinpath("gateway.jsonl").read_text() for agent in agents)
        for secret in (before.access_token, before.refresh_token, after.access_token, after.refresh_token):
            assert secret not in told + logs


@pytest.mark.slow
def test_a_gateway_that_waits_for_another_s_refresh_ends_when_it_is_told(make_home: MakeHome, servers: Servers) -> None:
    """The helper waits a minute for the lock, and a thread of the gateway's for the helper: neither is waited for."""
    home = make_home("webster")
    configure(home, "webster", MODEL, extra=servers.toml)
    sign_in(home, servers, lasts=-10)
    with CredentialFile(home.home, "openai").locked(), running(home, "webster") as (gateway,):
        run_id = gateway.delegate("Say something.")
        wait_until(lambda: children(gateway.pid))
        assert gateway.stop(seconds=35) == 0
        assert gateway.sql("SELECT state FROM runs WHERE id = ?", run_id) == [("queued",)]
    with running(home, "webster") as (gateway,):
        assert gateway.result(run_id, seconds=60).text == "Hello from the plan."


def test_a_token_refused_before_its_time_is_renewed_within_the_run(make_home: MakeHome, servers: Servers) -> None:
    home = make_home("webster")
    configure(home, "webster", MODEL, extra=servers.toml)
    sign_in(home, servers, lasts=3600)
    servers.oauth.revoke_access()
    with running(home, "webster") as (gateway,):
        run = ask(gateway)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "Hello from the plan.")
        assert servers.oauth.refreshes == 1


def test_a_refused_account_is_shown_is_not_asked_for_again_and_works_after_signing_in(
    make_home: MakeHome, servers: Servers
) -> None:
    home = make_home("webster")
    configure(home, "webster", MODEL, extra=servers.toml)
    sign_in(home, servers, lasts=-10)
    file = CredentialFile(home.home, "openai")
    found = file.read()
    assert found is not None
    file.write(Credential(found.access_token, "rt-unknown", found.obtained_at, found.expires_at))
    with running(home, "webster") as (gateway,):
        run = ask(gateway)
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.code == "model_auth"
        assert "atomizer login openai" in run.reason
        again = ask(gateway)
        assert again.error is not None
        assert again.error.code == "model_auth", "so that the heartbeat pauses too"
        assert servers.oauth.asked == 1
        status = gateway.status()
        assert (status.state, status.model.usable) == ("degraded", False)
        assert "atomizer login openai" in status.model.reason
        assert gateway.raw("GET", "/ready")[0] == 503
        sign_in(home, servers, lasts=3600)
        gateway.post("/control/reload", {})
        assert gateway.raw("GET", "/ready")[0] == 200
        assert ask(gateway).text == "Hello from the plan."


def test_a_gateway_killed_during_the_renewal_loses_nothing(make_home: MakeHome, servers: Servers) -> None:
    home = make_home("webster")
    configure(home, "webster", MODEL, extra=servers.toml)
    sign_in(home, servers, lasts=-10)

    async def hold() -> None:
        servers.oauth.hold = asyncio.Event()

    async def let_go() -> None:
        assert servers.oauth.hold is not None
        servers.oauth.hold.set()

    async def spent() -> None:
        await servers.oauth.spent.wait()

    servers.call(hold())
    with running(home, "webster") as (gateway,):
        run_id = gateway.delegate("Say something.")
        servers.call(spent())
        gateway.kill()
        servers.call(let_go())
        gateway.start()
        run = gateway.result(run_id, seconds=60)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "Hello from the plan.")
        assert (servers.oauth.refreshes, servers.oauth.asked) == (1, 1)
