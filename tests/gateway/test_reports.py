"""Reports of delegated runs: before it is written what was given, of more than fits, of what was never given."""

from __future__ import annotations

from collections.abc import Callable

from protocols.hooks import MAX_BODY_BYTES
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey, wait_until
from tests.gateway.process import running
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words

MakeHome = Callable[..., ClusterHome]


class Slow(Script):
    """BEGIN gives work without waiting for it, a moment later, and goes on for ever; other tasks end at once."""

    def take(self, seen: Seen) -> Reply:
        text, has_result = _last_words(seen)
        if has_result:
            return Reply(text="never said to its end", pause=60)
        if text.startswith("BEGIN"):
            given = Call("delegate", {"agent": "webster", "task": "hello", "wait": False})
            return Reply(text="a moment", pause=0.5, piece=2, calls=[given])
        return Reply(text="seven")


class Long(Slow):
    """Tasks are answered with more than one call may carry."""

    def take(self, seen: Seen) -> Reply:
        reply = super().take(seen)
        return Reply(text="seven " * 50_000, piece=50_000) if reply.text == "seven" else reply


def test_the_outcome_is_told_again_until_the_delegator_knows_what_it_gave(make_home: MakeHome) -> None:
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Slow([])
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            run_id = manager.delegate("BEGIN")
            hook = {
                "message": "hello",
                "idempotencyKey": f"{run_id}/1.0",  # the call that it is about to make, as a first life has made it
                "parentRunId": run_id,
                "depth": 1,
                "deliver": False,
            }
            status, _, accepted = webster.post("/hooks/agent", hook, owner="manager")
            assert status == 202
            child = accepted["runId"]
            assert webster.result(child).text == "seven"
            query = "SELECT attempts FROM effects WHERE kind = 'report' AND attempts > 0"
            wait_until(lambda: webster.sql(query))
            assert not manager.ask.run(run_id).children  # it was told, and does not know of it yet
            wait_until(lambda: [c.run_id for c in manager.ask.run(run_id).children] == [child])
            wait_until(lambda: manager.ask.run(run_id).children[0].state == RunState.SUCCEEDED.value)
            assert manager.ask.run(run_id).children[0].text == "seven"
            assert webster.status().dead_letters == 0


def test_an_answer_that_no_call_can_carry_is_reported_as_far_as_it_fits(make_home: MakeHome) -> None:
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Long([])
        for agent in ("manager", "webster"):
            obey(home, server, agent)
        with running(home, "manager", "webster") as (manager, webster):
            run_id = manager.delegate("BEGIN")
            wait_until(lambda: [c.state for c in manager.ask.run(run_id).children] == [RunState.SUCCEEDED.value])
            (child,) = manager.ask.run(run_id).children
            whole = webster.ask.run(child.run_id).text
            assert len(whole) > MAX_BODY_BYTES
            shown, _, cut = child.text.partition("\n[cut: ")
            assert len(shown) > MAX_BODY_BYTES // 2
            assert whole.startswith(shown)
            assert cut == f"{len(whole) - len(shown)} more characters; webster has {child.run_id} whole]"


def test_a_report_of_what_was_never_given_is_refused_for_good(make_home: MakeHome) -> None:
    home = make_home("manager", "webster")
    with running(home, "manager") as (manager,):
        over = manager.delegate("status")
        manager.result(over)
        for parent in (over, "run-01234567"):
            report = {"runId": "run-89abcdef", "parentRunId": parent, "state": "succeeded", "text": "", "error": None}
            status, _, refused = manager.post("/hooks/report", report, owner="webster")
            assert (status, refused["error"]["code"]) == (404, "unknown_child"), refused
