"""Money through real gateways and a model server of known prices: claude-opus-4-6, $5 and $25 a million tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from protocols.control import Acted
from protocols.runs import Run, RunState
from protocols.usage import UsageReport
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Fault, Match, Reply, Tokens

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]
DOLLAR = Tokens(input=100_000, output=20_000)
"""What costs one dollar: half for the tokens sent, half for those answered."""


def set_budget(home: ClusterHome, file: str, **keys: Any) -> None:
    """Replace the [budget] table of `cluster.toml` (or an agent's file, by its name)."""
    path = home.home.cluster_toml if file == "cluster" else home.home.instance_toml(file)
    lines = path.read_text().splitlines()
    kept, inside = [], False
    for line in lines:
        inside = line.strip() == "[budget]" or (inside and not line.startswith("["))
        if not inside:
            kept.append(line)
    table = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    path.write_text("\n".join([*kept, "", "[budget]", *table, ""]))


@contextmanager
def spending(home: ClusterHome, server: ModelProcess, *agents: str) -> Iterator[list[GatewayProcess]]:
    use_models(home, server)
    for agent in agents:  # one model, so that no fallback's price has a say
        path = home.home.instance_toml(agent)
        text = path.read_text()
        primary = next(line for line in text.splitlines() if line.startswith("primary"))
        fallbacks = next((line for line in text.splitlines() if line.startswith("fallbacks")), "")
        path.write_text(
            text.replace(primary, 'primary = "anthropic/claude-opus-4-6"').replace(fallbacks, "fallbacks = []")
        )
    with running(home, *agents) as gateways:
        yield gateways


def wait_until(gateway: GatewayProcess, run_id: str, state: RunState, seconds: float = 20.0) -> Run:
    until = time.monotonic() + seconds
    while True:
        run: Run = gateway.ask.run(run_id)
        if run.state is state:
            return run
        assert not run.state.ended, run.reason
        assert time.monotonic() < until, f"still {run.state}, not {state}"
        time.sleep(0.02)


def reload(gateway: GatewayProcess) -> None:
    assert gateway.ask.send("POST", "/control/reload", {}, Acted).ok


def test_over_the_agent_s_budget_a_run_waits_until_the_operator_raises_it(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="That was a dollar.", tokens=DOLLAR, times=0))
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.5)
    with spending(home, server, "manager") as (gateway,):
        first = gateway.result(gateway.delegate("one"))
        assert first.cost_usd == pytest.approx(1.0)
        budget = gateway.status().budget
        assert (budget.state, budget.over, budget.waiting) == ("ok", "wait", 0)
        assert budget.agent.spent_usd == budget.cluster.spent_usd == pytest.approx(1.0)
        assert (budget.agent.limit_usd, budget.agent.reserved_usd, budget.agent.spent_tokens) == (1.5, 0.0, 120_000)
        gateway.result(gateway.delegate("two"))

        third = gateway.delegate("three")
        waiting = wait_until(gateway, third, RunState.WAITING)
        assert waiting.reason.startswith("over budget: the agent's budget of $1.50 a day: $2.00 spent")
        status = gateway.status()
        assert (status.budget.state, status.budget.waiting, status.queue.waiting) == ("over", 1, 1)
        assert "daily_usd" in status.budget.reason or "is spent" in status.budget.reason
        assert status.budget.resets_at is not None
        assert len(server.requests()) == 2

        set_budget(home, "manager", daily_usd=9.0)
        reload(gateway)
        assert gateway.result(third).text == "That was a dollar."
        assert gateway.status().budget.agent.spent_usd == pytest.approx(3.0)


def test_what_waits_for_money_goes_on_after_a_restart_and_can_be_cancelled(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="That was a dollar.", tokens=DOLLAR, times=0))
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.0)
    with spending(home, server, "manager") as (gateway,):
        gateway.result(gateway.delegate("one"))
        second, third = gateway.delegate("two"), gateway.delegate("three")
        wait_until(gateway, second, RunState.WAITING)
        wait_until(gateway, third, RunState.WAITING)
        gateway.ask.send("POST", f"/hooks/runs/{third}/cancel", {}, Acted)
        assert gateway.result(third).state is RunState.CANCELLED
        gateway.kill()
        set_budget(home, "manager", daily_usd=5.0)
        gateway.start()
        assert gateway.result(second).state is RunState.SUCCEEDED
        assert len(server.requests()) == 2


def test_over_budget_a_run_fails_if_that_is_what_is_configured(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="That was a dollar.", tokens=DOLLAR, times=0))
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.0, over="fail")
    with spending(home, server, "manager") as (gateway,):
        gateway.result(gateway.delegate("one"))
        refused = gateway.result(gateway.delegate("two"))
        assert refused.state is RunState.FAILED
        assert refused.error is not None
        assert refused.error.code == "budget"
        assert "$1.00 a day" in refused.error.message
        assert len(server.requests()) == 1


def test_a_call_that_no_day_has_room_for_fails_at_once_with_the_mend(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="never", times=0))
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=0.01)
    with spending(home, server, "manager") as (gateway,):
        refused = gateway.result(gateway.delegate("one"))
        assert refused.error is not None
        assert refused.error.code == "budget"
        assert "max_output_tokens" in refused.error.message
        assert server.requests() == []


def test_two_agents_share_the_cluster_s_budget_and_the_ledger_makes_good_what_a_lost_file_knew(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(Reply(text="That was a dollar.", tokens=DOLLAR, times=0))
    home = make_home("manager", "auditor")
    set_budget(home, "cluster", daily_usd=1.9, over="fail")
    set_budget(home, "manager")
    set_budget(home, "auditor")
    with spending(home, server, "manager", "auditor") as (manager, auditor):
        manager.result(manager.delegate("one"))
        assert auditor.result(auditor.delegate("two")).state is RunState.SUCCEEDED
        refused = manager.result(manager.delegate("three"))
        assert refused.error is not None
        assert refused.error.message.startswith("the cluster's budget of $1.90 a day: $2.00 spent")
        assert manager.status().budget.agent.spent_usd == pytest.approx(1.0)
        assert auditor.stop() == manager.stop() == 0
        for path in home.home.run.glob("budget.db*"):
            path.unlink()
        manager.start()
        refused = manager.result(manager.delegate("four", timeout_seconds=20))
        assert refused.state is RunState.SUCCEEDED, "the auditor's dollar is known again when it starts"
        auditor.start()
        assert auditor.result(auditor.delegate("five")).state is RunState.FAILED
        assert auditor.status().budget.cluster.spent_usd == pytest.approx(3.0)


def test_killed_between_reserving_and_settling_the_money_comes_back_and_nothing_is_counted_twice(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(text="This answer never ends and is cut by a kill", fault=Fault(breaks="stall", after=2)),
        Reply(text="That was a dollar.", tokens=DOLLAR, times=0),
    )
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.2)
    with spending(home, server, "manager") as (gateway,):
        run_id = gateway.delegate("one")
        until = time.monotonic() + 20
        while not server.requests():
            assert time.monotonic() < until
            time.sleep(0.02)
        reserved = gateway.status().budget.agent.reserved_usd
        assert 0.2 < reserved < 1.2
        gateway.kill()
        gateway.start()
        assert gateway.result(run_id).state is RunState.SUCCEEDED
        budget = gateway.status().budget
        assert (budget.agent.reserved_usd, budget.agent.spent_usd) == (0.0, pytest.approx(1.0))


def test_a_model_without_a_known_price_has_a_cap_on_tokens_and_its_cost_stays_unknown(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(Reply(text="Cheap, surely.", tokens=Tokens(input=30_000, output=10), times=0))
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.0, daily_tokens=60_000, over="fail")
    with spending(home, server, "manager") as (gateway,):
        first = gateway.result(gateway.delegate("one", model="anthropic/made-up-1"))
        assert (first.state, first.cost_usd) == (RunState.SUCCEEDED, None)
        second = gateway.result(gateway.delegate("two", model="anthropic/made-up-1"))
        third = gateway.result(gateway.delegate("three", model="anthropic/made-up-1"))
        assert third.error is not None, second
        assert third.error.code == "budget"
        assert "60,000 tokens a day" in third.error.message
        status = gateway.status()
        assert status.cost_today_usd is None
        assert status.budget.agent.spent_usd == 0.0


def test_offline_answers_reserve_nothing_and_make_no_file(make_home: MakeHome) -> None:
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=0.0, over="fail")
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("status"))
        assert (run.state, run.cost_usd) == (RunState.SUCCEEDED, 0.0)
        assert not (home.home.run / "budget.db").exists()


def test_a_heartbeat_does_not_begin_without_money(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(text="That was a dollar.", tokens=DOLLAR, match=Match(text="one"), times=0),
        Reply(text="HEARTBEAT_OK", times=0),
    )
    home = make_home("manager")
    set_budget(home, "manager", daily_usd=1.0)
    path = home.home.instance_toml("manager")
    path.write_text(path.read_text().replace('every = "30m"', 'every = "2s"').replace("quiet =", "# quiet ="))
    with spending(home, server, "manager") as (gateway,):
        until = time.monotonic() + 20
        while gateway.status().heartbeat.last_outcome != "ok":
            assert time.monotonic() < until, gateway.status().heartbeat
            time.sleep(0.05)
        beat = gateway.status().heartbeat
        assert beat.last_run_id is not None
        assert beat.last_usage.output_tokens == 5
        assert beat.last_cost_usd == pytest.approx(10 * 5e-6 + 5 * 25e-6)
        asked = len(server.requests())
        gateway.result(gateway.delegate("one"))
        while not gateway.status().heartbeat.last_outcome.startswith("skipped: budget"):
            assert time.monotonic() < until, gateway.status().heartbeat
            time.sleep(0.05)
        assert len(server.requests()) <= asked + 2


def test_usage_sums_by_day_model_session_and_run(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="That was a dollar.", tokens=DOLLAR, times=0))
    home = make_home("manager")
    set_budget(home, "cluster", daily_usd=30.0)
    with spending(home, server, "manager") as (gateway,):
        for text in ("one", "two"):
            gateway.result(gateway.delegate(text, session_key="study-7"))
        last = gateway.delegate("three")
        gateway.result(last)
        report = gateway.ask.get("/usage?days=2&limit=2", UsageReport)
        (row,) = report.rows
        assert (row.model, row.calls, row.usage.input_tokens) == ("anthropic/claude-opus-4-6", 3, 300_000)
        assert row.cost_usd == pytest.approx(3.0)
        dearest = report.sessions[0]
        assert (dearest.session_key, dearest.runs, dearest.cost_usd) == ("study-7", 2, pytest.approx(2.0))
        assert len(report.runs) == 2
        assert report.budget.agent.spent_usd == pytest.approx(3.0)
        told = home.cli("usage", "manager")
        assert "anthropic/claude-opus-4-6      3  300,000" in told
        assert "$3.00" in told
        assert "today, the cluster: $3.00 of $30.00" in told
        (agent,) = home.json("usage", "--days", "1")["agents"]
        assert agent["sessions"][0]["sessionKey"] == "study-7"
        assert gateway.raw("GET", "/usage?days=0", None, gateway.headers())[0] == 400
        assert gateway.raw("GET", "/usage", None, gateway.headers("manager"))[0] == 403
