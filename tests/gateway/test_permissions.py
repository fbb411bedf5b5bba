"""Rules on tool calls against ways to write a call otherwise: one by one, and through a real gateway, which asks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from gateway.agent.permissions import Decision, Permissions
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, obedient_model, obey, wait_until
from tests.gateway.process import running


@pytest.mark.parametrize(
    "line",
    [
        "git log; rm x",
        "git log && rm x",
        "git log | sh",
        "git log > x",
        "git log $(rm x)",
        "git log `rm x`",
        "git log\nrm x",
        "git log & rm x",
        "git log <(rm x)",
        "git log <<E\nE",
        "X=1 git log",
        "bash -c 'git log'",
        " sh -c 'rm x' git log",
    ],
)
def test_an_allowed_pattern_covers_one_plain_command_only(line: str) -> None:
    assert Permissions(["exec(git log*)"], ["exec"], []).decide("exec", line).decision is Decision.ASK


def test_a_pattern_that_chains_covers_that_chain_and_no_longer_one() -> None:
    rules = Permissions(["exec(cd build && make *)"], ["exec"], [])
    assert rules.decide("exec", "cd build && make all").decision is Decision.ALLOW
    for line in ("cd build && make all; rm x", "cd build && make all && rm x", "cd build && make $(rm x)"):
        assert rules.decide("exec", line).decision is Decision.ASK, line


@pytest.mark.parametrize(
    "line",
    [
        "rm x",
        "ls; rm x",
        "ls && rm x",
        "'rm' x",
        "r\\m x",
        "/bin/rm x",
        "env A=b rm x",
        "A=b rm x",
        "{ rm x; }",
        "if true; then rm x; fi",
        "! rm x",
        "(rm x)",
        "echo $(rm x)",
        "bash -c 'rm x'",
        "ls\nrm x",
    ],
)
def test_a_denied_command_is_found_in_the_usual_ways_of_writing_it(line: str) -> None:
    assert Permissions(["exec"], [], ["exec(rm *)"]).decide("exec", line).decision is Decision.DENY


def tools(home: ClusterHome, agent: str, text: str) -> None:
    """`text` is all of the agent's `[tools]`."""
    path = home.home.instance_toml(agent)
    path.write_text(re.sub(r"(?ms)^\[tools\].*?(?=^\[)", f"[tools]\n{text}\n", path.read_text()))


def test_a_path_is_judged_by_where_it_leads(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    with obedient_model() as model:
        obey(home, model, "webster")
        tools(
            home, "webster", 'allow = ["read_file", "write_file(notes/*)", "edit_file"]\ndeny = ["edit_file(SOUL.md)"]'
        )
        with running(home, "webster") as (gateway,):
            its = Hands(gateway)
            (its.workspace / "notes").mkdir()
            (its.workspace / "notes" / "way").symlink_to("..")
            assert "made notes/a.md" in its.call("write_file", path="notes/a.md", content="x")
            for path in ("notes/../AGENTS.md", "notes/way/AGENTS.md", "./notes/../AGENTS.md"):
                run_id = its.start("write_file", path=path, content="mine")
                wait_until(lambda run_id=run_id: gateway.ask.run(run_id).state is RunState.WAITING)
                assert "write_file: AGENTS.md" in gateway.ask.run(run_id).reason
                gateway.post(f"/hooks/runs/{run_id}/cancel", {})
            for path in ("./SOUL.md", "notes/../SOUL.md", "webster/SOUL.md", "notes/way/SOUL.md"):
                assert "not permitted" in its.call("edit_file", path=path, old="a", new="b")
