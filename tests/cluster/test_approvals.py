"""Approvals by the command line, against real gateways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from protocols.runs import RunState
from tests.cluster.conftest import until
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running

Make = Callable[..., ClusterHome]


@pytest.fixture
def asking(make_home: Make) -> Iterator[GatewayProcess]:
    """Webster asks before it writes into its memory; the Manager beside it does not run."""
    home = make_home("manager", "webster")
    path = home.home.instance("webster") / "instance.toml"
    path.write_text(path.read_text().replace("deny = []", 'ask = ["memory_write"]\ndeny = []'))
    with running(home, "webster") as (webster,):
        yield webster


def asked(webster: GatewayProcess, text: str) -> tuple[str, str]:
    """(run, question) once Webster asks whether it may remember `text`."""
    run_id = webster.delegate(f"remember {text}")

    def found() -> str | None:
        listed = webster.home.json("approvals", "webster")["approvals"]
        return next((a["id"] for a in listed if a["runId"] == run_id), None)

    return run_id, str(until(found))


def test_what_waits_is_listed_and_approved(asking: GatewayProcess) -> None:
    home = asking.home
    assert home.cli("approvals").strip() == "nothing waits for an answer"
    run_id, question = asked(asking, "the mirror is 1.2 m")
    done = home.run("approvals")
    assert "manager does not answer" in done.stderr
    assert re.search(rf"{question}  webster  \d+s +in \S+  memory_write: .*the mirror is 1.2 m", done.stdout)
    assert "from operator" in done.stdout
    assert home.json("approvals")["unreachable"].keys() == {"manager"}
    assert "approved" in home.cli("approvals", "approve", question, "--reason", "checked")
    assert asking.result(run_id).state is RunState.SUCCEEDED
    assert "the mirror is 1.2 m" in asking.notes()
    again = home.run("approvals", "reject", question)
    assert again.returncode == 4
    assert f"{question} was already approved by operator: checked" in again.stderr


def test_a_rejection_is_told_to_the_agent(asking: GatewayProcess) -> None:
    run_id, question = asked(asking, "nothing")
    answered = asking.home.json("approvals", "reject", question, "--reason", "not now")
    assert (answered["state"], answered["reason"]) == ("rejected", "not now")
    assert "not now" in asking.result(run_id).text
    assert not asking.notes()


def test_a_question_that_nobody_asks_and_an_agent_that_does_not_exist(asking: GatewayProcess) -> None:
    assert asking.home.run("approvals", "approve", "ap-none").returncode == 3  # the Manager may ask it: it is down
    assert asking.home.run("approvals", "nobody").returncode == 2
    assert asking.home.run("approvals", "manager").returncode == 3
    with running(asking.home, "manager"):
        assert asking.home.run("approvals", "approve", "ap-none").returncode == 4


def test_run_show_tells_steps_with_their_times_arguments_and_results(asking: GatewayProcess) -> None:
    text = "a long fact " * 60
    run_id, question = asked(asking, text)
    waiting = asking.home.cli("run", "show", run_id)
    assert "waiting after " in waiting
    assert question in waiting
    asking.home.cli("approvals", "approve", question)
    asking.result(run_id)
    shown = asking.home.cli("run", "show", run_id)
    assert re.search(r"step \d+: model offline/retrieval done \d+\.\ds  \d+ in, \d+ out, \$0\.0000", shown)
    assert re.search(r"step \d+: tool memory_write done \d+\.\ds", shown)
    assert "--full shows all" in shown
    assert "      -> " in shown
    full = asking.home.cli("run", "show", run_id, "--full")
    assert f"text: {text.strip()}" in full
    assert "--full" not in full


def test_a_question_shows_the_whole_of_what_would_be_done(asking: GatewayProcess) -> None:
    text = "Die Prüfung " + "dauert lange " * 40 + "und endet hier"
    _, question = asked(asking, text)
    (found,) = [a for a in asking.home.json("approvals", "webster")["approvals"] if a["id"] == question]
    assert found["question"].startswith("memory_write: text: Die Prüfung dauert")
    assert len(found["question"]) < 350
    assert f"text: {text}" in found["detail"]
    assert '(from operator)\nasked because [tools] ask has "memory_write"' in found["detail"]
