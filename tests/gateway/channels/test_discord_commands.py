"""Slash commands and questions with buttons: real gateways against the stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from protocols.approvals import Approval
from protocols.runs import RunState
from tests.gateway.channels.land import PERSON, Land, land
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess

GUEST = "guest"


@pytest.fixture(scope="module")
def here() -> Iterator[Land]:
    with land("manager", "webster", people=(PERSON, GUEST)) as made, obedient_model() as server:
        obey(made.home, server, "webster", '[shell]\nsandbox = "auto"', allow=("exec", "memory_write"))
        path = made.home.home.instance_toml("webster")
        path.write_text(path.read_text().replace("[tools]", '[tools]\nask = ["memory_write"]', 1))
        made.configure("webster", home=f"discord:channel:{made.channel('webster')}")
        yield made


def run(here: Land, command: str, by: str = PERSON, where: str = "webster", **options: str) -> str:
    """What the asker alone is shown."""
    ident = here.discord.slash(here.channel(where), by, "webster", command, options)
    row = here.discord.wait_for(lambda v: _answered(v.interaction(ident)), 30)
    return str(row)


def _answered(interaction: dict[str, Any]) -> str:
    rows = [*interaction["followups"], *([interaction["response"]] if interaction["response"] else [])]
    return next((row["content"] for row in rows if row["content"] and row["ephemeral"]), "")


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def webster(here: Land) -> GatewayProcess:
    gateway = here.gateway("webster")
    here.discord.wait_for(lambda v: v.events("commands", "webster"))
    return gateway


class TestCommands:
    def test_status_help_runs_usage_model_and_heartbeat_answer_the_asker_alone(
        self, here: Land, webster: GatewayProcess
    ) -> None:
        before = [row["id"] for row in here.discord.view.messages("webster") if not row["ephemeral"]]
        assert "is up" in run(here, "status")
        assert "/delegate" in run(here, "help")
        assert run(here, "runs")
        assert "tokens read" in run(here, "usage")
        assert "Now: `" in run(here, "model")
        assert "Heartbeat" in run(here, "heartbeat", action="show")
        after = [row["id"] for row in here.discord.view.messages("webster") if not row["ephemeral"]]
        assert after == before

    def test_who_is_no_operator_may_ask_and_not_change(self, here: Land, webster: GatewayProcess) -> None:
        assert "is up" in run(here, "status", by=GUEST)
        assert "operators" in run(here, "model", by=GUEST, name="anthropic/claude-opus-4-6")

    def test_a_model_is_swapped_and_back(self, here: Land, webster: GatewayProcess) -> None:
        assert "before" in run(here, "model", name="offline/echo")
        assert webster.status().model.active == "offline/echo"
        run(here, "model", name="configured")
        assert webster.status().model.origin == "configured"
        assert "Not done" in run(here, "model", name="nonsense/none")

    def test_the_heartbeat_is_switched(self, here: Land, webster: GatewayProcess) -> None:
        assert "off" in run(here, "heartbeat", action="off")
        assert not webster.status().heartbeat.enabled
        run(here, "heartbeat", action="on")
        assert webster.status().heartbeat.enabled

    def test_new_forgets_and_keeps_the_transcript(self, here: Land, webster: GatewayProcess) -> None:
        here.answer(here.say("[] the code word is heliotrope"))
        assert "forgotten" in run(here, "new")
        assert "only just begun" in run(here, "new")
        here.answer(here.say("[] what was it?"))
        session = f"agent:webster:discord:channel:{here.channel('webster')}"
        rows = webster.sql("SELECT count(*) FROM messages WHERE session_key = ?", session)
        assert rows[0][0] >= 4

    def test_delegate_hands_over_and_the_other_bot_answers_here(self, here: Land, webster: GatewayProcess) -> None:
        here.gateway("manager")
        assert "may not delegate" in run(here, "delegate", agent="manager", task="status")
        here.discord.wait_for(lambda v: v.events("commands", "manager"))
        ident = here.discord.slash(
            here.channel("manager"), PERSON, "manager", "delegate", {"agent": "webster", "task": '[["status", {}]]'}
        )
        told = here.discord.wait_for(lambda v: _answered(v.interaction(ident)), 30)
        assert "webster accepted it as `run-" in told
        here.discord.wait_for(lambda v: v.texts("manager", author="webster"), 30)

    def test_a_thread_that_refuses_what_is_said_in_it_does_not_stay_and_the_task_is_done(
        self, here: Land, webster: GatewayProcess
    ) -> None:
        here.gateway("manager")
        here.discord.wait_for(lambda v: v.events("commands", "manager"))
        place = here.channel("manager")
        here.discord.overwrite(place, "manager", allow=["manage_threads"])
        here.discord.fault("POST", "*/messages", bot="manager", status=403, code=50013)
        answers = len(here.discord.view.texts("manager", author="webster"))
        options = {"agent": "webster", "task": '[["status", {}]]', "thread": "yes"}
        ident = here.discord.slash(place, PERSON, "manager", "delegate", options)
        told = here.discord.wait_for(lambda v: _answered(v.interaction(ident)), 30)
        assert f"its answer comes in <#{place}> from its own bot. It has no thread: " in told
        here.discord.wait_for(lambda v: len(v.texts("manager", author="webster")) > answers, 30)
        assert here.discord.view.requests("POST", f"/channels/{place}/threads")
        assert here.discord.view.channels(place) == []

    def test_stop_ends_what_is_under_way_here(self, here: Land, webster: GatewayProcess) -> None:
        asked = here.say('[["exec", {"command": "sleep 60"}]]')
        until(lambda: webster.status().queue.running or webster.status().queue.waiting)
        assert "Stopped: 1" in run(here, "stop")
        here.discord.wait_for(lambda v: any("webster" in who for who in v.message(asked)["reactions"].values()))
        until(lambda: not webster.status().queue.running)
        assert "nothing under way" in run(here, "stop")
        run(here, "new")  # the model of these tests would read the stopped task again


class TestQuestions:
    def ask(self, here: Land, webster: GatewayProcess) -> tuple[str, dict[str, Any], Approval]:
        """(the person's message, the message with the buttons, the question)."""
        asked = here.say(f'[["memory_write", {{"text": "note {time.monotonic()}"}}]]')
        (question,) = until(lambda: list(here.approvals("webster").approvals))
        shown = here.discord.wait_for(
            lambda v: [row for row in v.messages("webster", "webster") if question.id in row["content"]]
        )
        return asked, shown[0], question

    def test_a_button_answers_and_the_work_goes_on(self, here: Land, webster: GatewayProcess) -> None:
        asked, shown, question = self.ask(here, webster)
        here.discord.press(shown["id"], PERSON, "Approve")
        assert here.answer(asked) == "done"
        after = here.discord.wait_for(
            lambda v: (m := v.message(shown["id"]))["content"].startswith("**approved**") and m
        )
        assert after["components"] == []
        assert f"<@{here.person()}>" in after["content"]
        run_row = webster.ask.run(question.run_id or "")
        assert run_row.state is RunState.SUCCEEDED

    def test_who_is_no_operator_is_told_so(self, here: Land, webster: GatewayProcess) -> None:
        asked, shown, question = self.ask(here, webster)
        ident = here.discord.press(shown["id"], GUEST, "Approve")
        assert "operator" in here.discord.wait_for(lambda v: _answered(v.interaction(ident)), 30)
        assert [a.id for a in here.approvals("webster").approvals] == [question.id]
        here.discord.press(shown["id"], PERSON, "Reject")
        here.answer(asked)

    def test_answered_elsewhere_the_buttons_go_and_say_who(self, here: Land, webster: GatewayProcess) -> None:
        asked, shown, question = self.ask(here, webster)
        body = {"decision": "reject", "revision": question.revision, "reason": "not today"}
        assert webster.post(f"/approvals/{question.id}", body)[0] == 200
        after = here.discord.wait_for(
            lambda v: (m := v.message(shown["id"]))["content"].startswith("**rejected** by operator") and m
        )
        assert after["components"] == []
        here.answer(asked)

    def test_the_second_of_two_answers_hears_of_the_first(self, here: Land, webster: GatewayProcess) -> None:
        asked, shown, _ = self.ask(here, webster)
        first = here.discord.press(shown["id"], PERSON, "Approve")
        second = here.discord.press(shown["id"], PERSON, "Reject")
        told = [here.discord.wait_for(lambda v, i=i: _answered(v.interaction(i))) for i in (first, second)]
        assert sum("already" in text for text in told) == 1, told
        here.answer(asked)

    def test_a_question_that_was_put_before_a_kill_can_be_answered_after_it(
        self, here: Land, webster: GatewayProcess
    ) -> None:
        asked, shown, question = self.ask(here, webster)
        webster.kill()
        webster.start()
        here.wait_connected("webster")
        here.discord.press(shown["id"], PERSON, "Approve")
        assert here.answer(asked) == "done"
        assert len([m for m in here.discord.view.messages("webster") if question.id in m["content"]]) <= 1

    def test_by_command_with_a_reason(self, here: Land, webster: GatewayProcess) -> None:
        asked, _, question = self.ask(here, webster)
        assert question.id in run(here, "approve")
        assert "rejected" in run(here, "approve", question=question.id, decision="reject", reason="no")
        here.answer(asked)
