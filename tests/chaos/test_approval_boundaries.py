"""SIGKILL at each commit of a run that asks a person: one question, one answer, and what was answered is done."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.agent.sessions import INTERRUPTED
from protocols.runs import RunState
from runtime.confine import landlock_abi
from tests.chaos.deaths import GEMINI, DyingGateway, answer, ask_about, cancel, die_at_each_commit, question
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, obedient_model, obey

MakeHome = Callable[..., ClusterHome]


@pytest.mark.parametrize(
    ("decision", "when"), [("approve", "before"), ("approve", "after"), ("reject", "before"), ("expire", "before")]
)
def test_a_kill_at_any_commit_of_a_question_leaves_one_question_and_one_answer(
    make_home: MakeHome, decision: str, when: str
) -> None:
    home = make_home("webster")
    ask_about(home, "memory_write", expires="1s" if decision == "expire" else "7d")
    gateway = DyingGateway(home)

    def story(number: int) -> None:
        run_id = gateway.delegate(f"remember asked {number}.", idempotency_key=f"key-{number}")
        if decision != "expire":
            answer(gateway, run_id, decision)
        run = gateway.end_of(run_id)
        assert run.state is RunState.SUCCEEDED, run
        rows = gateway.sql("SELECT state, revision, answered_by FROM approvals WHERE run_id = ?", run_id)
        (call,) = [step for step in run.steps if step.kind == "tool"]
        if decision == "approve":
            assert rows == [("approved", 2, "operator")]
            assert (call.state, gateway.notes().count(f"asked {number}.")) == ("done", 1)
        else:
            assert rows == [("rejected", 2, "operator") if decision == "reject" else ("expired", 2, None)]
            assert (call.state, f"asked {number}." in gateway.notes()) == ("failed", False)
            told = "rejected by operator: no" if decision == "reject" else "expired: nobody answered in time"
            assert told in run.text

    try:
        deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    print(f"\n{decision}, killed {when} each of {deaths} commits")
    assert deaths >= 10


@pytest.mark.slow
@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
def test_a_kill_at_any_commit_runs_an_approved_command_once_or_says_that_it_was_interrupted(
    make_home: MakeHome,
) -> None:
    home = make_home("webster")
    gateway = DyingGateway(home, "webster", *GEMINI)

    def story(number: int) -> None:
        call = ("exec", {"command": f"echo run >> ran{number}.txt"})
        run_id = gateway.delegate(json.dumps([call]), idempotency_key=f"key-{number}")
        answer(gateway, run_id, "approve")
        run = gateway.end_of(run_id)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run
        assert gateway.sql("SELECT state, revision FROM approvals WHERE run_id = ?", run_id) == [("approved", 2)]
        ran = home.home.workspace("webster") / f"ran{number}.txt"
        times = ran.read_text().count("run") if ran.exists() else 0
        (made,) = [step.output for step in run.steps if step.kind == "tool"]
        assert times == 1 or (times == 0 and made == INTERRUPTED), made

    with obedient_model() as server:
        obey(home, server, "webster", allow=tuple(tool for tool in SHELL if tool != "exec"))
        ask_about(home, "exec")
        try:
            deaths = die_at_each_commit(gateway, "before", story)
        finally:
            gateway.close()
    print(f"\nkilled before each of {deaths} commits")
    assert deaths >= 10


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_a_cancel_leaves_no_question_open(make_home: MakeHome, when: str) -> None:
    home = make_home("webster")
    ask_about(home, "memory_write")
    gateway = DyingGateway(home)

    def story(number: int) -> None:
        run_id = gateway.delegate(f"remember cancelled {number}.", idempotency_key=f"key-{number}")
        question(gateway, run_id)
        cancel(gateway, run_id)
        run = gateway.end_of(run_id)
        assert (run.state, run.reason) == (RunState.CANCELLED, "cancelled by operator")
        assert gateway.sql("SELECT state FROM approvals WHERE run_id = ?", run_id) == [("expired",)]
        assert f"cancelled {number}." not in gateway.notes()
        assert home.home.project_log.read_text().count(f"| {run_id}\n") == 1

    try:
        deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    assert deaths >= 7
