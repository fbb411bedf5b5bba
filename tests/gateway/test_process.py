"""The process itself: its start, its end, and what it says when it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.control import Acted, HeartbeatChange
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess, running

MakeHome = Callable[..., ClusterHome]


def start_and_fail(home: ClusterHome, agent: str = "webster") -> tuple[int, str]:
    """(exit code, stderr) of a gateway that is expected not to start."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "--home", str(home.root), "--agent", agent],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    return done.returncode, done.stderr


def test_a_bad_configuration_ends_with_78_and_one_line_that_names_file_line_and_key(make_home: MakeHome) -> None:
    home = make_home("webster")
    path = home.home.instance_toml("webster")
    good = path.read_text()
    cases = [
        (good.replace("[heartbeat]", "[hartbeat]"), "heartbeat"),
        (good + "\n[limits]\nmax_stepps = 3\n", "max_steps"),
        (good.replace('every = "', 'every = "every '), "every"),
        ("[agent\n", ":1:"),
    ]
    for text, word in cases:
        path.write_text(text)
        code, said = start_and_fail(home)
        assert code == 78, said
        assert len(said.strip().splitlines()) == 1
        assert str(path) in said
        assert word in said
    path.unlink()
    code, said = start_and_fail(home)
    assert (code, str(path) in said, "restore" in said) == (78, True, True)


def test_overlapping_ports_end_with_78_by_name(make_home: MakeHome) -> None:
    home = make_home("webster", "manager")
    text = home.home.cluster_toml.read_text()
    home.home.cluster_toml.write_text(
        text.replace(f"port = {home.ports['manager']}", f"port = {home.ports['webster'] + 3}")
    )
    code, said = start_and_fail(home)
    assert code == 78
    assert "manager" in said
    assert "webster" in said
    assert "overlaps" in said


def test_a_port_held_by_another_program_ends_with_75_and_names_it(make_home: MakeHome) -> None:
    home = make_home("webster")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", home.ports["webster"]))
        holder.listen()
        code, said = start_and_fail(home)
    assert code == 75
    assert f"pid {os.getpid()}" in said
    assert str(home.ports["webster"]) in said


def test_an_unknown_agent_is_told_the_nearest_one(make_home: MakeHome) -> None:
    code, said = start_and_fail(make_home("webster"), "websster")
    assert code == 78
    assert "did you mean webster?" in said


def test_a_ledger_of_a_newer_version_is_left_alone(make_home: MakeHome) -> None:
    import sqlite3

    home = make_home("webster")
    path = home.home.state_db("webster")
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()
    code, said = start_and_fail(home)
    assert code == 78
    assert "newer" in said


def test_sigterm_ends_it_with_0_and_leaves_nothing_open(make_home: MakeHome) -> None:
    with running(make_home("webster"), "webster") as (gateway,):
        gateway.result(gateway.delegate("remember the end"))
        begun = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begun < 5
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.port), timeout=1)


def test_a_run_that_a_drain_interrupts_goes_on_after_the_next_start(make_home: MakeHome) -> None:
    """Manager waits for a frozen Webster; both are what they were after Manager's restart."""
    home = make_home("manager", "webster")
    with running(home, "manager", "webster") as (manager, webster):
        os.kill(webster.pid, signal.SIGSTOP)
        run_id = manager.delegate("delegate to webster: remember the frozen one")
        until = time.monotonic() + 10
        while not manager.sql("SELECT 1 FROM steps WHERE name = 'delegate'"):
            assert time.monotonic() < until
            time.sleep(0.02)
        manager.kill()
        os.kill(webster.pid, signal.SIGCONT)
        manager.start()
        run = manager.result(run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.attempts == 2
        assert [c.agent for c in run.children] == ["webster"]
        assert webster.notes().count("the frozen one") == 1
        assert webster.sql("SELECT count(*) FROM runs WHERE caller = 'manager'") == [(1,)]


def test_a_delegation_is_carried_out_and_reported_and_its_answer_comes_back(make_home: MakeHome) -> None:
    with running(make_home("manager", "webster"), "manager", "webster") as (manager, webster):
        run = manager.result(manager.delegate("delegate to webster: Find the CTE of Zerodur Class 0"))
        assert run.state is RunState.SUCCEEDED
        assert "0.02e-6" in run.text
        (child,) = run.children
        assert (child.agent, child.state) == ("webster", "succeeded")
        theirs = webster.result(child.run_id)
        assert (theirs.caller, theirs.parent_run_id, theirs.depth) == ("manager", run.run_id, 1)
        log = home_log(manager, 2)
        assert run.run_id in log
        assert child.run_id in log


def home_log(gateway: GatewayProcess, lines: int) -> str:
    """The project log once it has so many entries."""
    until = time.monotonic() + 10
    while True:
        text = gateway.home.home.project_log.read_text()
        if sum(line.startswith("- ") for line in text.splitlines()) >= lines:
            return text
        assert time.monotonic() < until, text
        time.sleep(0.02)


def test_an_agent_without_authority_cannot_delegate(make_home: MakeHome) -> None:
    home = make_home("secretary", "webster")
    path = home.home.instance_toml("secretary")
    path.write_text(path.read_text().replace("allow = [", 'allow = ["delegate", '))
    with running(home, "secretary", "webster") as (secretary, webster):
        run = secretary.result(secretary.delegate("delegate to webster: status"))
        assert "secretary may not delegate to webster" in run.text
        assert webster.sql("SELECT count(*) FROM runs") == [(0,)]


def test_a_cancelled_delegation_cancels_its_child(make_home: MakeHome) -> None:
    with running(make_home("manager", "webster"), "manager", "webster") as (manager, webster):
        os.kill(webster.pid, signal.SIGSTOP)
        run_id = manager.delegate("delegate to webster: remember nothing")
        until = time.monotonic() + 10
        while not manager.sql("SELECT 1 FROM steps WHERE name = 'delegate'"):
            assert time.monotonic() < until
            time.sleep(0.02)
        status, _, body = manager.post(f"/hooks/runs/{run_id}/cancel", {})
        assert (status, body["outcome"]) == (200, "cancelled")
        os.kill(webster.pid, signal.SIGCONT)
        assert manager.result(run_id).state is RunState.CANCELLED


def test_a_model_swap_holds_from_the_next_turn_and_over_a_restart_and_can_be_undone(make_home: MakeHome) -> None:
    with running(make_home("webster"), "webster") as (gateway,):
        put = lambda model: gateway.raw(  # noqa: E731
            "PUT", "/control/model", b'{"model":%s}' % model.encode(), gateway.headers()
        )
        status, _, body = put('"offline/echo"')
        assert (status, body["previous"], body["undo"]) == (200, "offline/retrieval", None)
        assert gateway.result(gateway.delegate("say this")).text == "[offline] say this"
        gateway.kill()
        gateway.start()
        assert gateway.result(gateway.delegate("and this")).text == "[offline] and this"
        for refused, word in (('"anthropic/claude-opus-4-6"', "secrets set"), ('"antropic/x"', "anthropic")):
            status, _, body = put(refused)
            assert status in (400, 409)
            assert word in body["error"]["message"]
        assert put("null")[0] == 200
        assert gateway.status().model.active == "offline/retrieval"


def test_a_configured_model_without_a_key_is_an_error_and_never_a_quiet_fallback(make_home: MakeHome) -> None:
    home = make_home("webster")
    text = home.home.cluster_toml.read_text()
    home.home.cluster_toml.write_text(text.replace('profile = "offline"', 'profile = "live"'))
    with running(home, "webster") as (gateway,):
        status, _, body = gateway.raw("GET", "/ready")
        assert status == 503
        assert "secrets set" in body["failing"][0]
        run = gateway.result(gateway.delegate("Find the CTE of Zerodur Class 0"))
        assert run.state is RunState.FAILED
        assert "[offline]" not in run.text
        assert "secrets set" in run.reason
        assert gateway.status().state == "degraded"


def test_a_bad_reload_keeps_the_good_configuration(make_home: MakeHome) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        path = home.home.instance_toml("webster")
        good = path.read_text()
        path.write_text(good + "\n[nonsense]\n")
        status, _, body = gateway.post("/control/reload", {})
        assert status == 409
        assert "nonsense" in body["error"]["message"]
        assert "nonsense" in gateway.status().config_error
        path.write_text(good)
        assert gateway.post("/control/reload", {})[0] == 200
        assert gateway.status().config_error == ""


def test_a_secret_that_is_no_text_is_named_by_a_reload_and_at_the_start(make_home: MakeHome) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        path = home.home.secrets / "webster" / "anthropic"
        path.write_bytes(b"\xff\xfe")
        status, _, body = gateway.post("/control/reload", {})
        assert (status, body["error"]["code"]) == (409, "bad_config"), body
        assert f"{path} is no text" in gateway.status().config_error
        gateway.stop()
        gateway.spawn()
        assert gateway.process is not None
        assert gateway.process.wait(20) == 78
        assert f"{path} is no text; remove it" in gateway.output().splitlines()[-1]
        path.unlink()
        gateway.start()


def test_no_secret_reaches_a_log_a_status_or_a_childs_environment(make_home: MakeHome) -> None:
    home = make_home("webster")
    with running(home, "webster") as (gateway,):
        token = home.token()
        gateway.result(gateway.delegate(f"remember that {token} is mine"))
        gateway.raw("GET", f"/status?token={token}", None, {})
        text = gateway.home.home.logs("webster").joinpath("gateway.jsonl").read_text() + gateway.output()
        assert token not in text
        assert token not in str(gateway.raw("GET", "/status", None, gateway.headers())[2]["model"])
        assert token not in gateway.notes()
        assert gateway.sql("SELECT count(*) FROM messages WHERE content LIKE ?", f"%{token}%") == [(0,)]
        environ = Path(f"/proc/{gateway.pid}/environ").read_bytes()
        assert home.token("webster").encode() not in environ


def test_a_hasty_heartbeat_is_taken_and_told_what_it_comes_to_where_a_model_costs_money(make_home: MakeHome) -> None:
    home = make_home("manager", "webster")

    def pace(gateway: GatewayProcess, seconds: float) -> str:
        change = HeartbeatChange(every_seconds=seconds)
        return gateway.ask.send("PUT", "/control/heartbeat", change, Acted).outcome

    with running(home, "webster") as (offline,):
        assert pace(offline, 5) == "the heartbeat is every 5 s"
    with obedient_model() as server:
        obey(home, server, "manager")
        with running(home, "manager") as (live,):
            told = pace(live, 5)
            assert told.startswith("the heartbeat is every 5 s: at most 17,280 beats a day, ")
            assert f"of {live.status().model.active}" in told
            assert pace(live, 60) == "the heartbeat is every 60 s"
