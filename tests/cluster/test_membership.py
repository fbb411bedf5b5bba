"""Adding, removing, enabling and disabling agents, without a write to a file that a person edits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from protocols.registry import PortFamily
from tests.conftest import ClusterHome

Make = Callable[..., ClusterHome]


@pytest.fixture(scope="module")
def home() -> object:
    made = ClusterHome(("manager", "webster"))
    yield made
    made.close()


def _agents(home: ClusterHome) -> dict[str, dict[str, object]]:
    return {entry["agent"]: entry for entry in home.json("agent", "list")["agents"]}


def test_an_added_agent_runs_and_answers(make_home: Make) -> None:
    home = make_home("manager")
    human = home.home.cluster_toml.read_text()
    home.cli("start")
    added = home.json("agent", "add", "librarian", "--title", "The Librarian", "--model", "offline/retrieval")
    assert added["started"] is True
    assert home.json("delegate", "librarian", "status", "--wait")["state"] == "succeeded"
    # The manager was told of it without a restart.
    run = home.json("delegate", "manager", "delegate to librarian: status", "--wait")
    assert run["state"] == "succeeded"
    assert [child["agent"] for child in run["children"]] == ["librarian"]
    home.cli("agent", "remove", "librarian")
    assert list(_agents(home)) == ["manager"]
    assert home.cli("status").count("librarian") == 0
    assert home.home.cluster_toml.read_text() == human
    kept = next(home.home.trash.iterdir())
    assert (kept / "workspace" / "SOUL.md").read_text().startswith("# The Librarian")
    home.cli("stop")
    assert home.processes() == []


def test_a_new_agent_gets_a_free_family(home: ClusterHome) -> None:
    port = home.json("agent", "add", "scribe")["port"]
    used = {p for base in home.ports.values() for p in PortFamily(base).ports}
    assert not used & set(PortFamily(port).ports)
    assert _agents(home)["scribe"]["title"] == "Scribe"


def test_like_copies_another_with_its_own_name(home: ClusterHome) -> None:
    home.cli("agent", "add", "second-webster", "--like", "webster", "--title", "Second")
    entry = _agents(home)["second-webster"]
    assert entry["title"] == "Second"
    assert entry["capabilities"] == _agents(home)["webster"]["capabilities"]
    assert "Second" in (home.home.workspace("second-webster") / "SOUL.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["Web Ster"], "not an agent name"), (["operator"], "reserved"), (["webster"], "already")],
)
def test_a_name_that_cannot_be_used_is_refused(home: ClusterHome, arguments: list[str], word: str) -> None:
    done = home.run("agent", "add", *arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_port_that_is_kept_for_another_is_refused_by_name_and_nothing_is_written(home: ClusterHome) -> None:
    done = home.run("agent", "add", "late-comer", "--port", "18796")
    assert done.returncode != 0
    assert "kept for orchestrator" in done.stderr
    assert not home.home.instance("late-comer").exists()
    assert "late-comer" not in home.cli("status")


def test_a_placement_on_such_a_port_names_its_file(make_home: Make) -> None:
    home = make_home("manager")
    home.cli("agent", "add", "late-comer", "--no-start")
    placements = home.root / "placements.toml"
    text = placements.read_text()
    placements.write_text(re.sub(r"port = \d+", "port = 18789", text))
    done = home.run("status")
    assert done.returncode != 0
    assert "placements.toml" in done.stderr
    assert "late-comer" in done.stderr
    assert "kept for mario" in done.stderr
    placements.write_text(text)
    home.cli("status")


def test_an_overlapping_port_is_refused_by_name(home: ClusterHome) -> None:
    done = home.run("agent", "add", "late-comer", "--port", str(home.ports["webster"]))
    assert done.returncode == 2
    assert "webster" in done.stderr
    assert not home.home.instance("late-comer").exists()


def test_an_agent_of_cluster_toml_that_was_removed_stays_away_and_may_come_back(make_home: Make) -> None:
    home = make_home("manager", "optimizer", "study-builder")
    home.cli("agent", "remove", "optimizer")  # the authority still names it
    home.cli("agent", "remove", "study-builder")
    assert list(_agents(home)) == ["manager"]
    home.cli("init")
    assert not home.home.instance("optimizer").exists(), "init does not bring it back"
    home.cli("agent", "add", "optimizer")
    entry = _agents(home)["optimizer"]
    assert entry["port"] == home.ports["optimizer"]
    assert entry["title"] == "Optimizer"


def test_disable_stops_and_enable_starts(make_home: Make) -> None:
    home = make_home("manager", "webster")
    home.cli("start")
    home.cli("agent", "disable", "webster")
    assert "- off: webster" in home.cli("status")
    home.cli("start")
    assert home.pid("webster") is None
    assert home.json("agent", "enable", "webster")["started"] is True
    assert home.pid("webster") is not None
