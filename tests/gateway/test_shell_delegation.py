"""Delegation from a command, without a token: `atomizer delegate` inside the sandbox, through real gateways."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocols.runs import Run, RunState
from runtime.confine import landlock_abi
from runtime.secrets import Secrets
from tests.conftest import ClusterHome
from tests.gateway.obeying import SHELL, Hands, Obedient, obedient_model, obey, wait_until
from tests.gateway.process import GatewayProcess, running
from tests.standins.models.script import Reply, Seen, _last_words

pytestmark = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock, so there is no exec")

TABLES = '[shell]\nbackground_after = "3s"\n'


class Answering(Obedient):
    """`say WORDS` is answered with WORDS, `slowly SECONDS WORDS` after some time."""

    def take(self, seen: Seen) -> Reply | None:
        text, has_result = _last_words(seen)
        found = re.search(r"(?:say|slowly (?P<seconds>[\d.]+)) (?P<words>.*)", text)
        if found and not has_result and "[[" not in text:
            words, seconds = found["words"], float(found["seconds"] or 0)
            return Reply(text=words, piece=len(words), pings=int(bool(seconds)), pause=seconds)
        return super().take(seen)


def prepare(home: ClusterHome, server: object, by: str, tables: str = TABLES) -> None:
    for agent in home.ports:
        obey(home, server, agent, tables if agent == by else "", allow=SHELL if agent == by else ())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lead() -> Iterator[Hands]:
    """The Tech Lead with a shell, beside a Manager and a Webster."""
    home = ClusterHome(("manager", "tech-lead", "webster"))
    try:
        with obedient_model() as server:
            server.script = Answering([])
            prepare(home, server, "tech-lead")
            path = home.home.instance_toml("tech-lead")
            path.write_text(
                path.read_text().replace("deny = []", 'deny = ["delegate(secret*)"]\nask = ["delegate(it)"]')
            )
            with running(home, "tech-lead", "webster", "manager") as (gateway, webster, _):
                for warmed in (gateway, webster):  # a model's SDK is imported at the first call
                    warmed.result(warmed.delegate("say warm"), 60)
                its = Hands(gateway)
                its.webster, its.model = webster, server  # type: ignore[attr-defined]
                yield its
    finally:
        home.close()


def webster(its: Hands) -> GatewayProcess:
    found: GatewayProcess = its.webster  # type: ignore[attr-defined]
    return found


def given(its: Hands, parent: str) -> list[Run]:
    """What Webster was given by a run."""
    rows = webster(its).sql("SELECT id FROM runs WHERE parent_run_id = ? ORDER BY seq", parent)
    return [webster(its).result(row[0]) for row in rows]


def last_run(its: Hands) -> str:
    query = "SELECT id FROM runs WHERE source = 'hook' ORDER BY seq DESC LIMIT 1"
    return str(its.gateway.sql(query)[0][0])


class TestDelegating:
    def test_the_answer_is_printed_and_the_run_is_a_child_of_the_command_s(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate webster 'say forty-two' --wait")
        assert out.startswith("forty-two\n[exit code 0"), out
        parent = lead.gateway.result(last_run(lead))
        (child,) = given(lead, parent.run_id)
        assert (child.caller, child.depth, child.parent_run_id) == ("tech-lead", 1, parent.run_id)
        assert child.deadline is not None
        assert 1700 < child.deadline - child.created_at <= 1801
        ((key,),) = webster(lead).sql("SELECT idempotency_key FROM runs WHERE id = ?", child.run_id)
        assert key == f"{parent.run_id}/1.0/1"
        assert [(c.run_id, c.agent, c.state, c.text) for c in parent.children] == [
            (child.run_id, "webster", "succeeded", "forty-two")
        ]
        assert [(s.name, s.state) for s in parent.steps if s.kind == "tool"] == [("exec", "done"), ("delegate", "done")]

    def test_without_wait_its_run_is_named_and_looked_at_later(self, lead: Hands) -> None:
        out = lead.exec("atomizer-delegate webster - <<.\nsay later\n.")
        found = re.match(r"(run-\w+) queued ", out)
        assert found, out
        child = webster(lead).result(found[1])
        assert (child.message, child.deadline, child.depth) == ("say later\n", None, 1)
        line = "R=$(atomizer delegate webster 'say x' --json | sed -n 's/.*\"runId\": \"\\(.*\\)\".*/\\1/p')"
        out = lead.exec(f"{line}; atomizer run show $R --wait; atomizer run show $R; atomizer run show {found[1]}")
        assert re.match(r"x\nrun-\w+ succeeded, webster\n\nx\natomizer: run-\w+ is no run that run-\w+ delegated", out)
        assert "[exit code 4" in out

    def test_the_run_waits_without_a_place_and_the_command_stays_in_front(self, lead: Hands) -> None:
        """`background_after` is three seconds of the command's own work."""
        run_id = lead.start("exec", command="atomizer delegate webster 'slowly 4 ready' --wait --json")
        wait_until(lambda: lead.gateway.ask.run(run_id).state is RunState.WAITING)
        assert re.fullmatch(r"webster works on run-\w+", lead.gateway.ask.run(run_id).reason)
        run = lead.gateway.result(run_id)
        assert run.state is RunState.SUCCEEDED
        output = run.steps[1].output or ""
        answer = json.loads(output[: output.rindex("}") + 1])
        assert (answer["state"], answer["text"], answer["agent"]) == ("succeeded", "ready", "webster")
        seconds = re.search(r"\[exit code 0 after (\d+)\.", output)
        assert seconds, output
        assert int(seconds[1]) >= 4

    def test_in_the_background_the_turn_goes_on(self, lead: Hands) -> None:
        line = "atomizer delegate webster 'slowly 1.5 ready' --wait > answer; echo $? >> answer"
        calls = [("exec", {"command": line, "background": True}), ("exec", {"command": "sleep 0.3"})]
        states = set()
        run_id = lead.gateway.delegate(json.dumps([*calls, ["process", {"action": "poll", "id": "c99"}]]))
        while not (run := lead.gateway.ask.run(run_id)).state.ended:
            states.add(run.state.value)
        assert "waiting" not in states
        assert run.text == "done"

    def test_several_at_once_each_get_their_own_answer(self, lead: Hands) -> None:
        words = [f"word{n}" * 50 for n in range(6)]
        lines = [f"atomizer delegate webster 'slowly 0.{n} {word}' --wait > out{n} &" for n, word in enumerate(words)]
        out = lead.exec("\n".join([*lines, "wait"]))
        assert "[exit code 0" in out
        assert [(lead.workspace / f"out{n}").read_text() for n in range(6)] == [f"{word}\n" for word in words]
        assert len({child.run_id for child in given(lead, last_run(lead))}) == 6

    def test_a_timeout_ends_the_wait_and_the_run(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate webster 'slowly 20 never' --wait --timeout 0.5; echo $?")
        assert re.search(r"^5\n", out, re.MULTILINE), out
        (child,) = given(lead, last_run(lead))
        assert child.state is not RunState.SUCCEEDED

    def test_a_run_that_fails_is_told_with_its_reason(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate webster 'slowly 20 never' --wait & sleep 0.7; kill %1; echo $?")
        assert "[exit code 0" in out
        (row,) = webster(lead).sql("SELECT id FROM runs WHERE parent_run_id = ?", last_run(lead))
        assert webster(lead).post(f"/hooks/runs/{row[0]}/cancel", {})[0] == 200
        line = "atomizer delegate webster 'slowly 20 never' --wait"
        run_id = lead.start("exec", command=line)
        wait_until(lambda: lead.gateway.ask.run(run_id).state is RunState.WAITING)
        (child,) = lead.gateway.ask.run(run_id).children
        assert webster(lead).post(f"/hooks/runs/{child.run_id}/cancel", {})[0] == 200
        output = lead.gateway.result(run_id).steps[1].output or ""
        assert output.startswith(f"atomizer: {child.run_id} cancelled: cancelled by operator\n[exit code 1"), output

    def test_cancelling_the_run_cancels_what_its_command_delegated(self, lead: Hands) -> None:
        run_id = lead.start("exec", command="atomizer delegate webster 'slowly 20 never' --wait")
        wait_until(lambda: lead.gateway.ask.run(run_id).state is RunState.WAITING)
        (child,) = lead.gateway.ask.run(run_id).children
        assert lead.gateway.post(f"/hooks/runs/{run_id}/cancel", {})[0] == 200
        assert webster(lead).result(child.run_id, 5).state is RunState.CANCELLED

    def test_the_model_is_told_of_it(self, lead: Hands) -> None:
        lead.exec("true")
        assert "`atomizer delegate AGENT" in str([body.get("tools") for body in lead.model.bodies])  # type: ignore[attr-defined]


@pytest.mark.parametrize("sandbox", ["bubblewrap", "off"])
def test_it_works_the_same_in_another_sandbox_and_in_none(make_home: Callable[..., ClusterHome], sandbox: str) -> None:
    if sandbox == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    home = make_home("manager", "webster")
    with obedient_model() as server:
        server.script = Answering([])
        prepare(home, server, "manager", f'[shell]\nsandbox = "{sandbox}"\nbackground_after = "60s"\n')
        with running(home, "manager", "webster") as (gateway, _):
            out = Hands(gateway).exec('for n in 1 2 3; do atomizer delegate webster "say $n" --wait & done; wait')
            assert sorted(out.splitlines()[:3]) == ["1", "2", "3"], out


class TestRefused:
    def test_what_authority_forbids_is_refused_with_its_rule(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate manager 'say x' --wait")
        rule = "manager refused it: tech-lead may not delegate to manager: authority of tech-lead: *, !manager"
        assert out.startswith(f"atomizer: {rule} (`!manager` forbids manager)\n[exit code 4"), out

    def test_what_the_tools_table_forbids_is_forbidden_here_too(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate secretary x; atomizer delegate it x --json")
        assert out.startswith("atomizer: not permitted (deny delegate(secret*))\n")
        said = json.loads(out.splitlines()[1])["error"]
        assert said["code"] == "not_permitted"
        assert 'a person is asked first ([tools] ask has "delegate(it)")' in said["message"]
        assert "[exit code 4" in out

    def test_the_sixth_in_a_row_is_refused(self, lead: Hands) -> None:
        call = json.dumps([["exec", {"command": "atomizer delegate webster x"}]])
        run = lead.gateway.result(lead.gateway.delegate(call, depth=5))
        output = run.steps[1].output or ""
        assert output.startswith("atomizer: this task was already passed on 5 times; 5 is the limit\n[exit code 4")
        assert given(lead, run.run_id) == []

    @pytest.mark.parametrize(
        ("line", "code", "said"),
        [
            ("atomizer delegate wobster x", 2, "there is no agent 'wobster'; did you mean webster?"),
            ("atomizer delegate webster ' '", 2, "the text is empty"),
            ("atomizer delegate webster x --timeout 3", 2, "--timeout is how long --wait waits; give both"),
            ("atomizer delegate webster x --wait --timeout -1", 2, "timeout_seconds"),
            ("atomizer status", 2, "invalid choice: 'status'"),
            ("env -u ATOMIZER_DELEGATE_FD atomizer delegate webster x", 3, "ATOMIZER_DELEGATE_FD is not set"),
            ("ATOMIZER_DELEGATE_FD=1 atomizer delegate webster x", 3, "descriptor 1 is not open here"),
            ("head -c 300000 /dev/zero | tr '\\0' x | atomizer delegate webster -", 2, "a request has at most 262144"),
        ],
    )
    def test_what_cannot_be_done_is_said_in_words_and_code(self, lead: Hands, line: str, code: int, said: str) -> None:
        out = lead.exec(line)
        assert said in out
        assert f"[exit code {code} " in out
        assert given(lead, last_run(lead)) == []

    def test_a_program_that_closes_descriptors_is_told_how_not_to(self, lead: Hands) -> None:
        line = "import subprocess as s; a = ['atomizer', 'delegate', 'webster', 'say x', '--wait']; s.run(a)"
        out = lead.exec(f'python3 -c "{line}; s.run(a, close_fds=False)"')
        assert "In Python: subprocess.run([...], close_fds=False)\n" in out
        assert "\nx\n[exit code 0" in out

    def test_a_run_s_last_steps_are_kept_for_its_answer(self, make_home: Callable[..., ClusterHome]) -> None:
        home = make_home("manager", "webster")
        with obedient_model() as server:
            prepare(home, server, "manager", "[limits]\nmax_steps = 6\n")
            with running(home, "manager", "webster") as (manager, _):
                loop = "for i in 1 2 3 4; do atomizer delegate webster x$i > /dev/null; echo $?; done"
                run = manager.result(manager.delegate(json.dumps([["exec", {"command": loop}]])))
                assert (run.state, run.text) == (RunState.SUCCEEDED, "done")
                output = run.steps[1].output or ""
                assert [line for line in output.splitlines() if len(line) == 1] == ["0", "0", "4", "4"], output
                assert "the run has used its steps; the last 2 are for its answer ([limits] max_steps)" in output


class TestItsEnd:
    def test_what_is_left_of_a_run_that_has_ended_delegates_nothing(self, lead: Hands) -> None:
        file = lead.workspace / "after"
        (lead.workspace / "late.sh").write_text(
            "sleep 1.5; atomizer delegate webster 'say late' > new 2>&1; echo $? >> new; mv new after"
        )
        calls = [("exec", {"command": "(setsid sh late.sh &); sleep 4", "background": True})]
        run_id = lead.gateway.delegate(json.dumps(calls))
        assert lead.gateway.result(run_id).state is RunState.SUCCEEDED
        wait_until(file.exists)
        said = file.read_text()
        assert said.startswith("atomizer: this command's run has ended"), said
        assert said.endswith("\n4\n")
        assert given(lead, run_id) == []

    def test_who_waits_when_the_run_ends_is_told_where_it_goes_on(self, lead: Hands) -> None:
        file = lead.workspace / "waited"
        line = "atomizer delegate webster 'slowly 1.5 late' --wait > w.new 2>&1; echo $? >> w.new; mv w.new waited"
        calls = [("exec", {"command": line, "background": True}), ("exec", {"command": "sleep 0.7"})]
        run_id = lead.gateway.delegate(json.dumps(calls))
        assert lead.gateway.result(run_id).state is RunState.SUCCEEDED
        wait_until(file.exists)
        assert re.match(r"atomizer: run-\w+ goes on; nobody waits for it: .*\n4\n", file.read_text())
        (child,) = given(lead, run_id)
        assert child.text == "late"


GARBAGE = """
import json, os, socket, sys
number = int(os.environ["ATOMIZER_DELEGATE_FD"])
shared = socket.socket(fileno=os.dup(number))
for junk in (b"x", b"ask ", b"\\0" * 100000, b'{"do": "delegate"}', b"askask"):
    os.write(number, junk)
def ask(line):
    shared.send(b"ask")
    said, fds, _, _ = socket.recv_fds(shared, 4096, 1)
    connection = socket.socket(fileno=fds[0])
    connection.settimeout(20)
    try:
        connection.sendall(line)
    except OSError:
        pass
    print(json.loads(connection.makefile().readline() or "{}").get("error", {}).get("code"))
for line in (b"\\n", b"[" * 5000 + b"\\n", b"\\xff\\xfe\\n", b'{"do": "token"}\\n', b'{"do": "show", "run": 7}\\n',
             b'{"do": "delegate", "agent": "webster", "task": "x", "parentRunId": "run-1"}\\n',
             b'{"do": "delegate", "agent": "webster", "task": "x", "depth": 0}\\n', b"x" * 400000):
    ask(line)
"""

FLOOD = """
import os, socket
shared = socket.socket(fileno=os.dup(int(os.environ["ATOMIZER_DELEGATE_FD"])))
try:
    for _ in range(5000):
        shared.send(b"ask")
    print("never closed")
except OSError as error:
    print("closed")
"""

OUT = """
import os, socket
shared = socket.socket(fileno=os.dup(int(os.environ["ATOMIZER_DELEGATE_FD"])))
shared.send(b"ask")
own = socket.socket(fileno=socket.recv_fds(shared, 4096, 1)[1][0])
for kind in (socket.AF_INET, socket.AF_UNIX):
    try: socket.socket(kind); print("GOT", kind)
    except PermissionError: print("shut")
for end in (shared, own):
    for to in ("/run/dbus/system_bus_socket", "\\0/tmp/.X11-unix/X0", "SOCKET"):
        try: end.connect(to); print("GOT", to)
        except OSError: print("shut")
    try: end.bind("here"); end.listen(); print("GOT a listener")
    except OSError: print("shut")
    try: socket.send_fds(end, [b"ask" if end is shared else b"{}"], [0])
    except OSError: pass
"""


class TestHostile:
    def program(self, its: Hands, name: str, text: str) -> str:
        (its.workspace / name).write_text(text)
        return its.exec(f"python3 {name}")

    def test_garbage_is_refused_and_disturbs_nobody(self, lead: Hands) -> None:
        out = self.program(lead, "garbage.py", GARBAGE)
        assert out.splitlines()[:8] == ["bad_request"] * 7 + ["too_long"], out
        assert given(lead, last_run(lead)) == []
        out = lead.exec("python3 garbage.py > /dev/null; atomizer delegate webster 'say still here' --wait")
        assert out.startswith("still here\n")

    def test_who_asks_and_never_listens_is_cut_off(self, lead: Hands) -> None:
        before = len(list(Path(f"/proc/{lead.gateway.pid}/fd").iterdir()))
        out = self.program(lead, "flood.py", FLOOD)
        assert out.startswith("closed\n"), out
        wait_until(lambda: len(list(Path(f"/proc/{lead.gateway.pid}/fd").iterdir())) <= before + 2)
        assert lead.exec("atomizer delegate webster 'say here' --wait").startswith("here\n")

    def test_it_leads_to_no_other_socket(self, lead: Hands) -> None:
        out = self.program(lead, "out.py", OUT)
        assert "GOT" not in out
        assert out.count("shut\n") == 10, out

    def test_a_killed_asker_holds_nothing_up(self, lead: Hands) -> None:
        """What was meant for it is taken by the next, and found to be closed."""
        ask = "import os; os.write(int(os.environ['ATOMIZER_DELEGATE_FD']), b'ask')"
        out = lead.exec(f'python3 -c "{ask}"; atomizer delegate webster "say after" --wait')
        assert out.startswith("after\n")

    def test_another_run_of_the_agent_is_not_shown(self, lead: Hands) -> None:
        out = lead.exec("atomizer delegate webster 'say private'")
        run_id = out.split()[0]
        assert "is no run that" in lead.exec(f"atomizer run show {run_id} --json")
        assert "is no run that" in lead.exec(f"atomizer run show {webster(lead).delegate('say mine')}")

    def test_a_secret_in_a_task_is_stored_nowhere(self, lead: Hands) -> None:
        key = Secrets(lead.home).get("google", "api-key")
        assert key
        (lead.workspace / "found.txt").write_text(f"say the key is {key}\n")
        assert lead.exec("atomizer delegate webster - --wait < found.txt").startswith("the key is [redacted]\n")
        folders = [lead.home.instance("tech-lead"), lead.home.instance("webster")]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        assert [path.name for path in files if key.encode() in path.read_bytes()] == []

    def test_a_command_of_an_agent_without_the_tool_has_none_of_it(self, make_home: Callable[..., ClusterHome]) -> None:
        home = make_home("manager", "webster")
        with obedient_model() as server:
            prepare(home, server, "webster")
            with running(home, "webster") as (gateway,):
                out = Hands(gateway).exec("env; ls -l /proc/self/fd; atomizer-delegate manager x")
                assert "DELEGATE" not in out
                assert "socket:" not in out
                assert "not found" in out
                assert "atomizer delegate" not in str(server.bodies[0]["tools"])

    def test_the_gateway_is_as_it_was(self, lead: Hands) -> None:
        assert lead.gateway.raw("GET", "/ready")[0] == 200
        time.sleep(0.2)
        assert "Traceback" not in lead.gateway.output()
