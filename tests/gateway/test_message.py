"""The message tool and dead letters, through a real gateway."""

from __future__ import annotations

from collections.abc import Callable

from protocols.runs import RunState
from tests.chaos.deaths import GEMINI, DyingGateway, die_at_each_commit
from tests.conftest import ClusterHome
from tests.e2e.models import ModelProcess, use_models
from tests.gateway.process import running
from tests.standins.models.script import Call, Match, Reply

MakeHome = Callable[..., ClusterHome]
Serve = Callable[..., ModelProcess]
TARGET = "discord:channel:123456789012345678"
SAID = "the mirror has arrived"
OTHER = "discord:user:223456789012345678"


def test_a_message_that_no_channel_takes_is_a_dead_letter_with_its_text(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(calls=[Call("message", {"to": TARGET, "text": SAID})], match=Match(tool_result=False)),
        Reply(text="I could not reach them."),
    )
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("Tell the workshop.", deliver=False))
        assert run.state is RunState.SUCCEEDED
        assert "no discord channel is connected" in str(run.steps[1].output)
        assert gateway.status().dead_letters == 1
        _, _, listed = gateway.raw("GET", "/dead-letters", None, gateway.headers("viewer"))
        (letter,) = listed["letters"]
        assert listed["total"] == 1
        assert (letter["kind"], letter["state"], letter["target"], letter["text"], letter["runId"]) == (
            "message",
            "dead",
            TARGET,
            SAID,
            run.run_id,
        )
        path = f"/dead-letters/{letter['id']}/replay"
        status, _, said = gateway.post(path, {"to": "223456789012345678"})
        assert (status, said["error"]["code"]) == (400, "bad_target")
        assert "provider:kind:id" in said["error"]["message"]
        assert gateway.post(path, {}, "manager")[0] == 403
        status, _, said = gateway.post(path, {"to": OTHER})
        assert status == 200
        assert (said["letter"]["state"], said["letter"]["target"]) == ("dead", OTHER)
        assert said["letter"]["text"] == SAID
        assert gateway.post("/dead-letters/999/replay", {})[0] == 404
        shown = home.json("deadletters", "manager")
        assert [item["target"] for item in shown["letters"]] == [OTHER]
        assert TARGET in home.cli("deadletters", "manager", "replay", str(letter["id"]), "--to", TARGET)
        assert SAID in home.cli("deadletters", "manager")


def test_a_bare_id_is_refused_with_the_form(make_home: MakeHome, serve: Serve) -> None:
    server = serve(
        Reply(calls=[Call("message", {"to": "123456789012345678", "text": "hi"})], match=Match(tool_result=False)),
        Reply(text="I see."),
    )
    home = make_home("manager")
    use_models(home, server)
    with running(home, "manager") as (gateway,):
        run = gateway.result(gateway.delegate("Say hi.", deliver=False))
        assert "provider:kind:id" in str(run.steps[1].output)
        assert gateway.sql("SELECT count(*) FROM effects WHERE kind = 'message'") == [(0,)]


def test_a_kill_after_any_commit_leaves_the_message_standing_once(make_home: MakeHome, serve: Serve) -> None:
    reply = Reply(calls=[Call("message", {"to": TARGET, "text": "once"})], match=Match(tool_result=False), times=0)
    server = serve(reply, Reply(text="Said.", times=0))
    home = make_home("webster")
    use_models(home, server)
    gateway = DyingGateway(home, "webster", *GEMINI)

    def story(number: int) -> None:
        run = gateway.end_of(gateway.delegate("Say it.", deliver=False, idempotency_key=f"k{number}"))
        assert run.state is RunState.SUCCEEDED
        rows = gateway.sql("SELECT state FROM effects WHERE kind = 'message' AND run_id = ?", run.run_id)
        assert rows == [("dead",)]

    try:
        assert die_at_each_commit(gateway, "after", story) >= 8
    finally:
        gateway.close()
