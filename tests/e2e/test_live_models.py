"""Real gateways with the real SDKs, against a local server that speaks the providers' APIs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Fault, Match, Reply, Tokens

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]


def wait_for(gateway: GatewayProcess, query: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not gateway.sql(query)[0][0]:
        assert time.monotonic() < until, f"never true: {query}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("agent", "model", "limit_mib"),
    [("manager", "anthropic/claude-opus-4-6", 110), ("webster", "google/gemini-3.8-flash", 92)],
)
def test_a_turn_with_a_tool_call_through_the_real_sdk(
    make_home: MakeHome, serve: Serve, agent: str, model: str, limit_mib: int
) -> None:
    server = serve(
        Reply(
            text="I will note it. ",
            calls=[Call("memory_write", {"text": "the mirror is 1.2 m"})],
            tokens=Tokens(input=1000, output=50),
        ),
        Reply(text="Noted: the mirror is 1.2 m.", tokens=Tokens(input=1100, output=20)),
    )
    home = make_home(agent)
    use_models(home, server)
    with running(home, agent) as (gateway,):
        assert gateway.raw("GET", "/ready")[0] == 200
        run = gateway.result(gateway.delegate("Remember that the mirror is 1.2 m."))
        assert (run.state, run.text, run.model) == (RunState.SUCCEEDED, "Noted: the mirror is 1.2 m.", model)
        assert [(s.kind, s.name, s.state) for s in run.steps] == [
            ("model", model, "done"),
            ("tool", "memory_write", "done"),
            ("model", model, "done"),
        ]
        assert (run.usage.input_tokens, run.usage.output_tokens) == (2100, 70)
        assert run.cost_usd is not None
        assert run.cost_usd > 0
        assert gateway.notes().count("the mirror is 1.2 m") == 1
        rss = gateway.status().rss_bytes / 2**20
        print(f"\n{agent}: {rss:.0f} MiB after the first real call")
        assert rss < limit_mib
        written = gateway.home.home.logs(agent).joinpath("gateway.jsonl").read_text() + gateway.output()
        assert server.key not in written
        assert server.key not in str(gateway.raw("GET", "/status", None, gateway.headers())[2])


def test_killed_in_the_middle_of_an_answer_the_run_goes_on_and_its_tool_is_not_called_twice(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(calls=[Call("memory_write", {"text": "once and only once"})]),
        Reply(text="This answer never ends and is cut by a kill", fault=Fault(breaks="stall", after=2)),
        Reply(text="All done."),
    )
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        run_id = gateway.delegate("Keep this.")
        wait_for(gateway, "SELECT count(*) FROM steps WHERE kind = 'tool' AND state = 'done'")
        until = time.monotonic() + 20
        while len(server.requests()) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        gateway.kill()
        gateway.start()
        run = gateway.result(run_id)
        assert (run.state, run.text, run.attempts) == (RunState.SUCCEEDED, "All done.", 2)
        assert gateway.notes().count("once and only once") == 1
        assert len(server.requests()) == 3


def test_an_overloaded_primary_falls_back_to_the_other_provider_visibly(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(fault=Fault(status=529), match=Match(api="anthropic"), times=0),
        Reply(text="From the other side.", match=Match(api="gemini"), times=0),
    )
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("Say something."), seconds=60)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "From the other side.")
        assert run.model == "google/gemini-3.8-flash"
        assert gateway.status().model.last_used == "google/gemini-3.8-flash"


def test_a_refused_key_fails_the_run_with_the_mend_and_never_shows_the_key(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(fault=Fault(status=401, message="invalid x-api-key"), times=0))
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("Say something."), seconds=60)
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.code == "model_auth"
        assert server.key not in run.reason
        assert "invalid x-api-key" in run.reason
