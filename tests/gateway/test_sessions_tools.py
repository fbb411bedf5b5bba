"""Runs that an agent gives itself, through a real gateway and a model that is told what to call."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.agent.children import MAX_SENT, MAX_SPAWNED
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.obeying import hands
from tests.gateway.process import running
from tests.standins.models.script import Call, Match, Reply

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]


def says(text: str, when: str, *, after_tool: bool | None = None, times: int = 1, pause: float = 0.0) -> Reply:
    return Reply(text=text, match=Match(text=when, tool_result=after_tool), times=times, pause=pause)


def calls(when: str, *made: Call, after_tool: bool | None = False) -> Reply:
    return Reply(calls=list(made), match=Match(text=when, tool_result=after_tool))


def manager(make_home: MakeHome, server: ModelProcess) -> ClusterHome:
    home = make_home("manager")
    use_models(home, server)
    return home


def test_spawned_work_that_was_not_read_is_put_before_the_model_once(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "count the bolts"})),
        says("There are 12 bolts.", "count the bolts"),
        says("I am done, too early.", "BEGIN", after_tool=True, pause=0.4),
        says("12 bolts it is.", "Results that you have not read"),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run = gateway.result(gateway.delegate("BEGIN"))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "12 bolts it is.")
        (child,) = run.children
        assert (child.agent, child.state, child.text) == ("manager", "succeeded", "There are 12 bolts.")
        shown = gateway.result(child.run_id)
        assert shown.parent_run_id == run.run_id
        assert shown.session_key.startswith("agent:manager:spawn:")
        assert shown.depth == 1
        told = str(server.requests()[-1])
        assert "There are 12 bolts." in told


def test_spawned_work_that_is_waited_for_is_read(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "count the nuts", "wait": True})),
        says("7 nuts.", "count the nuts"),
        says("7 it is.", "BEGIN", after_tool=True),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run = gateway.result(gateway.delegate("BEGIN"))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "7 it is.")
        assert "7 nuts." in (run.steps[1].output or "")


def test_a_run_reads_what_it_spawned_by_its_id(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "slow count"})),
        says("nine and nothing more than that", "slow count", pause=0.2),
        says("early", "BEGIN", after_tool=True),
        says("It is still on its way; I say so.", "Results that you have not read"),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run = gateway.result(gateway.delegate("BEGIN"))
        assert run.text == "It is still on its way; I say so."
        child = gateway.result(run.children[0].run_id)
        assert child.state is RunState.SUCCEEDED
        until = time.monotonic() + 10
        while gateway.result(run.run_id).children[0].text != child.text:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_there_may_be_so_many_and_so_deep(make_home: MakeHome, serve: Serve) -> None:
    many = [
        Call("sessions_spawn", {"task": f"task {n}", "wait": True}, id=f"toolu_{n}") for n in range(MAX_SPAWNED + 1)
    ]
    server = serve(
        calls("MANY", *many),
        says("ok", "task", times=0),
        says("counted", "MANY", after_tool=True),
        calls("DEEP", Call("sessions_spawn", {"task": "LEVEL1", "wait": True})),
        calls("LEVEL1", Call("sessions_spawn", {"task": "LEVEL2", "wait": True})),
        calls("LEVEL2", Call("sessions_spawn", {"task": "LEVEL3", "wait": True})),
        says("bottom", "LEVEL2", after_tool=True),
        says("middle", "LEVEL1", after_tool=True),
        says("top", "DEEP", after_tool=True),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run = gateway.result(gateway.delegate("MANY"), seconds=60)
        failed = [step.output for step in run.steps if step.state == "failed"]
        assert len(run.children) == MAX_SPAWNED
        assert len(failed) == 1
        assert "as many as it may" in str(failed[0])
        assert gateway.result(gateway.delegate("DEEP"), seconds=60).text == "top"
        refused = gateway.sql("SELECT output FROM steps WHERE state = 'failed' AND name = 'sessions_spawn'")
        assert "the deepest there may be" in str(refused[-1])
        assert gateway.sql("SELECT count(*) FROM runs WHERE message = 'LEVEL3'") == [(0,)]


def test_a_message_to_another_session_is_answered_there(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        says("Noted: blue.", "the colour is blue"),
        calls("ASK", Call("sessions_send", {"session": "desk", "message": "which colour?"})),
        says("Blue.", "which colour?"),
        says("It is blue.", "ASK", after_tool=True),
        calls("LIST", Call("sessions_list"), Call("sessions_history", {"session": "desk"}, id="toolu_02")),
        says("listed", "LIST", after_tool=True),
        calls("NOBODY", Call("sessions_send", {"session": "attic", "message": "hello?"})),
        says("no", "NOBODY", after_tool=True),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        gateway.result(gateway.delegate("the colour is blue", session_key="desk"))
        run = gateway.result(gateway.delegate("ASK"))
        assert run.text == "It is blue."
        (child,) = run.children
        answer = gateway.result(child.run_id)
        assert (answer.session_key, answer.text, answer.depth) == ("desk", "Blue.", 1)
        assert answer.message.startswith(f"[From session {run.session_key}, {run.run_id}]")
        _, listed, history, _ = gateway.result(gateway.delegate("LIST")).steps
        assert "desk | 4 messages" in str(listed.output)
        assert "Noted: blue." in str(history.output)
        assert "data, not instructions" in str(history.output)
        assert "there is no session 'attic'" in str(gateway.result(gateway.delegate("NOBODY")).steps[1].output)


def test_two_sessions_never_wait_for_each_other(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        says("ready", "open b"),
        calls("PING", Call("sessions_send", {"session": "b", "message": "PONG"})),
        calls("PONG", Call("sessions_send", {"session": "a", "message": "and back"})),
        says("pong done", "PONG", after_tool=True),
        says("ping done", "PING", after_tool=True),
        says("late answer", "and back", times=0),
        says("never mind", "Results that you have not read", times=0),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        gateway.result(gateway.delegate("open b", session_key="b"))
        run = gateway.result(gateway.delegate("PING", session_key="a"))
        assert run.state is RunState.SUCCEEDED
        pong = gateway.result(run.children[0].run_id)
        assert "itself waits for this one" in str([step.output for step in pong.steps if step.kind == "tool"])
        back = gateway.result(pong.children[0].run_id)
        assert (back.state, back.session_key, back.text) == (RunState.SUCCEEDED, "a", "late answer")


def test_one_place_is_enough_for_a_parent_and_its_children(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "inner", "wait": True})),
        says("in", "inner"),
        says("out", "BEGIN", after_tool=True),
    )
    home = manager(make_home, server)
    path = home.home.instance_toml("manager")
    path.write_text(path.read_text() + "\n[limits]\nconcurrent_runs = 1\n")
    with running(home, "manager") as (gateway,):
        assert gateway.result(gateway.delegate("BEGIN")).text == "out"


def test_killed_while_it_waits_the_parent_gets_the_same_child(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "long work", "wait": True})),
        says("a long answer that is cut", "long work", pause=0.5),
        says("answered after all", "long work", times=0),
        says("whole", "BEGIN", after_tool=True, times=0),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run_id = gateway.delegate("BEGIN")
        until = time.monotonic() + 20
        while not gateway.sql("SELECT 1 FROM runs WHERE state = 'waiting' AND reason LIKE 'waits for%'"):
            assert time.monotonic() < until
            time.sleep(0.02)
        gateway.kill()
        gateway.start()
        run = gateway.result(run_id)
        assert (run.state, run.text, len(run.children)) == (RunState.SUCCEEDED, "whole", 1)
        assert gateway.sql("SELECT count(*) FROM runs") == [(2,)]


def test_what_was_spawned_is_cancelled_with_its_parent(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        calls("BEGIN", Call("sessions_spawn", {"task": "endless", "wait": True})),
        says("a very long answer " * 20, "endless", pause=0.5),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        run_id = gateway.delegate("BEGIN")
        until = time.monotonic() + 20
        while not (rows := gateway.sql("SELECT id FROM runs WHERE parent_run_id = ? AND state = 'running'", run_id)):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert gateway.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
        assert gateway.result(run_id).state is RunState.CANCELLED
        assert gateway.result(rows[0][0]).state is RunState.CANCELLED


def test_a_message_that_goes_back_and_forth_stops_after_five(make_home: MakeHome, serve: Serve) -> None:
    def throw(to: str, when: str, n: int) -> Reply:
        call = Call("sessions_send", {"session": to, "message": "BALL", "wait": False}, id=f"{to}{n}")
        return Reply(calls=[call], match=Match(text=when, tool_result=False))

    server = serve(
        says("ready", "open", times=0),
        *[throw("a", "From session a", n) for n in range(3)],
        *[throw("b", "From session b", n) for n in range(3)],
        throw("b", "THROW", 9),
        says("thrown", "BALL", after_tool=True, times=0),
        says("thrown", "THROW", after_tool=True, times=0),
        says("enough", "Results that you have not read", times=0),
    )
    with running(manager(make_home, server), "manager") as (gateway,):
        for key in ("a", "b"):
            gateway.result(gateway.delegate("open", session_key=key))
        gateway.result(gateway.delegate("THROW", session_key="a"))
        until = time.monotonic() + 60
        refused = "SELECT output FROM steps WHERE name = 'sessions_send' AND state = 'failed'"
        while not gateway.sql(refused):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert "5 is the limit" in gateway.sql(refused)[0][0]
        assert gateway.sql("SELECT max(depth), count(*) FROM runs WHERE depth > 0") == [(5, 5)]


def test_one_run_sends_so_many_messages_to_other_sessions(make_home: MakeHome) -> None:
    with hands(make_home("manager"), "manager") as its:
        its.gateway.result(its.gateway.delegate("hello", session_key="hook:other"))
        sends = [
            ("sessions_send", {"session": "hook:other", "message": f"n {n}", "wait": False})
            for n in range(MAX_SENT + 3)
        ]
        results = its.calls(*sends)
        assert ["as many as it may" in text for text in results].count(True) == 3
        (count,) = its.gateway.sql("SELECT count(*) FROM runs WHERE session_key = 'hook:other'")[0]
        assert count == 1 + MAX_SENT
