"""The file tools, as a model has them on a real gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, hands


@pytest.fixture(scope="module")
def webster() -> Iterator[Hands]:
    home = ClusterHome(("webster",))
    try:
        with hands(home, "webster") as its:
            yield its
    finally:
        home.close()


@pytest.fixture(scope="module")
def manager() -> Iterator[Hands]:
    home = ClusterHome(("manager",))
    try:
        with hands(home, "manager") as its:
            yield its
    finally:
        home.close()


class TestWrite:
    def test_a_file_and_the_folders_above_it_are_made(self, webster: Hands) -> None:
        out = webster.call("write_file", path="study/a/b.txt", content="one\ntwo\n")
        assert out == "made study/a/b.txt: 2 lines"
        assert (webster.workspace / "study/a/b.txt").read_text() == "one\ntwo\n"
        assert not [path for path in (webster.workspace / "study/a").iterdir() if path.name != "b.txt"]

    def test_a_file_keeps_its_mode_when_it_is_replaced(self, webster: Hands) -> None:
        script = webster.workspace / "run.sh"
        script.write_text("old")
        script.chmod(0o750)
        assert webster.call("write_file", path="run.sh", content="new").startswith("replaced")
        assert (script.read_text(), script.stat().st_mode & 0o777) == ("new", 0o750)

    def test_shared_work_goes_to_the_shared_folder(self, webster: Hands) -> None:
        webster.call("write_file", path="shared/projects/m1/trials.csv", content="1,2\n")
        assert (webster.home.shared / "projects/m1/trials.csv").read_text() == "1,2\n"

    def test_a_folder_a_pipe_and_too_much_are_refused(self, webster: Hands) -> None:
        import os

        os.mkfifo(webster.workspace / "pipe")
        outs = webster.calls(
            ("write_file", {"path": "memory", "content": "x"}),
            ("write_file", {"path": "pipe", "content": "x"}),
            ("read_file", {"path": "pipe"}),
            ("write_file", {"path": ".", "content": "x"}),
            ("read_file", {"path": "no\0thing"}),
        )
        assert "is no plain file" in outs[0]
        assert "is no plain file" in outs[1]
        assert "is no plain file" in outs[2]
        assert "is a folder" in outs[3]
        assert "is no path" in outs[4]

    def test_the_manager_alone_writes_the_project_status(self, manager: Hands) -> None:
        path = manager.home.shared / "PROJECT_STATUS.md"
        assert manager.call("edit_file", path="shared/PROJECT_STATUS.md", old="## Goal", new="## Aim").startswith(
            "edited"
        )
        assert "## Aim" in path.read_text()
        out = manager.exec("echo more >> ../shared/PROJECT_STATUS.md")
        assert "exit code 0" in out
        assert path.read_text().endswith("more\n")
        assert "project_log" in manager.call("write_file", path="shared/project_log.md", content="x")


class TestEdit:
    def edit(self, its: Hands, text: str, old: str, new: str, **more: bool) -> tuple[str, str]:
        path = its.workspace / "text.md"
        path.write_bytes(text.encode())
        out = its.call("edit_file", path="text.md", old=old, new=new, **more)
        return out, path.read_bytes().decode()

    def test_one_piece_is_replaced(self, webster: Hands) -> None:
        assert self.edit(webster, "a\nb\nc\n", "b", "B") == ("edited text.md: at line 2", "a\nB\nc\n")

    def test_what_stands_twice_is_named_by_its_lines(self, webster: Hands) -> None:
        out, text = self.edit(webster, "a\nb\na\n", "a", "A")
        assert "stands 2 times" in out
        assert "lines 1, 3" in out
        assert text == "a\nb\na\n"
        assert self.edit(webster, "a\nb\na\n", "a", "A", all=True)[1] == "A\nb\nA\n"

    def test_what_does_not_stand_there_is_answered_with_what_is_nearest(self, webster: Hands) -> None:
        out, _ = self.edit(webster, "def f():\n    return 1\n\ndef g():\n    return 2\n", "def f():\n  return 1", "x")
        assert "The same line stands there" in out
        assert "    1  def f():\n    2      return 1" in out
        out, _ = self.edit(webster, "thickness = 25.0 mm\nother\n", "thickness = 26.0 mm", "x")
        assert "Nearest:\n    1  thickness = 25.0 mm" in out

    def test_an_edit_that_is_made_already_changes_nothing(self, webster: Hands) -> None:
        out, text = self.edit(webster, "a\nb\nadded\n", "b\n", "b\nadded\n")
        assert "nothing was changed" in out
        assert text == "a\nb\nadded\n"
        out, text = self.edit(webster, "x = 10\n", "x = 1\n", "x = 10\n")
        assert "nothing was changed" in out

    def test_line_ends_of_windows_are_kept(self, webster: Hands) -> None:
        assert self.edit(webster, "a\r\nb\r\nc\r\n", "a\nb", "A\nB")[1] == "A\r\nB\r\nc\r\n"


class TestLooking:
    def test_a_folder_is_listed_and_a_pattern_goes_down(self, webster: Hands) -> None:
        for name in ("tree/one.py", "tree/sub/two.py", "tree/sub/deep/three.py", "tree/.git/four.py", "tree/five.txt"):
            path = webster.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("import os\n" if name.endswith("py") else "The END\n")
        plain, below, under, nothing = webster.calls(
            ("list_files", {"path": "tree"}),
            ("list_files", {"path": "tree", "pattern": "*.py"}),
            ("list_files", {"path": "tree", "pattern": "sub/**/*.py"}),
            ("list_files", {"path": "tree", "pattern": "*.md"}),
        )
        assert plain.splitlines() == ["five.txt  8 bytes", "one.py  10 bytes", "sub/"]
        assert [line.split()[0] for line in below.splitlines()] == ["one.py", "sub/two.py", "sub/deep/three.py"]
        assert [line.split()[0] for line in under.splitlines()] == ["sub/two.py", "sub/deep/three.py"]
        assert nothing == "[nothing there]"

    def test_lines_are_found_by_expression_and_name(self, webster: Hands) -> None:
        (webster.workspace / "grep").mkdir()
        for n in range(5):
            (webster.workspace / "grep" / f"{n}.md").write_text(f"line\nvalue {n}.5 GPa\n")
        found, cut, none, case, wrong = webster.calls(
            ("search_files", {"pattern": r"value [34]\.5", "path": "grep"}),
            ("search_files", {"pattern": "value", "path": "grep", "limit": 2}),
            ("search_files", {"pattern": "value", "path": "grep", "glob": "*.txt"}),
            ("search_files", {"pattern": "VALUE 0", "path": "grep", "ignore_case": True}),
            ("search_files", {"pattern": "(", "path": "grep"}),
        )
        assert found.splitlines() == ["grep/3.md:2: value 3.5 GPa", "grep/4.md:2: value 4.5 GPa"]
        assert cut.endswith("[cut at 2 lines]")
        assert none == "[no line of 0 files matches]"
        assert case == "grep/0.md:2: value 0.5 GPa"
        assert "is no regular expression" in wrong
