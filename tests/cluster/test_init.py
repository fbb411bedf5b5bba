"""Making a home: whole, repeatable, and nothing half-written where it cannot be made."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cluster.foundation import FoundationError, found, locked
from protocols.registry import AGENTS
from runtime.config import load_cluster, load_instance
from runtime.home import Home
from runtime.secrets import API_KEY, Secrets


def test_a_fresh_home_is_complete(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    founded = found(home)
    cluster = load_cluster(home)
    assert list(cluster.agents) == [str(entry.name) for entry in AGENTS]
    assert [spec.name for spec in cluster.enabled] == [entry.name for entry in AGENTS if entry.default_on]
    assert founded.profile == "offline"
    for name in cluster.agents:
        load_instance(cluster, name)
        assert (home.workspace(name) / "SOUL.md").is_file()
        assert not (home.workspace(name) / "avatar.png").exists(), "an agent could exchange it"
        assert Secrets(home).token(name)
    assert (home.shared / "knowledge").is_dir()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o700


def test_again_it_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    found(home)
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    assert found(home).created == []
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before


def test_a_half_made_home_is_completed_and_nothing_overwritten(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    found(home)
    token = Secrets(home).token("operator")
    soul = home.workspace("webster") / "SOUL.md"
    soul.write_text("mine")
    home.cluster_toml.unlink()
    home.instance_toml("auditor").unlink()
    shutil.rmtree(home.workspace("manager"))
    assert sorted(found(home).created)[0] == "cluster.toml"
    assert soul.read_text() == "mine"
    assert Secrets(home).token("operator") == token
    load_instance(load_cluster(home), "auditor")
    assert (home.workspace("manager") / "SOUL.md").is_file()


def test_ports_moves_every_family(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    found(home, 19800)
    assert [spec.port for spec in load_cluster(home).agents.values()] == [entry.port + 1000 for entry in AGENTS]


def test_ports_of_the_orchestrator_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    done = _init(tmp_path / "home", "--ports", "18796")
    assert done.returncode != 0
    assert "--ports 18796 does not do: manager" in done.stderr
    assert "kept for orchestrator" in done.stderr
    assert not (tmp_path / "home").exists()


def test_ports_out_of_range_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    done = _init(tmp_path / "home", "--ports", "32760")
    assert done.returncode == 2
    assert "32767" in done.stderr
    assert not (tmp_path / "home").exists()


def test_another_command_that_stays_is_named_and_not_waited_for_for_ever(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    found(home)
    said = r"home\.lock has been held for 0\.1 s by another"
    with locked(home), pytest.raises(FoundationError, match=said), locked(home, seconds=0.1):
        pass
    with locked(home, seconds=0):
        pass


def test_keys_that_are_there_make_the_profile_live(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    Secrets(home).set("anthropic", API_KEY, "sk-ant-something")
    assert found(home).profile == "live"
    assert tomllib.loads(home.cluster_toml.read_text())["models"]["profile"] == "live"


def test_init_says_how_to_leave_offline(tmp_path: Path) -> None:
    said = _init(tmp_path / "home").stdout
    assert "atomizer secrets set anthropic" in said
    assert 'profile = "live"' in said


@pytest.mark.parametrize(
    ("options", "word"),
    [("size=128k", "the disk is full"), ("size=128k,ro", "read-only file system")],
    ids=["full", "read-only"],
)
def test_a_disk_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path, options: str, word: str) -> None:
    done = _in_mount(
        tmp_path, options, f"{sys.executable} -P -m cluster.cli init --home {tmp_path}/home; echo $?; find {tmp_path}"
    )
    code, *left = done.stdout.splitlines()
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
    assert int(code) == 78
    assert left == [str(tmp_path)]


def _init(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "cluster.cli", "init", "--home", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def _in_mount(folder: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` where `folder` is a small disk of its own; skips the test where that is not allowed."""
    unshare = ["unshare", "-rm"]
    mount = f"mount -t tmpfs -o {options} none {folder}"
    try:
        allowed = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no permission for a mount of our own here")
    return subprocess.run([*unshare, "sh", "-c", f"{mount} && {{ {script}; }}"], capture_output=True, text=True)
