"""The embedded supervisor, with real processes: the gateways here are stand-ins, all else is as it runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.supervisors import processes
from cluster.supervisors.supervisor import SupervisorClient, SupervisorDown, SupervisorError
from tests.cluster.conftest import states, tell, until
from tests.conftest import ClusterHome
from tests.ports import Lease

Make = Callable[..., ClusterHome]


def test_start_is_idempotent_and_stop_leaves_nothing(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    first = {child["agent"]: child for child in home.json("start")["agents"]}
    again = {child["agent"]: child for child in home.json("start")["agents"]}
    assert {child["state"] for child in again.values()} == {"up"}
    assert {a: c["pid"] for a, c in first.items()} == {a: c["pid"] for a, c in again.items()}
    assert len(home.processes()) == 3
    home.cli("stop")
    assert home.processes() == []
    assert "was not running" in home.cli("stop")


def test_start_some_stop_some(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    home.cli("start", "webster")
    assert {agent: state["state"] for agent, state in states(home).items()} == {"manager": "stopped", "webster": "up"}
    home.cli("start", "manager")
    home.cli("stop", "webster")
    assert {agent: state["state"] for agent, state in states(home).items()} == {"manager": "up", "webster": "stopped"}


def test_restart_gives_a_new_process(standin_home: Make) -> None:
    home = standin_home("webster")
    before = home.json("start")["agents"][0]["pid"]
    after = home.json("restart", "webster")["agents"][0]
    assert after["state"] == "up"
    assert after["pid"] != before


def test_a_killed_gateway_is_started_again(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    client = SupervisorClient(home.home)
    until(lambda: (child := client.list()[0]).state == "up" and child.pid != pid)
    assert client.list()[0].restarts == 1


def test_after_supervisor_and_gateway_are_killed_status_restores_both(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    pids = {child["agent"]: child["pid"] for child in home.json("start")["agents"]}
    supervisor = kill_supervisor(home)
    os.kill(pids["manager"], signal.SIGKILL)
    done = home.run("status", "--json")
    assert "supervisor had died" in done.stderr
    after = states(home)
    assert home.supervisor_pid() not in (None, supervisor)
    assert after["webster"]["pid"] == pids["webster"], "the living one is adopted, not started again"
    assert after["manager"]["state"] == "up"
    assert after["manager"]["pid"] != pids["manager"]


def test_an_adopted_gateway_is_still_watched_and_stopped(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    client = SupervisorClient(home.home)
    assert client.ensure()
    assert client.list()[0].pid == pid
    os.kill(pid, signal.SIGKILL)
    second = until(lambda: (c := client.list()[0]).state == "up" and c.pid != pid and c.pid)
    kill_supervisor(home)
    client.ensure()
    home.cli("stop")
    assert processes.find(second) is None
    assert home.processes() == []


def test_a_gateway_without_a_record_is_found_by_scope_and_command(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    (home.home.run / "agents" / "webster.json").unlink()
    assert states(home)["webster"]["pid"] == pid


def test_a_recorded_pid_that_now_belongs_to_another_is_left_alone(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    os.kill(pid, signal.SIGKILL)
    record = home.home.run / "agents" / "webster.json"
    record.write_text(record.read_text().replace(str(pid), str(os.getpid())))
    after = states(home)["webster"]
    assert after["state"] == "up"
    assert after["pid"] not in (pid, os.getpid())


@pytest.mark.parametrize("how", ["session", "clean"])
def test_stop_finds_a_grandchild_that_hid(standin_home: Make, how: str) -> None:
    home = standin_home("webster")
    tell(home, "webster", grandchild=how)
    pid = home.json("start")["agents"][0]["pid"]
    hidden = until(lambda: _sleeper(home, pid))
    home.cli("stop")
    assert not hidden.alive
    assert home.processes() == []


def test_a_killed_gateway_leaves_no_grandchild_behind(standin_home: Make) -> None:
    home = standin_home("webster")
    tell(home, "webster", grandchild="session")
    pid = home.json("start")["agents"][0]["pid"]
    hidden = until(lambda: _sleeper(home, pid))
    tell(home, "webster")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not hidden.alive)


def test_stop_leaves_nothing_though_the_supervisor_is_dead(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    tell(home, "webster", grandchild="session")
    pid = next(c["pid"] for c in home.json("start")["agents"] if c["agent"] == "webster")
    hidden = until(lambda: _sleeper(home, pid))
    kill_supervisor(home)
    assert sorted(home.json("stop")["stopped"]) == ["manager", "webster"]
    assert not hidden.alive
    assert home.processes() == []
    assert states(home)["webster"] is None, "nothing is revived after a stop"


def test_stop_leaves_nothing_though_the_supervisor_hangs(standin_home: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.supervisors import stopping, supervisor

    home = standin_home("webster")
    home.cli("start")
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.3)
    kill_supervisor(home, signal.SIGSTOP)
    stopping.stop_everything(home.home)
    assert home.processes() == []


def test_one_that_ignores_sigterm_is_killed(standin_home: Make) -> None:
    from cluster.supervisors import stopping

    home = standin_home("webster")
    tell(home, "webster", deaf=True)
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    process = processes.find(pid)
    assert process is not None
    assert processes.end([process], grace=0.2) == []
    stopping.stop_everything(home.home)


def test_a_crash_loop_stops_is_shown_and_is_cleared_by_start(standin_home: Make) -> None:
    home = standin_home("webster")
    tell(home, "webster", exit=3)
    done = home.run("start", "--json")
    assert done.returncode == 1
    assert '"crash_loop"' in done.stdout
    shown = states(home)["webster"]
    assert shown["state"] == "crash-loop"
    assert "exit code 3" in shown["detail"]
    assert "told to exit" in shown["detail"]
    kill_supervisor(home)
    assert states(home)["webster"]["state"] == "crash-loop", "it outlives the supervisor"
    tell(home, "webster")
    home.cli("start", "webster")
    assert states(home)["webster"]["state"] == "up"


def test_exit_78_is_never_restarted_and_its_line_is_shown(standin_home: Make) -> None:
    home = standin_home("webster")
    tell(home, "webster", exit=78)
    done = home.run("start")
    assert done.returncode == 78
    shown = states(home)["webster"]
    assert (shown["state"], shown["restarts"], shown["detail"]) == ("config-error", 0, "standin: told to exit")
    assert "told to exit" in home.cli("status")
    tell(home, "webster")
    home.cli("start")


def test_a_taken_port_is_named_and_retried(standin_home: Make) -> None:
    home = standin_home("webster")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", home.ports["webster"]))
        holder.listen()
        done = home.run("start")
        assert done.returncode == 1
        tries = 0
        while tries < 2:  # through the short lives of those that find it taken
            shown = states(home)["webster"]
            assert shown["state"] == "port-taken"
            tries = shown["restarts"]
        table = home.cli("status")
        assert "in use" in table
        assert "x down" in table
    client = SupervisorClient(home.home)
    until(lambda: client.list()[0].state == "up")


def test_another_clusters_agent_of_the_same_name_is_not_taken_for_ours(standin_home: Make) -> None:
    theirs, ours = standin_home("webster"), standin_home("webster")
    ours.home.cluster_toml.write_text(
        ours.home.cluster_toml.read_text().replace(str(ours.ports["webster"]), str(theirs.ports["webster"]))
    )
    theirs.cli("start")
    done = ours.run("start")
    assert done.returncode == 1
    assert "port-taken" in done.stderr
    assert theirs.pid("webster") == states(theirs)["webster"]["pid"]


def test_a_supervisor_that_is_told_to_end_stops_its_agents_and_they_come_back(standin_home: Make) -> None:
    home = standin_home("webster")
    home.cli("start")
    ended = processes.find(kill_supervisor(home, signal.SIGTERM))
    assert ended is None or processes.wait_gone([ended], 10.0) == []
    assert home.processes() == []
    assert states(home)["webster"]["state"] == "up"


def test_many_commands_at_once_revive_one_supervisor(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: home.run("status", "--json"), range(4)))
    assert [process.returncode for process in done] == [0] * 4
    assert {json.loads(process.stdout)["agents"][0]["pid"] for process in done} == {pid}
    assert len(home.processes()) == 2


def test_start_and_stop_at_once_end_in_one_or_the_other(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    with ThreadPoolExecutor(2) as pool:
        start, stop = pool.map(lambda verb: home.run(verb), ["start", "stop"])
    assert stop.returncode == 0
    running = {row["agent"] for row in home.json("status")["agents"] if row["state"] not in ("down", "stopped")}
    assert running in (set(), {"manager", "webster"}), start.stderr
    home.cli("stop")
    assert home.processes() == []


def test_a_new_port_counts_from_the_next_start(standin_home: Make) -> None:
    home = standin_home("webster")
    home.cli("start")
    with Lease() as lease:
        old, new = home.ports["webster"], lease.ports[0]
        home.home.cluster_toml.write_text(home.home.cluster_toml.read_text().replace(str(old), str(new)))
        assert f"still on port {old}" in home.cli("status")
        assert home.json("restart", "webster")["agents"][0]["port"] == new
        home.cli("stop")


def test_a_broken_cluster_toml_stops_nobody_and_stop_still_works(standin_home: Make) -> None:
    home = standin_home("webster")
    pid = home.json("start")["agents"][0]["pid"]
    kill_supervisor(home)
    home.home.cluster_toml.write_text("broken")
    client = SupervisorClient(home.home)
    assert client.ensure()
    assert [(child.agent, child.pid) for child in client.list()] == [("webster", pid)]
    with pytest.raises(SupervisorError, match=r"cluster\.toml"):
        client.start(["webster"])
    home.cli("stop")
    assert home.processes() == []


def test_the_supervisor_imports_nothing_heavy(standin_home: Make) -> None:
    code = "import sys, cluster.supervisors.embedded; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout.split()
    heavy = {"aiohttp", "textual", "click", "gateway", "console", "anthropic", "sqlite3"}
    assert not heavy & set(modules)


def test_two_supervisors_never_share_a_home(standin_home: Make) -> None:
    home = standin_home("webster")
    home.cli("start")
    first = home.supervisor_pid()
    SupervisorClient(home.home)._launch()
    assert home.supervisor_pid() == first
    assert SupervisorClient(home.home).pid() == first


def test_a_very_long_home_path_has_a_socket_too(standin_home: Make, tmp_path: Path) -> None:
    home = standin_home("webster")
    deep = home.folder / ("d" * 100)
    home.home.root.rename(deep)
    home.home.root = deep
    home.cli("start")
    assert states(home)["webster"]["state"] == "up"
    home.cli("stop")


def test_a_gateway_sees_no_variable_of_the_operators_shell(standin_home: Make) -> None:
    home = standin_home("webster")
    done = home.run("start", ANTHROPIC_API_KEY="sk-ant-not-for-children", PYTHONPATH="/nowhere")
    assert done.returncode == 0
    environ = Path(f"/proc/{home.pid('webster')}/environ").read_bytes()
    assert b"sk-ant" not in environ
    assert b"PYTHONPATH" not in environ
    assert processes.scope_in(home.pid("webster") or 0) == processes.scope_of(home.home, "webster")


def test_an_unknown_agent_is_refused_by_name(standin_home: Make) -> None:
    home = standin_home("webster")
    home.cli("start")
    with pytest.raises(SupervisorError, match="no agent 'wobster'"):
        SupervisorClient(home.home).start(["wobster"])


def test_one_that_hangs_at_its_start_is_ended_and_named(
    standin_home: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = standin_home("webster")
    stuck = tmp_path / "python"
    stuck.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stuck))
    monkeypatch.setattr("cluster.supervisors.supervisor.REVIVE_SECONDS", 1.0)
    with pytest.raises(SupervisorDown, match=r"hung at its start and was ended; .*supervisor\.log"):
        SupervisorClient(home.home).ensure()
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_supervisor_is_small(standin_home: Make) -> None:
    home = standin_home("webster")
    home.cli("start")
    status = Path(f"/proc/{home.supervisor_pid()}/status").read_text()
    rss = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
    assert rss < 28, f"{rss:.1f} MiB"


def kill_supervisor(home: ClusterHome, number: int = signal.SIGKILL) -> int:
    pid = home.supervisor_pid()
    assert pid is not None
    os.kill(pid, number)
    return pid


def _sleeper(home: ClusterHome, gateway: int) -> processes.Process | None:
    """The `sleep 600` that the stand-in started, wherever it hides."""
    for process in processes.descendants([gateway, home.supervisor_pid() or gateway]):
        if processes.command_of(process.pid)[-1:] == ["600"]:
            return process
    return None
