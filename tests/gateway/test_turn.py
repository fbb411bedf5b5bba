"""The turn as a run's owner sees it: questions to a person, steering, side-by-side calls, loops, limits, cancel."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from protocols.approvals import Approval, ApprovalList
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Call, Fault, Reply, Tokens

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]
GEMINI = "webster"
"""Asks Google's SDK, the lighter one."""


def configure(home: ClusterHome, agent: str, text: str, *, allow: list[str] | None = None) -> None:
    """Add tables to an instance.toml; `allow` replaces the tools it has."""
    import re

    path = home.home.instance_toml(agent)
    before = path.read_text()
    if allow is not None:
        before = re.sub(r"(?ms)^allow = \[.*?\]$", f"allow = {allow!r}".replace("'", '"'), before)
    path.write_text(f"{before}\n{text}\n")


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
    return value


def pending(gateway: GatewayProcess) -> list[Approval]:
    return gateway.ask.get("/approvals", ApprovalList).approvals


def answer(gateway: GatewayProcess, approval: Approval, decision: str, **fields: Any) -> tuple[int, Any]:
    body = {"decision": decision, "revision": approval.revision, **fields}
    status, _, decoded = gateway.post(f"/approvals/{approval.id}", body)
    return status, decoded


def test_a_call_that_must_be_asked_about_waits_over_a_kill_and_is_made_once_when_approved(
    make_home: MakeHome,
) -> None:
    home = make_home("webster")
    configure(home, "webster", "", allow=["memory_search"])
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
    with running(home, "webster") as (gateway,):
        run_id = gateway.delegate("remember the asked thing")
        (question,) = wait_until(lambda: pending(gateway))
        assert question.tool == "memory_write"
        assert question.run_id == run_id
        wait_until(lambda: gateway.ask.run(run_id).state is RunState.WAITING)
        assert question.id in gateway.ask.run(run_id).reason
        assert gateway.status().queue.waiting == 1
        gateway.kill()
        gateway.start()
        wait_until(lambda: gateway.ask.run(run_id).state is RunState.WAITING)
        assert [a.id for a in pending(gateway)] == [question.id]
        assert gateway.notes() == ""
        stale = Approval(**{**_fields(question), "revision": 7})
        assert answer(gateway, stale, "approve")[0] == 409
        assert gateway.post(f"/approvals/{question.id}", {"decision": "approve", "revision": 1}, "viewer")[0] == 403
        status, said = answer(gateway, question, "approve", reason="go on")
        assert (status, said["state"], said["answeredBy"]) == (200, "approved", "operator")
        assert answer(gateway, question, "reject")[0] == 409
        assert gateway.result(run_id).state is RunState.SUCCEEDED
        assert gateway.notes().count("the asked thing") == 1


def _fields(approval: Approval) -> dict[str, Any]:
    return {name: getattr(approval, name) for name in approval.__struct_fields__}


def test_a_rejected_or_expired_question_is_told_to_the_model(make_home: MakeHome) -> None:
    home = make_home("webster")
    configure(home, "webster", '[limits]\napproval_expires = "2s"', allow=["memory_search"])
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
    with running(home, "webster") as (gateway,):
        rejected = gateway.delegate("remember what is rejected")
        (question,) = wait_until(lambda: pending(gateway))
        assert answer(gateway, question, "reject", reason="not now")[0] == 200
        assert "rejected by operator: not now" in gateway.result(rejected).text
        expired = gateway.delegate("remember what nobody answers")
        assert "expired: nobody answered in time" in gateway.result(expired).text
        assert gateway.notes() == ""
        abandoned = gateway.delegate("remember what is cancelled")
        wait_until(lambda: pending(gateway))
        gateway.post(f"/hooks/runs/{abandoned}/cancel", {})
        assert gateway.result(abandoned).state is RunState.CANCELLED
        wait_until(lambda: not pending(gateway))


def test_a_denied_call_is_refused_with_its_rule(make_home: MakeHome) -> None:
    home = make_home("webster")
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text().replace("deny = []", 'deny = ["read_file(*MEMORY*)"]'))
    with running(home, "webster") as (gateway,):
        assert "deny read_file(*MEMORY*)" in gateway.result(gateway.delegate("read MEMORY.md")).text
        assert "not permitted" not in gateway.result(gateway.delegate("read SOUL.md")).text


def test_calls_that_only_read_run_side_by_side_and_come_back_in_order(make_home: MakeHome, serve: Serve) -> None:
    calls = [Call("read_file", {"path": name}, id=f"c{n}") for n, name in enumerate(("SOUL.md", "AGENTS.md", "x.md"))]
    server = serve(Reply(calls=calls), Reply(text="Read them."))
    home = make_home(GEMINI)
    use_models(home, server)
    with running(home, GEMINI) as (gateway,):
        run = gateway.result(gateway.delegate("Read three."))
        assert run.text == "Read them."
        tools = [s for s in run.steps if s.kind == "tool"]
        assert [s.state for s in sorted(tools, key=lambda s: str(s.input))] == ["done", "done", "failed"]
        assert max(s.started_at for s in tools) <= min(s.finished_at or 0 for s in tools)
        parts = server.requests()[1]["body"]["contents"][-1]["parts"]
        results = [str(p["functionResponse"]) for p in parts]
        assert ["SOUL" in results[0] or "Webster" in results[0], "there is no file" in results[2]] == [True, True]


def test_the_same_call_again_and_again_is_told_and_then_ends_the_run(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(calls=[Call("read_file", {"path": "SOUL.md"})], times=0))
    home = make_home(GEMINI)
    use_models(home, server)
    with running(home, GEMINI) as (gateway,):
        run = gateway.result(gateway.delegate("Loop."))
        assert run.state is RunState.FAILED
        assert "a loop: read_file was called 6 times" in run.reason
        told = [s for s in run.steps if s.kind == "tool" and "do something else" in (s.output or "")]
        assert len(told) == 3


def test_a_run_ends_at_its_cost_and_at_its_steps(make_home: MakeHome, serve: Serve) -> None:
    tokens = Tokens(input=1_000_000, output=10)
    replies = [Reply(calls=[Call("memory_search", {"query": f"q{n}"})], tokens=tokens) for n in range(9)]
    server = serve(*replies)
    home = make_home(GEMINI)
    use_models(home, server)
    configure(home, GEMINI, "[limits]\nmax_cost_usd = 0.5\nmax_steps = 9")
    with running(home, GEMINI) as (gateway,):
        run = gateway.result(gateway.delegate("Spend."))
        assert run.state is RunState.FAILED
        assert "max_cost_usd" in run.reason
        assert run.cost_usd is not None
        assert 0.5 <= run.cost_usd < 2.5


def test_an_answer_of_nothing_fails_the_run_and_is_counted_as_what_it_cost(make_home: MakeHome, serve: Serve) -> None:
    home = make_home("webster")
    use_models(home, serve(Reply(text="", stop="MAX_TOKENS", times=0)))
    with running(home, "webster") as (gateway,):
        run = gateway.result(gateway.delegate("think"))
        assert (run.state, run.reason.endswith("answered nothing (max_tokens)")) == (RunState.FAILED, True)
        assert [(s.kind, s.state) for s in run.steps] == [("model", "failed")]
        assert run.usage.input_tokens > 0
        assert run.cost_usd is not None


def test_an_answer_that_was_cut_at_its_limit_says_so(make_home: MakeHome, serve: Serve) -> None:
    home = make_home("webster")
    use_models(home, serve(Reply(text="The first half of", stop="MAX_TOKENS"), Reply(text="The rest.", times=0)))
    with running(home, "webster") as (gateway,):
        run = gateway.result(gateway.delegate("tell all", session_key="agent:webster:main"))
        assert run.state is RunState.SUCCEEDED
        assert run.text == "The first half of\n\n[cut: the answer reached [model] max_output_tokens]"
        assert gateway.result(gateway.delegate("go on", session_key="agent:webster:main")).text == "The rest."


def test_what_was_cut_off_is_counted_with_the_answer_that_followed_or_by_itself(
    make_home: MakeHome, serve: Serve
) -> None:
    home = make_home("manager")
    cut = Fault(breaks="cut", after=1)
    use_models(
        home,
        serve(
            Reply(text="half of it, and then nothing", fault=cut),
            Reply(text="all of it"),
            Reply(text="half of it, and then nothing", fault=cut),
            Reply(fault=Fault(status=400, message="no", type="invalid_request_error"), times=0),
        ),
    )
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("say it all"))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "all of it")
        (step,) = run.steps
        once = Tokens()
        assert step.usage is not None
        assert step.usage.input_tokens == 2 * (once.input + once.cache_read + once.cache_write)
        failed = gateway.result(gateway.delegate("say it again"))
        assert [(s.kind, s.state) for s in failed.steps] == [("model", "failed")]
        assert failed.usage.input_tokens * 2 == run.usage.input_tokens
        assert failed.cost_usd is not None
        used = run.usage.plus(failed.usage)
        assert gateway.status().budget.agent.spent_tokens == used.input_tokens + used.output_tokens


def test_cancel_takes_effect_within_a_second_in_the_middle_of_a_stream(make_home: MakeHome, serve: Serve) -> None:
    server = serve(Reply(text="never to end " * 20, fault=Fault(breaks="stall", after=3)))
    home = make_home(GEMINI)
    use_models(home, server)
    with running(home, GEMINI) as (gateway,):
        run_id = gateway.delegate("Talk.")
        wait_until(lambda: server.requests())
        time.sleep(0.2)
        begun = time.monotonic()
        gateway.post(f"/hooks/runs/{run_id}/cancel", {})
        assert gateway.result(run_id).state is RunState.CANCELLED
        assert time.monotonic() - begun < 1.0


def test_a_message_that_comes_meanwhile_is_taken_into_the_next_step_and_answered_with_it(
    make_home: MakeHome, serve: Serve
) -> None:
    server = serve(
        Reply(text="Thinking about the first, slowly, slowly, slowly.", pause=0.2),
        Reply(text="Both are answered."),
    )
    home = make_home(GEMINI)
    use_models(home, server)
    with running(home, GEMINI) as (gateway,):
        first = gateway.delegate("The first question.", session_key="agent:webster:main")
        wait_until(lambda: server.requests())
        second = gateway.delegate("And a second one.", session_key="agent:webster:main")
        runs = [gateway.result(first), gateway.result(second)]
        assert [r.state for r in runs] == [RunState.SUCCEEDED, RunState.SUCCEEDED]
        answers = "Thinking about the first, slowly, slowly, slowly.\n\nBoth are answered."
        assert {r.text for r in runs} == {answers}  # what was answered before is not lost
        assert runs[1].reason == f"answered with {first}"
        assert len(server.requests()) == 2
        assert "And a second one." in str(server.requests()[1]["body"]["contents"])


def test_with_interrupt_a_newer_message_ends_the_work_under_way(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(text="never to end " * 20, fault=Fault(breaks="stall", after=2)),
        Reply(text="The second is answered."),
    )
    home = make_home(GEMINI)
    use_models(home, server)
    configure(home, GEMINI, '[limits]\nsteer = "interrupt"')
    with running(home, GEMINI) as (gateway,):
        first = gateway.delegate("The first question.", session_key="agent:webster:main")
        wait_until(lambda: server.requests())
        second = gateway.delegate("Forget it; this instead.", session_key="agent:webster:main")
        assert gateway.result(second).text == "The second is answered."
        ended = gateway.result(first)
        assert ended.state is RunState.CANCELLED
        assert second in ended.reason


def test_what_was_taken_in_goes_on_by_itself_after_a_kill_and_a_cancel(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(calls=[Call("memory_search", {"query": "zerodur"})], pause=0.3, text="Let me look, slowly, slowly."),
        Reply(text="cut by a kill " * 9, fault=Fault(breaks="stall", after=2)),
        Reply(text="cut by a cancel " * 9, fault=Fault(breaks="stall", after=2)),
        Reply(text="Answered alone."),
    )
    home = make_home(GEMINI)
    use_models(home, server)
    with running(home, GEMINI) as (gateway,):
        first = gateway.delegate("The first question.", session_key="agent:webster:main")
        wait_until(lambda: server.requests())
        second = gateway.delegate("And a second one.", session_key="agent:webster:main")
        wait_until(lambda: len(server.requests()) == 2)
        assert gateway.ask.run(second).state is RunState.WAITING
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.kill()
        gateway.start()
        wait_until(lambda: len(server.requests()) == 3)
        gateway.post(f"/hooks/runs/{first}/cancel", {})
        assert gateway.result(first).state is RunState.CANCELLED
        run = gateway.result(second)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "Answered alone.")
