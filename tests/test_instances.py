"""The shipped cluster is of one piece: registry, configuration and workspaces say the same."""

from __future__ import annotations

import tomllib

import pytest

from gateway.agent.permissions import Decision, Permissions
from protocols.registry import AGENTS, RosterEntry
from runtime.home import shipped_instances

FILES = ("SOUL.md", "AGENTS.md", "HEARTBEAT.md", "MEMORY.md")


@pytest.mark.parametrize("entry", AGENTS, ids=lambda e: e.name)
def test_an_agents_files_agree_with_the_registry(entry: RosterEntry) -> None:
    folder = shipped_instances() / entry.name
    config = tomllib.loads((folder / "instance.toml").read_text())
    assert config["agent"]["title"] == entry.title
    assert tuple(config["agent"]["capabilities"]) == entry.capabilities
    primary, (fallback, *_) = config["model"]["primary"], config["model"]["fallbacks"]
    assert primary.split("/")[0] != fallback.split("/")[0]
    for name in FILES:
        text = (folder / name).read_text()
        assert 200 < len(text) < 20_000, f"{entry.name}/{name}"


def test_the_placements_agree_with_the_registry() -> None:
    placed = tomllib.loads((shipped_instances() / "cluster.toml").read_text())["agents"]
    assert {e.name: (e.port, e.default_on) for e in AGENTS} == {n: (a["port"], a["enabled"]) for n, a in placed.items()}


SHELL = {"study-builder", "nx-expert", "post-processor", "developer", "it", "optimizer"}


@pytest.mark.parametrize("entry", AGENTS, ids=lambda e: e.name)
def test_only_those_who_need_a_shell_have_one_and_a_person_is_asked(entry: RosterEntry) -> None:
    tools = tomllib.loads((shipped_instances() / entry.name / "instance.toml").read_text())["tools"]
    rules = Permissions(tools["allow"], tools.get("ask", []), tools["deny"])
    assert rules.has("exec") == rules.has("process") == (entry.name in SHELL)
    assert ("`exec`" in (shipped_instances() / entry.name / "AGENTS.md").read_text()) == (entry.name in SHELL)
    if entry.name in SHELL:
        assert rules.decide("exec", "cat notes.md").decision is Decision.ALLOW
        for line in ("python run.py", "cat a; rm b", "cat a > b", "cat $(id)"):
            assert rules.decide("exec", line).decision is Decision.ASK, line
