"""What a model that was talked into something tries, through a real gateway. docs/security.md lists each of these."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from cluster.supervisors import processes
from runtime.confine import landlock_abi
from runtime.secrets import Secrets
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, Hands, hands, obedient_model, obey, wait_until, with_words
from tests.gateway.process import GatewayProcess, running

pytestmark = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock: there is no exec to attack")

LIMITS = '[shell]\nprocesses = 60\nbackground_after = "40s"\n'
OUTSIDE = "is outside your workspace"


@pytest.fixture(scope="module")
def webster() -> Iterator[Hands]:
    """Webster with a shell and nobody to ask, beside the Manager's gateway."""
    home = ClusterHome(("manager", "webster"))
    try:
        with running(home, "manager") as (manager,), hands(home, "webster", LIMITS, A_KEY_OF_THE_SHELL="sesame") as its:
            its.manager = manager  # type: ignore[attr-defined]
            yield its
    finally:
        home.close()


class TestFiles:
    @pytest.mark.parametrize(
        "path",
        [
            "../manager/MEMORY.md",
            "../../secrets/operator/token",
            "shared/../../../secrets/operator/token",
            "webster/../../../secrets/operator/token",
            "/etc/passwd",
            "memory/../../manager/MEMORY.md",
        ],
    )
    def test_no_path_leads_out_of_the_roots(self, webster: Hands, path: str) -> None:
        results = webster.calls(
            ("read_file", {"path": path}),
            ("write_file", {"path": path, "content": "mine"}),
            ("edit_file", {"path": path, "old": "a", "new": "b"}),
            ("list_files", {"path": path}),
            ("search_files", {"pattern": ".", "path": path}),
        )
        assert all(OUTSIDE in text for text in results), results

    def test_no_link_leads_out_of_the_roots(self, webster: Hands) -> None:
        (webster.workspace / "way").symlink_to(webster.home.secrets)
        (webster.workspace / "token").symlink_to(webster.home.secrets / "operator" / "token")
        before = (webster.home.secrets / "operator" / "token").read_text()
        results = webster.calls(
            ("read_file", {"path": "way/operator/token"}),
            ("read_file", {"path": "token"}),
            ("write_file", {"path": "token", "content": "mine"}),
            ("write_file", {"path": "way/operator/more", "content": "mine"}),
            ("list_files", {"path": "way"}),
            ("search_files", {"pattern": ".", "path": "way"}),
        )
        assert all(OUTSIDE in text for text in results), results
        found = webster.call("search_files", pattern=r"^[\w-]{40,}$", path=".")  # what a token looks like
        assert before.strip() not in found
        assert (webster.home.secrets / "operator" / "token").read_text() == before
        assert not (webster.home.secrets / "operator" / "more").exists()

    def test_a_link_put_there_in_the_middle_of_a_call_leads_nowhere(self, webster: Hands) -> None:
        folder, beside, link = (webster.workspace / name for name in ("d", "d.kept", "d.link"))
        secret = (webster.home.secrets / "operator" / "token").read_text()
        stop = threading.Event()

        def lay() -> None:
            for path in (folder, beside, link):
                path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            (folder / "token").write_text("harmless")
            link.symlink_to(webster.home.secrets / "operator")

        def swap() -> None:
            nonlocal rounds
            while not stop.is_set():
                try:
                    folder.rename(beside)
                    link.rename(folder)
                    folder.rename(link)
                    beside.rename(folder)
                    rounds += link.is_symlink()
                except OSError:
                    pass
                if not link.is_symlink():  # a write has made the folder anew in between
                    lay()

        rounds = 0
        lay()
        swapping = threading.Thread(target=swap, daemon=True)
        swapping.start()
        try:
            results: list[str] = []
            for n in range(4):
                reads = [("read_file", {"path": "d/token", "limit": n * 20 + m + 1}) for m in range(15)]
                results += webster.calls(*reads, ("write_file", {"path": f"d/new{n}", "content": "mine"}))
        finally:
            stop.set()
            swapping.join(timeout=30)
        assert rounds > 100
        assert not swapping.is_alive()
        assert secret.strip() not in "".join(results)
        assert os.listdir(webster.home.secrets / "operator") == ["token"]

    @pytest.mark.parametrize("name", ["PROJECT_STATUS.md", "project_log.md", "CLUSTER.md", "knowledge/fea-practice.md"])
    def test_the_kept_files_of_the_shared_folder_stay_as_they_are(self, webster: Hands, name: str) -> None:
        before = (webster.home.shared / name).read_text()
        (webster.workspace / "s").unlink(missing_ok=True)
        (webster.workspace / "s").symlink_to(webster.home.shared)
        results = webster.calls(
            ("write_file", {"path": f"shared/{name}", "content": "x"}),
            ("write_file", {"path": f"s/{name}", "content": "x"}),
            ("edit_file", {"path": f"shared/{name}", "old": before.splitlines()[0], "new": "x"}),
        )
        assert all(re.search(r"written by|kept by", text) for text in results), results
        line = (
            f"echo x >> ../shared/{name}; echo x > ../shared/{name}; rm -f ../shared/{name}; mv mine ../shared/{name};"
            f" python3 -c 'import os; os.truncate(\"../shared/{name}\", 0)'; ln ../shared/{name} ./hard; true"
        )
        assert "exit code 0" in webster.exec(line)
        lines = (webster.home.shared / name).read_text().splitlines()
        assert [text for text in lines if "| webster |" not in text] == [
            text for text in before.splitlines() if "| webster |" not in text
        ]
        assert not (webster.workspace / "hard").exists()


class TestSecrets:
    def test_a_command_reads_no_token_no_state_and_no_other_agent(self, webster: Hands) -> None:
        home = webster.home.root
        token = (home / "secrets" / "operator" / "token").read_text().strip()
        for path in (
            "secrets/operator/token",
            "secrets/webster/token",
            "instances/webster/state.db",
            "instances/manager/instance.toml",
            "workspaces/manager/MEMORY.md",
            "cluster.toml",
        ):
            assert (home / path).exists(), path
            out = webster.exec(f"cat {home / path}; ln {home / path} h; cp {home / path} c; echo mine >> {home / path}")
            assert out.count("Permission denied") + out.count("cross-device") >= 3, out
            assert token not in out
        assert not (webster.workspace / "h").exists()

    def test_the_environment_holds_what_is_listed_and_no_more(self, webster: Hands) -> None:
        assert os.environ["A_KEY_OF_THE_SHELL"] == "sesame"
        out = webster.exec("env")
        names = {line.partition("=")[0] for line in out.splitlines() if "=" in line and not line.startswith("[")}
        assert {"PATH", "HOME", "TMPDIR", "ATOMIZER_AGENT", "ATOMIZER_RUN"} <= names
        listed = {"PATH", "HOME", "TMPDIR", "TERM", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "PWD", "SHLVL", "_"}
        listed |= {"OLDPWD", "SSL_CERT_FILE", "SSL_CERT_DIR", "ATOMIZER_AGENT", "ATOMIZER_RUN", "ATOMIZER_SCOPE"}
        assert {name for name in names - listed if not name.startswith("LC_")} == set()
        assert "sesame" not in out

    def test_no_other_process_shows_its_environment_or_memory(self, webster: Hands) -> None:
        manager: GatewayProcess = webster.manager  # type: ignore[attr-defined]
        for pid in (manager.pid, webster.gateway.pid, os.getpid(), 1):
            names = "environ mem maps fd/0 cwd/instance.toml root/etc/passwd"
            line = f"for f in {names}; do cat /proc/{pid}/$f && echo GOT $f; done; readlink -v /proc/{pid}/exe"
            out = webster.exec(line)
            assert "GOT" not in out, out
            assert out.count("Permission denied") == 7, out

    def test_no_other_process_is_signalled_traced_or_limited(self, webster: Hands) -> None:
        if landlock_abi() < 6:
            pytest.skip("this kernel does not scope signals (Landlock ABI 6, Linux 6.12)")
        manager: GatewayProcess = webster.manager  # type: ignore[attr-defined]
        for pid in (manager.pid, webster.gateway.pid):
            out = webster.exec(
                f"kill -9 {pid} && echo GOT kill; prlimit --pid {pid} --cpu=1 && echo GOT prlimit; "
                f"kill -9 $PPID && echo GOT keeper; true"
            )
            assert "GOT" not in out, out
        assert manager.raw("GET", "/health")[0] == 200

    def test_no_other_process_loses_its_turn(self, webster: Hands) -> None:
        """Tried on another command: as root, a gateway has capabilities that would hide whether this is held."""
        mark = f"6{time.time_ns() % 10**9}"
        webster.exec(f"sleep {mark}", background=True)
        wait_until(lambda: with_words("sleep", mark))
        (pid,) = with_words("sleep", mark)
        out = webster.exec(
            f"renice -n 19 -p {pid}; chrt --idle -p 0 {pid}; ionice -c 3 -p {pid}; "
            "python3 -c 'import os; os.setpriority(os.PRIO_USER, 0, 19)'; nice -n 7 nice; nice -n 3 true && echo GOOD"
        )
        assert out.count("not permitted") == 4, out
        assert "GOOD" in out
        assert os.getpriority(os.PRIO_PROCESS, pid) == 5
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        os.kill(pid, 9)

    def test_no_socket_reaches_a_gateway_or_the_users_own_services(self, webster: Hands) -> None:
        out = webster.exec(
            "python3 -c 'import socket\n"
            "for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):\n"
            '    try: socket.socket(kind); print("GOT", kind)\n'
            "    except PermissionError as error: print(error)'"
        )
        assert out.count("Permission denied") == 4, out
        assert "GOT" not in out

    def test_a_secret_that_a_tool_finds_is_in_no_line_answer_or_file(self, webster: Hands) -> None:
        key = Secrets(webster.home).get("google", "api-key")
        assert key
        (webster.workspace / "found.txt").write_text(f"the key is {key}\n")
        outs = webster.calls(
            ("read_file", {"path": "found.txt"}),
            ("exec", {"command": "cat found.txt; cat found.txt >&2"}),
            ("search_files", {"pattern": "the key is"}),
        )
        assert all("[redacted]" in out for out in outs), outs
        webster.gateway.result(webster.gateway.delegate(f"the key is {key}, keep it"))
        folder = webster.home.instance("webster")
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert any(path.name == "gateway.jsonl" for path in files)
        assert [path.name for path in files if key.encode() in path.read_bytes()] == []


class TestResources:
    @pytest.mark.parametrize("start", ["sleep", "setsid sleep"])
    def test_a_fork_bomb_is_ended_with_all_of_it(self, webster: Hands, start: str) -> None:
        mark = f"7{time.time_ns() % 10**9}"
        # It stops by itself at 200, whatever happens; the limit is 60.
        out = webster.exec(f"i=0; while [ $i -lt 200 ]; do {start} {mark} & i=$((i+1)); done; sleep {mark}")
        assert "more processes than" in out or "annot fork" in out, out
        wait_until(lambda: not with_words(mark), 5)

    def test_a_gigabyte_of_output_is_kept_in_little_memory(self, webster: Hands) -> None:
        before = webster.gateway.status().rss_bytes
        began = time.monotonic()
        out = webster.exec("echo BEGIN; head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo END", seconds=120)
        print(f"\n1 GB in {time.monotonic() - began:.1f} s")
        assert len(out) < 40_000
        assert out.startswith("BEGIN\nxxx")
        assert "bytes in between were not kept" in out
        assert "END\n[exit code 0" in out
        grown = (webster.gateway.status().rss_bytes - before) / 2**20
        print(f"grown by {grown:.1f} MiB")
        assert grown < 12

    def test_memory_and_files_have_a_limit(self, make_home: Callable[..., ClusterHome]) -> None:
        with hands(make_home("webster"), "webster", "[shell]\nmemory_mb = 64\nfile_mb = 1\n") as its:
            assert "MemoryError" in its.exec("python3 -c 'x = bytearray(200_000_000)'")
            out = its.exec("head -c 5000000 /dev/zero > big; ls -l big")
            assert (its.workspace / "big").stat().st_size <= 2**20, out

    def test_a_regular_expression_without_end_is_ended(self, webster: Hands) -> None:
        (webster.workspace / "as.txt").write_text("a" * 60 + "\n")
        began = time.monotonic()
        out = webster.call("search_files", pattern="(a+)+$b", glob="as.txt")
        assert "was not done after" in out, out
        assert time.monotonic() - began < 30


STUBBORN = 'trap "" TERM HUP INT; (setsid sh -c \'trap "" TERM; env -i sleep {0} & sleep {0}\' &); sleep {0}; sleep {0}'
"""Ignores SIGTERM, leaves its session and its parent, and has one without our scope in its environment."""


class TestLeftovers:
    @pytest.fixture
    def mark(self) -> str:
        return f"8{time.time_ns() % 10**9}"

    def begin(self, its: Hands, mark: str, **arguments: bool) -> str:
        run_id = its.start("exec", command=STUBBORN.format(mark), **arguments)
        wait_until(lambda: len(with_words("sleep", mark)) == 3)
        return run_id

    @pytest.mark.parametrize("background", [False, True])
    def test_a_cancelled_run_takes_its_commands_along_within_a_second(
        self, webster: Hands, mark: str, background: bool
    ) -> None:
        if background:
            calls = [
                ("exec", {"command": STUBBORN.format(mark), "background": True}),
                ("exec", {"command": f"sleep 3{mark}"}),
            ]
            run_id = webster.gateway.delegate(json.dumps(calls))
            wait_until(lambda: len(with_words("sleep", mark)) == 3 and with_words("sleep", f"3{mark}"))
        else:
            run_id = self.begin(webster, mark)
        assert webster.gateway.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
        took = wait_until(lambda: not with_words("sleep", mark), 5)
        print(f"\ngone after {took:.2f} s")
        assert took < 2.0  # a second on a machine that does nothing else
        assert webster.gateway.result(run_id).state.value == "cancelled"

    def test_the_end_of_a_command_is_the_end_of_what_it_started(self, webster: Hands, mark: str) -> None:
        out = webster.exec(f"(setsid sleep {mark} &); sleep 0.2; echo begun")
        assert "begun\n[exit code 0" in out
        assert "that it left behind were ended" in out
        assert with_words("sleep", mark) == []

    def test_a_gateway_that_stops_leaves_nothing(self, make_home: Callable[..., ClusterHome], mark: str) -> None:
        with hands(make_home("webster"), "webster") as its:
            self.begin(its, mark, background=True)
            assert its.gateway.stop() == 0
            assert with_words("sleep", mark) == []
            assert not list(its.home.run.glob("tmp/*/*"))

    def test_a_gateway_that_is_killed_leaves_nothing(self, make_home: Callable[..., ClusterHome], mark: str) -> None:
        with hands(make_home("webster"), "webster") as its:
            self.begin(its, mark, background=True)
            its.gateway.kill()
            wait_until(lambda: not with_words("sleep", mark), 5)

    def test_a_private_folder_thousands_of_folders_deep_keeps_no_gateway_from_starting(
        self, make_home: Callable[..., ClusterHome]
    ) -> None:
        home = make_home("webster")
        with hands(home, "webster") as its:
            (its.workspace / "deep.py").write_text(
                "import os\nos.chdir(os.environ['TMPDIR'])\nos.mkdir('shut')\nopen('shut/f', 'w').close()\n"
                "os.chmod('shut', 0)\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nprint('made')\n"
            )
            assert "made" in its.exec("python3 deep.py")
            wait_until(lambda: not list(home.home.run.glob("tmp/webster/*")))
            its.start("exec", command="python3 deep.py; sleep 600")
            wait_until(lambda: list(home.home.run.glob("tmp/webster/*/d/d/d")))
            its.gateway.kill()
            its.gateway.start()
            assert "hi" in its.exec("echo hi")

    @pytest.mark.parametrize("killed", [False, True], ids=["stopped", "gateway-and-keeper-killed"])
    def test_atomizer_stop_leaves_nothing(self, make_home: Callable[..., ClusterHome], mark: str, killed: bool) -> None:
        home = make_home("webster")
        with obedient_model() as server:
            obey(home, server, "webster", allow=SHELL)
            home.cli("start")
            gateway = GatewayProcess(home, "webster")
            self.begin(Hands(gateway), mark, background=True)
            if killed:
                keepers = [pid for pid in with_words("-I", "-S", "-B") if mark in processes.command_of(pid)[-1]]
                assert keepers
                for pid in (home.pid("webster"), *keepers):
                    assert pid is not None
                    os.kill(pid, 9)
            home.cli("stop")
            wait_until(lambda: not with_words("sleep", mark), 5)


def test_nothing_of_all_this_troubled_the_gateway(webster: Hands) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{webster.gateway.port}/ready", timeout=10) as answer:
        assert answer.status == 200
