"""The home folder: found, and never half-written."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from runtime.home import Home, HomeError, explain_os_error, find_home, shipped_instances, write_atomic
from tests.runtime.conftest import fill


class TestWriteAtomic:
    def test_it_replaces_the_whole_file_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        write_atomic(path, "a much longer first text\n")
        write_atomic(path, "short\n")
        assert path.read_text() == "short\n"
        assert os.listdir(tmp_path) == ["x.toml"]

    def test_the_mode_holds_whatever_the_umask_and_the_mode_before(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("old")
        path.chmod(0o666)
        before = os.umask(0)
        try:
            write_atomic(path, "new", mode=0o600)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_full_disk_leaves_the_old_content_and_names_the_file(self, tiny_disk: Path) -> None:
        path = tiny_disk / "cluster.toml"
        write_atomic(path, "the good one\n")
        fill(tiny_disk)
        with pytest.raises(OSError, match="No space left") as caught:
            write_atomic(path, "x" * 100_000)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_text() == "the good one\n"
        assert sorted(os.listdir(tiny_disk)) == ["ballast", "cluster.toml"]
        assert explain_os_error(caught.value, "nothing was saved") == (
            f"nothing was saved: the disk is full ({path}); free some space and try again"
        )

    def test_a_folder_in_the_way_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.mkdir()
        with pytest.raises(OSError, match="x"):
            write_atomic(path, "y")
        assert os.listdir(tmp_path) == ["x"]

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            write_atomic(tmp_path / "no" / "x", "y")
        assert caught.value.filename == str(tmp_path / "no" / "x")

    def test_threads_that_write_one_file_never_mix_their_texts(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        texts = [letter * 20_000 for letter in "abcd"]
        threads = [
            threading.Thread(target=lambda text=text: [write_atomic(path, text) for _ in range(20)]) for text in texts
        ]
        for thread in threads:
            thread.start()
        seen = set()
        while any(thread.is_alive() for thread in threads):
            if path.exists():
                seen.add(path.read_text())
        for thread in threads:
            thread.join()
        assert {*seen, path.read_text()} <= set(texts)
        assert os.listdir(tmp_path) == ["x"]


class TestExplain:
    def test_a_read_only_disk_and_a_missing_permission_are_told_apart(self) -> None:
        assert "read-only file system" in explain_os_error(OSError(errno.EROFS, "x", "/h/a"), "no")
        assert "no permission for /h/a" in explain_os_error(OSError(errno.EACCES, "x", "/h/a"), "no")

    def test_no_file_name_leaves_no_empty_brackets(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            assert "()" not in explain_os_error(OSError(number, os.strerror(number)), "no")


class TestFinding:
    def test_what_is_given_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ATOMIZER_HOME", str(tmp_path / "env"))
        assert find_home(tmp_path / "given").root == tmp_path / "given"
        assert find_home().root == tmp_path / "env"
        monkeypatch.setenv("ATOMIZER_HOME", "")
        assert find_home().root.name == "atomizer"

    def test_a_home_without_a_cluster_names_the_command_that_makes_one(self, tmp_path: Path) -> None:
        with pytest.raises(HomeError, match="atomizer init --home"):
            Home(tmp_path).require()

    def test_the_shipped_instances_are_found(self) -> None:
        assert (shipped_instances() / "cluster.toml").is_file()
