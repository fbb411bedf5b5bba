"""Commands, as a model has them on a real gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.agent.sessions import INTERRUPTED
from runtime.confine import landlock_abi
from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, hands, wait_until, with_words

needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")
SHELL_TABLE = '[shell]\nbackground_after = "1s"\ntimeout = "20s"\nenv = { NX_ROOT = "/opt/nx" }\n'


@pytest.fixture(scope="module")
def webster() -> Iterator[Hands]:
    home = ClusterHome(("webster",))
    try:
        with hands(home, "webster", SHELL_TABLE) as its:
            yield its
    finally:
        home.close()


@needs_landlock
class TestCommands:
    def test_output_and_exit_code_come_back(self, webster: Hands) -> None:
        out = webster.exec("echo out; echo err >&2; pwd; exit 3")
        assert out.startswith(f"out\nerr\n{webster.workspace}\n[exit code 3 after ")

    def test_a_signal_is_named(self, webster: Hands) -> None:
        assert "by SIGSEGV" in webster.exec("kill -SEGV $$")

    def test_it_runs_where_it_is_told_and_not_outside(self, webster: Hands) -> None:
        (webster.workspace / "sub").mkdir()
        assert webster.exec("pwd", cwd="sub").startswith(f"{webster.workspace}/sub\n")
        assert "outside your workspace" in webster.exec("pwd", cwd="../manager")
        assert "there is no" in webster.exec("pwd", cwd="nowhere")

    def test_it_has_a_private_folder_for_what_passes_and_shared_folders_for_what_stays(self, webster: Hands) -> None:
        line = "echo x > $TMPDIR/a && mktemp >/dev/null && ls /tmp"
        line += "; mkdir -p ../shared/projects/p && echo y > ../shared/projects/p/f; echo $NX_ROOT"
        out = webster.exec(line)
        assert "Permission denied" in out
        assert "/opt/nx\n[exit code 0" in out
        assert (webster.home.shared / "projects/p/f").read_text() == "y\n"
        assert not list((webster.home.run / "tmp" / "webster").iterdir())

    def test_escape_sequences_do_not_reach_the_model(self, webster: Hands) -> None:
        out = webster.exec("printf '\\033[31mred\\033[0m\\007 \\033]0;title\\007plain\\r\\n'")
        assert out.startswith("red plain\n[exit")

    def test_python_with_processes_and_a_loop_of_its_own_works(self, webster: Hands) -> None:
        code = (
            "import asyncio, subprocess, threading, tempfile\n"
            "async def main():\n"
            "    p = await asyncio.create_subprocess_exec('echo', 'from below')\n"
            "    await p.wait()\n"
            "asyncio.run(main())\n"
            "t = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()\n"
            "print(tempfile.TemporaryFile().write(b'x'))\n"
        )
        (webster.workspace / "works.py").write_text(code)
        out = webster.exec("python3 works.py")
        if "it goes on as " in out:  # a machine with much to do
            name = out.rpartition("it goes on as ")[2].partition(":")[0]
            out += webster.call("process", action="poll", id=name, wait_seconds=20)
        assert "from below" in out
        assert "from a thread\n1\n" in out
        assert "exit code 0" in out


@needs_landlock
class TestBackground:
    def test_what_takes_long_goes_on_there_and_is_polled(self, webster: Hands) -> None:
        out = webster.exec("echo one; sleep 2; echo two")
        assert out.startswith("one\n[running for ")
        name = out.rpartition("it goes on as ")[2].partition(":")[0]
        out = webster.call("process", action="poll", id=name, wait_seconds=20)
        assert out.startswith(f"two\n[{name}: exit code 0 ")
        assert f"{name}  exit code 0" in webster.call("process", action="list")

    def test_it_reads_what_is_written_to_it(self, webster: Hands) -> None:
        name = webster.exec("cat; echo end", background=True).split()[2].rstrip(";")
        assert webster.call("process", action="write", id=name, text="hello\n", close=True).startswith("written")
        out = webster.call("process", action="poll", id=name, wait_seconds=20)
        assert out.startswith(f"hello\nend\n[{name}: exit code 0")

    def test_the_agent_is_told_of_its_end_at_the_next_heartbeat(self, webster: Hands) -> None:
        webster.exec("sleep 0.5; exit 7", background=True)
        query = "SELECT text FROM notes WHERE text LIKE '%exit code 7%'"
        wait_until(lambda: webster.gateway.sql(query))
        assert "(sleep 0.5; exit 7): exit code 7 after" in webster.gateway.sql(query)[0][0]
        assert webster.gateway.sql("SELECT count(*) FROM runs WHERE source = 'heartbeat'") == [(0,)]

    def test_it_is_killed(self, webster: Hands) -> None:
        mark = f"6{time.time_ns() % 10**9}"
        name = webster.exec(f"sleep {mark}", background=True).split()[2].rstrip(";")
        assert "it was killed" in webster.call("process", action="kill", id=name)
        assert with_words("sleep", mark) == []
        assert "there is no command" in webster.call("process", action="poll", id="c999")

    def test_its_time_has_an_end(self, webster: Hands) -> None:
        mark = f"6{time.time_ns() % 10**9}"
        out = webster.exec(f"echo begun; sleep {mark}", timeout_seconds=0.3)
        assert out.startswith("begun\n[ended after 0.")
        assert "its time of 0 s was up" in out
        assert with_words("sleep", mark) == []

    def test_a_command_that_was_under_way_at_a_crash_is_told_as_interrupted(
        self, make_home: Callable[..., ClusterHome]
    ) -> None:
        mark = f"6{time.time_ns() % 10**9}"
        with hands(make_home("webster"), "webster") as its:
            run_id = its.start("exec", command=f"echo x >> once; sleep {mark}")
            wait_until(lambda: with_words("sleep", mark))
            its.gateway.kill()
            wait_until(lambda: not with_words("sleep", mark))
            its.gateway.start()
            its.gateway.result(run_id)
            assert its.gateway.sql("SELECT output FROM steps WHERE kind = 'tool'") == [(INTERRUPTED,)]
            assert (its.workspace / "once").read_text() == "x\n"


WITHOUT_LANDLOCK = """
import ctypes, errno, os, struct, sys
steps = [(0x20,0,0,0), (0x15,0,1,444), (6,0,0,0x50000 | errno.ENOSYS), (6,0,0,0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *s) for s in steps))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("@HP", len(steps), ctypes.addressof(code)), 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs a Python program as on a kernel without Landlock."""


class TestWithoutLandlock:
    PROGRAM = (
        "import sys; from pathlib import Path; from runtime.home import Home; from runtime.sandbox import Sandbox;"
        "from runtime.config_shell import ShellTable;"
        "print(Sandbox(Home(Path('/x')), 'webster', Path('/x/w'), ShellTable(sandbox=sys.argv[1])).problem())"
    )

    def problem(self, mode: str) -> str:
        program = [sys.executable, "-c", WITHOUT_LANDLOCK, "-c", self.PROGRAM, mode]
        environment = {**os.environ, "PATH": "/nowhere"}
        done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=30, env=environment)
        return done.stdout.strip()

    def test_there_is_no_exec_unless_the_operator_says_so(self) -> None:
        assert self.problem("landlock").startswith("this kernel has no Landlock; without a sandbox write")
        assert self.problem("auto").startswith("this kernel has no Landlock, and there is no bwrap")
        assert self.problem("bubblewrap").startswith("there is no bwrap")
        assert self.problem("off") == ""

    def test_off_means_off_and_still_ends_all_it_started(self, make_home: Callable[..., ClusterHome]) -> None:
        mark = f"6{time.time_ns() % 10**9}"
        with hands(make_home("webster"), "webster", '[shell]\nsandbox = "off"\n') as its:
            out = its.exec(f"ls {its.home.secrets}; (setsid sleep {mark} &) ; sleep 0.1")
            assert "operator" in out
            assert "1 processes that it left behind were ended" in out
            assert with_words("sleep", mark) == []


def test_a_folder_that_holds_the_secrets_is_no_folder_for_commands(make_home: Callable[..., ClusterHome]) -> None:
    home = make_home("webster")
    path = home.home.instance_toml("webster")
    before = path.read_text()
    for table, said in (
        (f'read = ["{home.folder}"]', "which no command may see"),
        (f'write = ["{home.home.secrets}/operator"]', "which no command may see"),
        ('write = ["relative"]', "is not an absolute path"),
        ("env = { LD_PRELOAD = 'x' }", "would change what runs"),
        ('timeout = "0s"', "leaves a run no time"),
    ):
        path.write_text(f"{before}\n[shell]\n{table}\n")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gateway", "--home", str(home.root), "--agent", "webster"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 78, done.stderr
        assert said in done.stderr


@pytest.fixture(scope="module")
def its() -> Iterator[Hands]:
    """Webster in bubblewrap, beside a Manager's folders."""
    home = ClusterHome(("manager", "webster"))
    try:
        with hands(home, "webster", '[shell]\nsandbox = "bubblewrap"\nprocesses = 60\n') as its:
            yield its
    finally:
        home.close()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
class TestBubblewrap:
    """The second way, where there is no Landlock: the same grants."""

    def test_what_is_not_granted_is_not_there(self, its: Hands) -> None:
        root = its.home.root
        out = its.exec(f"cat {root}/secrets/operator/token {root}/workspaces/manager/MEMORY.md {root}/cluster.toml")
        assert out.count("No such file") == 3
        out = its.exec(f"ls /proc/{its.gateway.pid}; kill -9 {its.gateway.pid}; env")
        assert "No such file" in out
        assert "TOKEN" not in out

    def test_what_is_kept_stays_and_what_is_shared_is_written(self, its: Hands) -> None:
        before = (its.home.shared / "PROJECT_STATUS.md").read_text()
        out = its.exec(
            "echo x >> ../shared/PROJECT_STATUS.md; echo y > ../shared/projects/f; echo z > /tmp/z; echo w > w"
        )
        assert "Read-only file system" in out
        assert (its.home.shared / "PROJECT_STATUS.md").read_text() == before
        assert (its.home.shared / "projects" / "f").read_text() == "y\n"
        assert (its.workspace / "w").read_text() == "w\n"

    def test_it_is_ended_with_all_of_it(self, its: Hands) -> None:
        mark = f"6{time.time_ns() % 10**9}"
        out = its.exec(f"i=0; while [ $i -lt 200 ]; do setsid sleep {mark} & i=$((i+1)); done; sleep {mark}")
        assert "more processes than" in out or "annot fork" in out, out
        wait_until(lambda: not with_words("sleep", mark), 5)
        run_id = its.start("exec", command=f'trap "" TERM; (setsid sleep {mark} &); sleep {mark}')
        wait_until(lambda: len(with_words("sleep", mark)) == 2)
        assert its.gateway.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
        assert wait_until(lambda: not with_words("sleep", mark), 5) < 2.0
