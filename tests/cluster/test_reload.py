"""`atomizer reload`: what a person changed in a file is in force at once, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.process import running

Make = Callable[..., ClusterHome]


def change(home: ClusterHome, old: str, new: str) -> None:
    path = home.home.instance_toml("webster")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_raised_budget_is_in_force_without_a_restart(make_home: Make) -> None:
    home = make_home("webster")
    with running(home, "webster") as (webster,):
        instance = webster.status().instance
        change(home, "[budget]", "[budget]\ndaily_tokens = 12345")
        assert webster.status().budget.agent.limit_tokens is None
        assert home.cli("reload", "webster") == "webster: reloaded\n"
        status = webster.status()
        assert (status.budget.agent.limit_tokens, status.instance) == (12345, instance)


def test_a_bad_rule_changes_nothing_and_the_agent_works_on(make_home: Make) -> None:
    home = make_home("webster")
    with running(home, "webster") as (webster,):
        change(home, "allow = [", 'allow = ["exec(git", ')
        change(home, "[budget]", "[budget]\ndaily_tokens = 12345")
        done = home.run("reload", "webster")
        assert done.returncode == 4
        assert "nothing was changed" in done.stdout
        assert "'exec(git' is not a tool rule" in done.stdout
        status = webster.status()
        assert "'exec(git' is not a tool rule" in status.config_error
        assert status.budget.agent.limit_tokens is None
        assert webster.result(webster.delegate("status")).state is RunState.SUCCEEDED
        change(home, '"exec(git", ', "")
        assert home.json("reload", "webster")["reloaded"] == {"webster": "reloaded"}
        assert webster.status().config_error == ""


def test_a_gateway_with_a_bad_rule_does_not_start_and_says_which(make_home: Make) -> None:
    home = make_home("webster")
    change(home, "allow = [", 'allow = ["exec(git", ')
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "--home", str(home.root), "--agent", "webster"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    assert "instance.toml: [tools] 'exec(git' is not a tool rule" in done.stderr


def test_who_does_not_answer_is_named_and_nobody_running_is_no_success(make_home: Make) -> None:
    home = make_home("manager", "webster")
    assert home.run("reload").returncode == 3
    assert home.run("reload", "nobody").returncode == 2
    with running(home, "webster"):
        done = home.run("reload", "manager", "webster")
        assert done.returncode == 3
        assert "webster: reloaded" in done.stdout
        assert "manager: " in done.stdout
