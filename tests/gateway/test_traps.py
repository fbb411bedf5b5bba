"""What an agent's own commands can put in the gateway's way: links, pipes, odd names, deep folders, huge edits.

The gateway may read everything in the home and must not be led there; docs/security.md lists each of these.
"""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.health import Health
from runtime.confine import landlock_abi
from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, hands, wait_until, with_words
from tests.gateway.process import GatewayProcess

pytestmark = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock: there is no exec")

PASSWORD = "the zirconium password is xyzzy-4711"


@pytest.fixture(scope="module")
def webster() -> Iterator[Hands]:
    home = ClusterHome(("manager", "webster"))
    try:
        (home.home.workspace("manager") / "MEMORY.md").write_text(f"- {PASSWORD}\n")
        with hands(home, "webster", '[shell]\nbackground_after = "40s"\n') as its:
            yield its
    finally:
        home.close()


@pytest.fixture
def notes(webster: Hands) -> Iterator[Path]:
    """Its notes' folder, empty again afterwards."""
    webster.exec("rm -rf memory; mkdir memory")
    yield webster.workspace / "memory"
    webster.exec("rm -rf memory; mkdir memory")


@contextlib.contextmanager
def in_place_of(its: Hands, name: str, line: str) -> Iterator[None]:
    """`line` is run where `name` was; the file is there again afterwards."""
    text = (its.workspace / name).read_text()
    its.exec(f"rm -f {name}; {line}")
    try:
        yield
    finally:
        (its.workspace / name).unlink()
        (its.workspace / name).write_text(text)


def answers(gateway: GatewayProcess, seconds: float = 5.0) -> float:
    """How long `/health` takes."""
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/health", timeout=seconds) as answer:
        assert answer.status == 200
    return time.monotonic() - began


class TestLinks:
    def test_no_link_among_the_notes_is_searched_where_it_leads_out(self, webster: Hands, notes: Path) -> None:
        webster.exec("ln -s ../../manager/MEMORY.md memory/a.md; echo '- zirconium melts at 1855 C' > memory/b.md")
        webster.exec("mkdir -p ../shared/projects; ln -s ../../manager/MEMORY.md ../shared/projects/z.md")
        found = webster.call("memory_search", query="zirconium")
        assert "1855" in found
        assert "xyzzy" not in found
        with in_place_of(webster, "MEMORY.md", "ln -s ../manager/MEMORY.md MEMORY.md"):
            assert "xyzzy" not in webster.call("memory_search", query="zirconium password")
        webster.exec("rm ../shared/projects/z.md")

    @pytest.mark.parametrize(
        "line",
        [
            "ln -s ../../shared/PROJECT_STATUS.md memory/$(date +%F).md",
            "rm -rf memory; ln -s ../manager memory",
            "rm -rf memory; ln -s ../../instances/webster memory",
        ],
    )
    def test_no_note_is_written_through_a_link(self, webster: Hands, notes: Path, line: str) -> None:
        manager, shared = webster.home.workspace("manager"), webster.home.shared
        before = {path: path.read_bytes() for root in (manager, shared) for path in root.rglob("*") if path.is_file()}
        webster.exec(line)
        out = webster.call("memory_write", text="the manager said that webster decides")
        assert "the note was not written" in out
        after = {path: path.read_bytes() for root in (manager, shared) for path in root.rglob("*") if path.is_file()}
        for path in set(before) | set(after):
            if path.name != "project_log.md":
                assert after.get(path) == before.get(path), path
        assert not list(webster.home.instance("webster").glob("????-??-??.md"))
        webster.exec("rm -rf memory")

    @pytest.mark.parametrize("name", ["SOUL.md", "AGENTS.md", "MEMORY.md"])
    def test_no_file_of_the_prompt_is_read_where_it_leads_out(self, webster: Hands, name: str) -> None:
        token = (webster.home.secrets / "operator" / "token").read_text().strip()
        for target in ("../../secrets/operator/token", "../manager/MEMORY.md"):
            with in_place_of(webster, name, f"ln -s {target} {name}"):
                webster.call("status")
                used = webster.gateway.sql("SELECT text FROM prompts")
                assert all(token not in text and PASSWORD not in text for (text,) in used)
                assert any("it leads out of the folder by a link" in text for (text,) in used)

    def test_a_link_within_the_workspace_still_works(self, webster: Hands) -> None:
        (webster.workspace / "rules.md").write_text("Always answer in SI units, said the linked file.")
        with in_place_of(webster, "AGENTS.md", "ln -s rules.md AGENTS.md"):
            webster.call("status")
        assert any("said the linked file" in text for (text,) in webster.gateway.sql("SELECT text FROM prompts"))


class TestPipes:
    def test_a_pipe_among_the_notes_holds_nobody_up(self, webster: Hands, notes: Path) -> None:
        webster.exec("mkfifo memory/a.md memory/$(date +%F).md; echo '- hafnium melts at 2233 C' > memory/b.md")
        assert "2233" in webster.call("memory_search", query="hafnium", seconds=20)
        assert "no plain file" in webster.call("memory_write", text="x", seconds=20)

    @pytest.mark.parametrize("name", ["SOUL.md", "AGENTS.md", "HEARTBEAT.md"])
    def test_a_pipe_in_the_place_of_a_prompt_file_does_not_stop_the_gateway(self, webster: Hands, name: str) -> None:
        with in_place_of(webster, name, f"mkfifo {name}"):
            webster.gateway.post("/control/heartbeat/now", {})
            assert "webster" in webster.call("status", seconds=20).lower()
            assert answers(webster.gateway) < 3

    def test_a_huge_prompt_file_is_not_read_whole(self, webster: Hands) -> None:
        before = webster.gateway.status().rss_bytes
        with in_place_of(webster, "AGENTS.md", "truncate -s 2G AGENTS.md"):
            assert webster.gateway.status().rss_bytes - before < 30 * 2**20


class TestNames:
    def test_names_that_are_no_utf8_stop_no_tool(self, webster: Hands, notes: Path) -> None:
        make = "import os; [open(os.path.join(d, b'n\\xff.md'), 'w').write('- needle') for d in (b'.', b'memory')]"
        (webster.workspace / "make.py").write_text(make)
        assert "exit code 0" in webster.exec("python3 make.py; echo '- needle is sharp' > memory/b.md")
        listed, found, searched, skill = webster.calls(
            ("list_files", {}),
            ("search_files", {"pattern": "needle"}),
            ("memory_search", {"query": "needle"}),
            ("exec", {"command": "rm n*.md memory/n*.md"}),
        )
        assert "n\\udcff.md  8 bytes" in listed.splitlines()
        assert "n\\udcff.md:1: - needle" in found.splitlines()
        assert "needle is sharp" in searched
        assert "exit code 0" in skill

    def test_a_line_end_in_a_name_makes_no_second_entry(self, webster: Hands) -> None:
        webster.exec("echo odd > 'a\nPROJECT_PLAN.md  9 bytes'")
        listed, found = webster.calls(("list_files", {}), ("search_files", {"pattern": "^odd$"}))
        assert "a\\nPROJECT_PLAN.md  9 bytes  4 bytes" in listed.splitlines()
        assert found == "a\\nPROJECT_PLAN.md  9 bytes:1: odd"
        webster.exec("rm a*bytes")

    def test_half_a_character_in_an_argument_ends_no_run(self, webster: Hands) -> None:
        assert "x\ufffdy" in webster.exec("echo 'x\ud800y'")
        assert "passages" in webster.call("memory_search", query="\udc00 needle")


class TestSizes:
    def test_folders_deep_inside_each_other_are_left_at_some_depth(self, webster: Hands, notes: Path) -> None:
        (webster.workspace / "deep.py").write_text(
            "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
        )
        assert "exit code 0" in webster.exec("python3 deep.py memory; echo '- tantalum is heavy' > memory/b.md")
        listed, found, searched = webster.calls(
            ("list_files", {"pattern": "*.zzz"}),
            ("search_files", {"pattern": "tantalum", "path": "memory"}),
            ("memory_search", {"query": "tantalum"}),
            seconds=30,
        )
        assert listed == "[nothing there]"
        assert "memory/b.md:1: - tantalum is heavy" in found
        assert "tantalum is heavy" in searched

    def test_an_edit_that_would_grow_to_gigabytes_is_refused_at_once(self, webster: Hands) -> None:
        webster.exec("head -c 1900000 /dev/zero | tr '\\0' a > many.txt")
        before = webster.gateway.status().rss_bytes
        out = webster.call("edit_file", path="many.txt", old="a", new="b" * 3000, all=True, seconds=20)
        assert "would be larger than" in out
        assert webster.gateway.status().rss_bytes - before < 40 * 2**20

    def test_a_regular_expression_that_is_slow_to_read_holds_up_nobody(self, webster: Hands) -> None:
        run_id = webster.start("search_files", pattern="(?i)" + "[\\0-\U0010ffff]" * 300)
        slowest, ended = 0.0, False
        while not ended:
            began = time.monotonic()
            ended = webster.gateway.ask.run(run_id).state.ended
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.5

    def test_a_search_does_not_outlive_its_gateway_for_long(self, make_home: Callable[..., ClusterHome]) -> None:
        with hands(make_home("webster"), "webster") as its:
            (its.workspace / "as.txt").write_text("a" * 60 + "\n")
            its.start("search_files", pattern="(a+)+$b", glob="as.txt")
            wait_until(lambda: searches(its))
            its.gateway.kill()
            wait_until(lambda: not searches(its), 20)


def searches(its: Hands) -> list[int]:
    return [pid for pid in with_words("-I", "-S", "-B") if "looking.py" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_nothing_of_all_this_troubled_the_gateway(webster: Hands) -> None:
    assert webster.gateway.ask.get("/health", Health).agent == "webster"
    assert "hi\n[exit code 0" in webster.exec("echo hi")
