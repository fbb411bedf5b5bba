"""What a command is granted, before any is started."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from runtime.config_shell import ShellTable
from runtime.home import Home
from runtime.sandbox import Sandbox, _without
from runtime.sharing import refusal


def test_a_home_below_a_system_folder_is_not_granted_with_it(tmp_path: Path) -> None:
    home = tmp_path / "opt" / "vendor" / "atomizer"
    for name in ("opt/vendor/atomizer/secrets", "opt/vendor/tool", "opt/other"):
        (tmp_path / name).mkdir(parents=True)
    granted = _without(tmp_path / "opt", home)
    assert sorted(granted) == [tmp_path / "opt/other", tmp_path / "opt/vendor/tool"]
    assert _without(home / "secrets", home) == []
    assert _without(tmp_path / "usr", home) == [tmp_path / "usr"]


def test_nothing_of_the_home_is_granted_but_the_workspace_and_the_shared_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for name in ("secrets", "instances/webster", "workspaces/webster", "workspaces/manager", "run"):
        (home.root / name).mkdir(parents=True)
    for name in ("projects", "knowledge", "skills"):
        (home.shared / name).mkdir(parents=True)
    for name in ("PROJECT_STATUS.md", "project_log.md", "CLUSTER.md", "notes.md"):
        (home.shared / name).touch()
    (home.shared / "way").symlink_to(home.secrets)
    scratch = home.run / "tmp" / "webster" / "c1"

    def inside(agent: str) -> tuple[set[str], set[str]]:
        sandbox = Sandbox(home, agent, home.workspace("webster"), ShellTable())
        read, write = sandbox._readable(), [*sandbox._writable(), str(scratch)]
        return tuple({p for p in paths if Path(p).is_relative_to(home.root)} for paths in (read, write))  # type: ignore[return-value]

    read, write = inside("webster")
    assert read == {str(home.shared)}
    own = {str(home.workspace("webster")), str(scratch), str(home.shared / "projects"), str(home.shared / "notes.md")}
    assert write == own
    assert inside("manager")[1] == own | {str(home.shared / "PROJECT_STATUS.md")}


@pytest.mark.parametrize(
    ("path", "agent", "kept"),
    [
        ("PROJECT_STATUS.md", "webster", True),
        ("PROJECT_STATUS.md", "manager", False),
        ("project_log.md", "manager", True),
        ("CLUSTER.md", "manager", True),
        ("knowledge/new.md", "knowledge-base", True),
        ("skills/a/SKILL.md", "developer", True),
        ("projects/PROJECT_STATUS.md", "webster", False),
        ("anything.md", "webster", False),
    ],
)
def test_who_may_change_what_in_the_shared_folder(path: str, agent: str, kept: bool) -> None:
    assert bool(refusal(PurePath(path), agent)) is kept
