"""The command line over real gateways: what scripts may rely on."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.cluster.conftest import until
from tests.conftest import ClusterHome

Make = Callable[..., ClusterHome]
ASKING = (
    ["status"],
    ["runs"],
    ["approvals"],
    ["token", "operator"],
    ["model", "webster"],
    ["heartbeat", "webster"],
    ["agent", "list"],
)
HEAVY = ("asyncio", "aiohttp", "textual", "anthropic", "google.genai", "openai", "filelock", "gateway", "console")


def test_delegate_wait_prints_the_answer(shared_cluster: ClusterHome) -> None:
    text = shared_cluster.cli("delegate", "webster", "Find the CTE of Zerodur Class 0 between 20 and 40 C", "--wait")
    assert text.startswith("[offline]")
    assert "materials-optical.md:" in text


def test_delegate_wait_json_is_the_run(shared_cluster: ClusterHome) -> None:
    run = shared_cluster.json("delegate", "webster", "status", "--wait")
    assert run["state"] == "succeeded"
    assert run["from"] == "operator"
    assert shared_cluster.json("run", "show", run["runId"])["text"] == run["text"]
    assert run["runId"] in shared_cluster.cli("runs", "webster")


def test_a_repeated_key_gives_the_same_run(shared_cluster: ClusterHome) -> None:
    first = shared_cluster.json("delegate", "webster", "status", "--key", "same")
    again = shared_cluster.json("delegate", "webster", "status", "--key", "same")
    assert first["runId"] == again["runId"]


def test_the_text_may_come_from_stdin(shared_cluster: ClusterHome) -> None:
    run = shared_cluster.json("delegate", "webster", "-", "--wait", stdin="remember the piped fact")
    assert run["message"] == "remember the piped fact"


def test_status_shows_every_agent(shared_cluster: ClusterHome) -> None:
    table = shared_cluster.cli("status")
    assert "profile offline" in table
    for agent, port in shared_cluster.ports.items():
        assert any(agent in line and str(port) in line for line in table.splitlines())
    rows = shared_cluster.json("status")["agents"]
    assert {row["state"] for row in rows} <= {"up", "busy"}
    assert rows[0]["status"]["agent"] == "manager"


def test_up_without_a_terminal_prints_the_table_and_is_idempotent(shared_cluster: ClusterHome) -> None:
    before = {agent: shared_cluster.pid(agent) for agent in shared_cluster.ports}
    assert "+ up" in shared_cluster.cli("up")
    assert {agent: shared_cluster.pid(agent) for agent in shared_cluster.ports} == before


def test_home_may_stand_before_or_after_the_command(shared_cluster: ClusterHome) -> None:
    root = str(shared_cluster.root)
    for arguments in (["--home", root, "token", "viewer"], ["token", "viewer", "--home", root]):
        done = shared_cluster.run(*arguments, ATOMIZER_HOME="/nowhere")
        assert done.stdout.strip() == shared_cluster.token("viewer")


def test_model_swap_and_undo(shared_cluster: ClusterHome) -> None:
    swapped = shared_cluster.json("model", "manager", "offline/echo")
    assert swapped["model"] == "offline/echo"
    assert "> offline/echo" in shared_cluster.cli("model", "manager")
    assert shared_cluster.json("model", "manager", "--undo")["model"] == swapped["previous"]


def test_heartbeat_off_on_and_pace(shared_cluster: ClusterHome) -> None:
    shared_cluster.cli("heartbeat", "manager", "off")
    assert shared_cluster.json("heartbeat", "manager")["heartbeat"]["enabled"] is False
    shared_cluster.cli("heartbeat", "manager", "on")
    shared_cluster.cli("heartbeat", "manager", "every", "10m")
    assert shared_cluster.json("heartbeat", "manager")["heartbeat"]["everySeconds"] == 600


def test_logs_are_merged_by_time_and_filtered(shared_cluster: ClusterHome) -> None:
    shared_cluster.cli("delegate", "webster", "status", "--wait")
    lines = shared_cluster.json("logs")["lines"]
    assert {line["agent"] for line in lines} == {"manager", "webster"}
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert shared_cluster.json("logs", "--level", "error")["lines"] == []
    assert shared_cluster.json("logs", "--since", "0s")["lines"] == []
    assert len(shared_cluster.json("logs", "--limit", "1")["lines"]) == 1


def test_logs_follow_shows_new_lines(shared_cluster: ClusterHome) -> None:
    follow = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.cli", "logs", "webster", "-f", "-n", "1", "--json"],
        env={**os.environ, "ATOMIZER_HOME": str(shared_cluster.root)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever runs in the background ignores it
    )
    killer = threading.Timer(20, follow.kill)
    killer.start()
    assert follow.stdout is not None
    try:
        follow.stdout.readline()  # the newest of before: it has begun to look
        run = shared_cluster.json("delegate", "webster", "status", "--wait")["runId"]
        while (line := json.loads(follow.stdout.readline()))["runId"] != run:
            pass
        assert line["agent"] == "webster"
    finally:
        killer.cancel()
        follow.send_signal(signal.SIGINT)
        code = follow.wait(10)  # before its pipe is closed, or it could end on that
        follow.stdout.close()
        assert code == 130


def test_secrets_are_stored_and_never_shown(make_home: Make) -> None:
    home = make_home("webster")
    home.cli("start")
    said = home.cli("secrets", "set", "anthropic", stdin="sk-ant-a-very-secret-key\n")
    assert 'profile = "live"' in said
    listed = home.cli("secrets", "list")
    assert "anthropic/api-key" in listed
    assert "very-secret" not in said + listed + home.cli("status", "--json") + home.cli("logs")
    assert (home.home.secrets / "anthropic" / "api-key").stat().st_mode & 0o777 == 0o600


def test_a_secret_is_removed_and_running_agents_forget_it(make_home: Make) -> None:
    home = make_home("webster")
    home.cli("start")
    home.cli("secrets", "set", "anthropic", stdin="sk-ant-a-very-secret-key\n")

    def usable() -> bool:
        choices = home.json("model", "webster")["model"]["choices"]
        return next(choice["available"] for choice in choices if choice["id"].startswith("anthropic/"))

    assert usable()
    assert "1 running agent has forgotten it" in home.cli("secrets", "remove", "anthropic")
    assert not usable()
    assert "anthropic" not in home.cli("secrets", "list")
    for arguments in (["anthropic"], ["webster", "token"], ["../run", "x"]):
        assert home.run("secrets", "remove", *arguments).returncode in (2, 78)
    assert "webster/token" in home.cli("secrets", "list")


def test_waiting_goes_on_through_a_restart_of_the_gateway(make_home: Make) -> None:
    home = make_home("webster")
    home.cli("start")
    pid = home.pid("webster")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    waiting = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.cli", "delegate", "webster", "status", "--wait", "--json"],
        env={**os.environ, "ATOMIZER_HOME": str(home.root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: _connected(home.ports["webster"]))
    os.kill(pid, signal.SIGKILL)
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert json.loads(out)["state"] == "succeeded"
    assert home.json("runs", "webster")["runs"] != []


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["delegate", "wobster", "hi"], 2, "no_such_agent"),
        (["delegate", "webster", "  "], 2, "usage"),
        (["no-such-command"], 2, "usage"),
        (["run", "show", "run-00000000"], 4, "not_found"),
        (["model", "webster", "nobody/knows"], 4, None),
        (["heartbeat", "webster", "sometimes"], 2, "usage"),
        (["logs", "--since", "yesterday"], 2, "usage"),
        (["token", "nobody"], 78, "no_secret"),
        (["restart"], 2, "usage"),
        (["agent", "add", "scout", "--like", "wobster"], 2, "no_such_agent"),
        (["schedule", "webster", "add", "look around"], 2, "usage"),
        (["sessions", "webster", "no-such-session"], 4, "unknown_session"),
    ],
)
def test_failures_have_stable_codes(shared_cluster: ClusterHome, arguments: list[str], code: int, word: str) -> None:
    done = shared_cluster.run(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"]
    assert word is None or error["code"] == word
    plain = shared_cluster.run(*arguments)
    assert plain.returncode == code
    assert plain.stdout == ""
    assert plain.stderr.startswith("atomizer: ")
    assert plain.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "next_command"),
    [
        (["sessions", "webster", "no-such-session"], "`atomizer sessions webster`"),
        (["schedule", "webster", "remove", "no-such-schedule"], "`atomizer schedule webster`"),
        (["no-such-command"], "see `atomizer --help`"),
        (["run", "replay", __file__], "`atomizer run export RUN_ID`"),
    ],
    ids=lambda a: a[0] if isinstance(a, list) else "",
)
def test_a_refusal_ends_with_the_next_command_once(
    shared_cluster: ClusterHome, arguments: list[str], next_command: str
) -> None:
    said = shared_cluster.run(*arguments).stderr
    assert said.count(next_command.strip("`").split("see ")[-1]) == 1, said
    assert next_command in said
    assert "GET /" not in said


@pytest.mark.parametrize(
    "arguments",
    [["delegate", "webster", "hi"], ["model", "webster"], ["sessions", "webster"], ["usage", "webster"]],
    ids=lambda a: a[0],
)
def test_asking_an_agent_that_is_down_is_3_and_says_how_to_start_it(make_home: Make, arguments: list[str]) -> None:
    done = make_home("webster").run(*arguments, "--json")
    assert done.returncode == 3
    assert "`atomizer start webster`" in json.loads(done.stdout)["error"]["message"]


def test_usage_of_nobody_is_no_usage_of_nothing(make_home: Make) -> None:
    done = make_home("webster").run("usage")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "`atomizer up`" in done.stderr


def test_an_agent_that_was_stopped_says_so_and_how_to_start_it(standin_home: Make) -> None:
    home = standin_home("manager", "webster")
    home.cli("start")
    home.cli("stop", "webster")
    lines = home.cli("status").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("o stopped"))
    assert "webster" in lines[at]
    assert lines[at + 1].strip() == "`atomizer start webster` starts it"


def test_undoing_no_swap_says_that_nothing_changed(shared_cluster: ClusterHome) -> None:
    assert "nothing was changed" in shared_cluster.cli("model", "webster", "--undo")


def test_what_printed_nothing_outside_its_log_says_so(make_home: Make) -> None:
    assert make_home("webster").cli("logs", "webster", "--console").strip() == "nothing was printed outside the logs"


def test_a_key_that_names_a_run_already_is_said(shared_cluster: ClusterHome) -> None:
    shared_cluster.cli("delegate", "webster", "status", "--key", "said", "--wait")
    done = shared_cluster.run("delegate", "webster", "another thing", "--key", "said")
    assert "the key said names this run already" in done.stderr


def test_who_waits_for_an_answer_hears_that_a_person_is_asked(make_home: Make) -> None:
    home = make_home("webster")
    instance = home.home.instance_toml("webster")
    instance.write_text(instance.read_text().replace("deny = []", 'deny = []\nask = ["memory_write"]'))
    home.cli("start")
    waiting = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.cli", "delegate", "webster", "remember the kiln", "--wait"],
        env={**os.environ, "ATOMIZER_HOME": str(home.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    try:
        note = waiting.stderr.readline()
        assert "is waiting: approval ap-" in note
        assert "`atomizer approvals`" in note
        (asked,) = home.json("approvals")["approvals"]
        home.cli("approvals", "approve", asked["id"])
        out, _ = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
    assert waiting.returncode == 0
    assert "Remembered" in out


def test_no_home_is_said_with_the_command_that_makes_one(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cluster.cli", "status", "--home", f"{tmp_path}/none"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert "atomizer init" in done.stderr


def test_a_wrong_cluster_toml_is_named_by_file_and_line(make_home: Make) -> None:
    home = make_home("webster")
    home.home.cluster_toml.write_text('name = "x"\n[agents.webster]\nprot = 1\n')
    done = home.run("status")
    assert done.returncode == 78
    assert "cluster.toml:3" in done.stderr
    assert "port" in done.stderr
    assert home.run("stop").returncode == 0


@pytest.mark.parametrize("with_supervisor", [True, False], ids=["supervised", "alone"])
def test_a_typing_error_hides_no_agent_that_runs(make_home: Make, with_supervisor: bool) -> None:
    home = make_home("webster")
    home.cli("start")
    pid = home.pid("webster")
    if not with_supervisor:
        os.kill(home.supervisor_pid() or 0, signal.SIGKILL)
    home.home.cluster_toml.write_text(home.home.cluster_toml.read_text().replace('"offline"', '"offlin"'))
    done = home.run("status")
    assert done.returncode == 78
    assert "cluster.toml:3" in done.stderr.splitlines()[0]
    assert re.search(rf"\+ up +webster +{home.ports['webster']}", done.stdout), done.stdout
    assert f"pid {pid}" in done.stdout
    document = home.run("status", "--json")
    told = json.loads(document.stdout)
    assert (document.returncode, told["ok"], told["error"]["code"]) == (78, False, "bad_config")
    assert [(row["agent"], row["state"], row["pid"]) for row in told["agents"]] == [("webster", "up", pid)]
    done = home.run("logs", "webster")
    assert (done.returncode, "webster" in done.stdout) == (78, True)
    assert "cluster.toml:3" in done.stderr
    assert home.run("logs", "nobody").stdout == ""
    assert home.run("delegate", "webster", "hi").returncode == 78
    if with_supervisor:
        assert home.run("stop", "nobody").returncode != 0
        done = home.run("stop", "webster")
        assert (done.returncode, "webster: stopped" in done.stdout) == (0, True)
        assert "cluster.toml:3" in done.stderr
    assert home.run("stop").returncode == 0
    assert home.processes() == []


@pytest.mark.parametrize("arguments", ASKING, ids=lambda a: a[0])
def test_asking_is_cheap(shared_cluster: ClusterHome, arguments: list[str]) -> None:
    """No heavy module, and the CPU budget of 0.25 s; twice that here, since others share the machine."""
    code = (
        "import sys; sys.argv[0] = 'atomizer'\n"
        "from cluster.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print('\\0'.join(sys.modules), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "ATOMIZER_HOME": str(shared_cluster.root)},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    modules = done.stderr.strip().split("\0")
    assert not [name for name in modules for heavy in HEAVY if name == heavy or name.startswith(f"{heavy}.")]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.5, f"{used:.2f} CPU-s"


def test_help_shows_an_example_for_every_command() -> None:
    from click.testing import CliRunner

    from cluster.cli.main import COMMANDS, atomizer

    for name in COMMANDS:
        shown = CliRunner().invoke(atomizer, [name, "--help"])
        assert shown.exit_code == 0
        assert f"  atomizer {name}" in shown.output
        assert "--home" in shown.output
        assert "--json" in shown.output


def _connected(port: int) -> bool:
    """Does anybody hold an established connection to `port`?"""
    with open("/proc/net/tcp") as file:
        return any(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in list(file)[1:])
