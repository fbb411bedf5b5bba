"""SIGKILL at each commit of work that is passed on, within an agent and by request: given once, read, answered."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from gateway.agent.children import REMINDER
from protocols.runs import Run, RunState
from tests.chaos.deaths import GEMINI, DyingGateway, die_at_each_commit, is_answered_whole, said
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words

MakeHome = Callable[..., ClusterHome]


class _Parent(Script):
    """Spawns a session, would finish too early, and answers with what it has read."""

    def take(self, seen: Seen) -> Reply:
        text, has_result = _last_words(seen)
        if counted := re.match(r"count the bolts (\d+)\.", text):
            return Reply(text=f"There are {counted[1]} bolts.")
        if not has_result and REMINDER not in text:
            number = text.removeprefix("BEGIN ")
            return Reply(calls=[Call("sessions_spawn", {"task": f"count the bolts {number}."})])
        if read := re.findall(r"There are \d+ bolts\.", str(seen.body["contents"])):
            return Reply(text=f"Read: {read[-1]}")
        if REMINDER in text and not has_result:
            child = re.search(r"run-\w+", text)
            return Reply(calls=[Call("sessions_history", {"run": child and child[0], "wait_seconds": 30})])
        return Reply(text="done, too early")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_spawned_work_leaves_one_child_that_is_read(make_home: MakeHome, when: str) -> None:
    home = make_home("webster")
    gateway = DyingGateway(home, "webster", *GEMINI)

    def story(number: int) -> None:
        session = f"desk-{number}"
        run_id = gateway.delegate(f"BEGIN {number}", idempotency_key=f"key-{number}", session_key=session)
        run = gateway.end_of(run_id)
        assert (run.state, run.text) == (RunState.SUCCEEDED, f"Read: There are {number} bolts."), run
        (child,) = run.children
        assert (child.state, child.text) == ("succeeded", f"There are {number} bolts.")
        ended = gateway.end_of(child.run_id)
        assert gateway.sql("SELECT count(*) FROM runs WHERE parent_run_id = ?", run_id) == [(1,)]
        assert said(gateway, ended.session_key) == [f"count the bolts {number}."]
        assert sum(text.startswith(REMINDER) for text in said(gateway, session)) == 1
        assert is_answered_whole(gateway, session)

    with obedient_model() as server:
        server.script = _Parent([])
        obey(home, server, "webster")
        try:
            deaths = die_at_each_commit(gateway, when, story)
        finally:
            gateway.close()
    print(f"\nspawned, killed {when} each of {deaths} commits")
    assert deaths >= 14


@pytest.mark.parametrize(("dying", "when"), [("webster", "before"), ("webster", "after"), ("manager", "before")])
def test_a_kill_at_any_commit_of_a_requested_delegation_leaves_one_decision_and_one_delegation(
    make_home: MakeHome, dying: str, when: str
) -> None:
    home = make_home("manager", "webster", "secretary")
    gateway = DyingGateway(home, dying)
    agents = {name: GatewayProcess(home, name) for name in ("manager", "webster", "secretary")} | {dying: gateway}
    webster, manager, secretary = agents["webster"], agents["manager"], agents["secretary"]

    def ended(agent: GatewayProcess, run_id: str) -> Run | None:
        run: Run = agent.ask.run(run_id, wait=1)
        return run if run.state.ended else None

    def story(number: int) -> None:
        words = f"request delegation to secretary: remember minutes {number}."
        run_id = webster.delegate(words, idempotency_key=f"key-{number}")
        run = gateway.until(lambda: ended(webster, run_id), 60)
        assert run.state is RunState.SUCCEEDED, run
        assert "manager decided" in run.text
        (asked,) = run.children
        assert (asked.agent, asked.state) == ("manager", "succeeded")
        assert manager.sql("SELECT id FROM runs WHERE parent_run_id = ?", run_id) == [(asked.run_id,)]
        assert len(secretary.sql("SELECT id FROM runs WHERE parent_run_id = ?", asked.run_id)) == 1
        assert secretary.notes().count(f"minutes {number}.") == 1
        assert gateway.end_of(run_id if dying == "webster" else asked.run_id)

    try:
        with running(home, *(name for name in agents if name != dying)):
            deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    print(f"\nrequested, {dying} killed {when} each of {deaths} commits")
    assert deaths >= 10
