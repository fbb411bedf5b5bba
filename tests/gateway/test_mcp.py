"""MCP servers of an agent, real ones on the SDK's own classes, through a real gateway."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.tools.mcp import tool_name
from protocols.runs import RunState
from protocols.status import McpServerStatus
from runtime.confine import landlock_abi
from runtime.secrets import Secrets
from tests.conftest import ClusterHome
from tests.gateway.obeying import Hands, obedient_model, obey, wait_until
from tests.gateway.process import GatewayProcess, running

ROOT = Path(__file__).resolve().parent.parent.parent
LICENCE = "licence-4711-0815-abcdef"

pytestmark = pytest.mark.skipif(not landlock_abi(), reason="no Landlock: no server is started without a sandbox")


def table(name: str, *arguments: str, more: str = "") -> str:
    command = [sys.executable, "-m", "tests.standins.mcp_server", *arguments]
    return f'[mcp.{name}]\ncommand = {command!r}\ncwd = "{ROOT}"\n{more}\n'


def server(gateway: GatewayProcess, name: str) -> McpServerStatus:
    return next(s for s in gateway.status().mcp if s.name == name)


def ready(gateway: GatewayProcess, name: str, starts: int = 1) -> McpServerStatus:
    wait_until(lambda: (s := server(gateway, name)).state == "ready" and s.starts >= starts, 60)
    return server(gateway, name)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp") / "calls.log"


@pytest.fixture(scope="module")
def webster(log: Path) -> Iterator[Hands]:
    """Webster with a stdio server that works, one over HTTP, one that does not start and one that is not there."""
    home = ClusterHome(("manager", "webster"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    remote = subprocess.Popen([sys.executable, "-m", "tests.standins.mcp_server", "--http", str(port)], cwd=ROOT)
    workspace = home.home.workspace("webster")
    calls = workspace / "calls.log"
    calls.touch()
    log.symlink_to(calls)
    try:
        Secrets(home.home).set("webster", "licence", LICENCE)
        tables = table(
            "standin",
            "--log",
            str(calls),
            more='env = {UNITS = "SI"}\npass_env = ["FLAVOUR"]\nsecrets = {LICENCE = "webster/licence"}\n'
            'timeout = "3s"\nallow = ["add", "environment", "read", "long", "picture", "fail", "stall", "die"]',
        )
        tables += f'[mcp.remote]\nurl = "http://127.0.0.1:{port}/mcp"\nallow = ["a*"]\n'
        tables += table("broken", "--broken") + '[mcp.nowhere]\ncommand = ["/no/such/program"]\n'
        with obedient_model() as model:
            obey(home, model, "webster", tables, allow=("delegate",))
            os.environ.update(FLAVOUR="vanilla", A_KEY_OF_THE_SHELL="sesame")
            try:
                with running(home, "webster") as (gateway,):
                    its = Hands(gateway)
                    its.model = model  # type: ignore[attr-defined]
                    yield its
            finally:
                del os.environ["FLAVOUR"], os.environ["A_KEY_OF_THE_SHELL"]
    finally:
        remote.kill()
        remote.wait()
        home.close()


class Mute(http.server.BaseHTTPRequestHandler):
    """A server with sessions, as most are: all is well until one is to end."""

    protocol_version = "HTTP/1.1"
    ending: ClassVar[threading.Event]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told: dict[str, object] = {"error": {"code": -32601, "message": "Method not found"}}
        if asked["method"] == "initialize":
            version = asked["params"]["protocolVersion"]
            info = {"name": "mute", "version": "1"}
            told = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
        elif asked["method"] == "tools/list":
            told = {"result": {"tools": []}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}).encode() if "id" in asked else b""
        self.send_response(200 if body else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("mcp-session-id", "the-session")
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self) -> None:
        self.ending.set()
        time.sleep(120)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def mute_server() -> Iterator[int]:
    """Its port."""
    Mute.ending = threading.Event()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mute)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made.server_port
    made.shutdown()


def test_a_server_that_does_not_let_go_holds_up_no_stop(
    make_home: Callable[..., ClusterHome], mute_server: int
) -> None:
    """It is told that the session ends. Its answer would be waited for as long as for a stream's next word."""
    home = make_home("webster")
    path = home.home.instance_toml("webster")
    path.write_text(path.read_text() + f'\n[mcp.remote]\nurl = "http://127.0.0.1:{mute_server}/mcp"\n')
    with running(home, "webster") as (gateway,):
        ready(gateway, "remote")
        assert gateway.stop(seconds=20) == 0
        assert Mute.ending.is_set()


class TestCalls:
    def test_a_run_that_begins_at_once_finds_the_tools_and_a_call_brings_its_result_as_data(
        self, webster: Hands
    ) -> None:
        result = webster.call("mcp__standin__add", a=20, b=22)
        first, middle, last = result.splitlines()
        assert first.startswith("[outside text")
        assert "the MCP server standin" in first
        assert middle == "42"
        assert last.startswith("[end of outside text")

    def test_the_tools_are_namespaced_and_those_that_are_not_allowed_are_not_there(self, webster: Hands) -> None:
        ready(webster.gateway, "standin")
        status = webster.gateway.status()
        assert "mcp__standin__add" in status.tools
        assert "mcp__standin__pid" not in status.tools
        assert "pid" in server(webster.gateway, "standin").tools, "the operator sees what could be allowed"
        assert "there is no tool" in webster.call("mcp__standin__pid")

    def test_the_model_gets_the_schema_as_the_server_wrote_it(self, webster: Hands) -> None:
        webster.call("mcp__standin__add", a=1, b=1)
        asked = webster.model.seen[-1].body["tools"]  # type: ignore[attr-defined]
        declared = asked[0].get("functionDeclarations", asked)
        (add,) = [t for t in declared if t["name"] == "mcp__standin__add"]
        assert add["description"] == "[standin] Add two numbers."
        schema = add.get("parameters_json_schema") or add.get("parametersJsonSchema") or add["input_schema"]
        assert schema["properties"]["a"]["description"] == "The first number"
        assert schema["required"] == ["a", "b"]

    def test_a_failure_is_told_in_the_server_s_words(self, webster: Hands) -> None:
        told = webster.call("mcp__standin__fail")
        assert "the licence server is away" in told
        assert "from the MCP server standin: data to judge" in told

    def test_a_long_result_is_cut_and_a_picture_is_named(self, webster: Hands) -> None:
        long = webster.call("mcp__standin__long", characters=70_000)
        assert "x" * 50_000 in long
        assert "[cut: 20000 more characters" in long
        assert "[image image/png, " in webster.call("mcp__standin__picture")

    def test_a_call_that_takes_too_long_is_given_up(self, webster: Hands, log: Path) -> None:
        assert "did not answer within 3 s" in webster.call("mcp__standin__stall", how_long=30)
        wait_until(lambda: "stall cancelled" in log.read_text())

    def test_cancelling_the_run_cancels_the_call(self, webster: Hands, log: Path) -> None:
        before = log.read_text().count("stall")
        run = webster.start("mcp__standin__stall", how_long=30)
        wait_until(lambda: log.read_text().count("stall") == before + 1)
        webster.gateway.post(f"/hooks/runs/{run}/cancel", {})
        assert webster.gateway.result(run, 5).state is RunState.CANCELLED
        wait_until(lambda: log.read_text().count("stall") == before + 2, 2.9)

    def test_a_server_over_http_serves_as_well(self, webster: Hands) -> None:
        ready(webster.gateway, "remote")
        assert "\n7\n" in webster.call("mcp__remote__add", a=3, b=4)
        assert [t for t in webster.gateway.status().tools if t.startswith("mcp__remote")] == ["mcp__remote__add"]


class TestHostile:
    def test_a_server_s_environment_is_what_was_given_to_it(self, webster: Hands) -> None:
        seen = webster.call("mcp__standin__environment")
        assert "UNITS=SI" in seen
        assert "FLAVOUR=vanilla" in seen
        assert "sesame" not in seen
        assert "TOKEN" not in seen
        assert "ATOMIZER_DELEGATE_FD" not in seen, "that is for commands"
        assert LICENCE not in seen
        assert "LICENCE=[redacted]" in seen, "it got the secret, and the model does not"

    def test_a_server_reads_no_secrets_no_other_agent_and_no_other_environment(self, webster: Hands) -> None:
        home = webster.home
        for path in (
            home.secrets / "operator" / "token",
            home.secrets / "webster" / "token",
            home.instance("webster") / "state.db",
            home.workspace("manager") / "MEMORY.md",
            Path(f"/proc/{webster.gateway.pid}/environ"),
            Path(f"/proc/{os.getpid()}/environ"),
        ):
            assert path.exists()
            result = webster.call("mcp__standin__read", path=str(path))
            assert "Permission denied" in result, path


FLOODS = {
    "endless": ("sys.stdout.write('x' * 100_000)", "a message of more than 8 MiB"),
    "garbage": ("sys.stdout.write(('no message' + chr(10)) * 1000)", "something else than MCP's messages"),
    "complaints": ("sys.stderr.write('x' * 100_000 + chr(10))", ""),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_server_that_floods_its_output_takes_nothing_along(make_home: Callable[..., ClusterHome], kind: str) -> None:
    line, why = FLOODS[kind]
    home = make_home("webster")
    with obedient_model() as model:
        obey(
            home,
            model,
            "webster",
            f"""[mcp.flood]\ncommand = ["{sys.executable}", "-c", "import sys\\nwhile True: {line}"]\n""",
        )
        with running(home, "webster") as (gateway,):
            grown: list[int] = []
            until = time.monotonic() + 20
            while time.monotonic() < until and not (why and server(gateway, "flood").state == "failed"):
                grown.append(gateway.status().rss_bytes)
                if not why and len(grown) > 30:
                    break
                time.sleep(0.1)
            if why:
                assert why in server(gateway, "flood").reason
            assert max(grown) < 200 * 2**20
            assert gateway.raw("GET", "/health")[0] == 200
            log = home.home.logs("webster") / "gateway.jsonl"
            assert log.stat().st_size < 500_000


class TestLife:
    def test_a_server_that_cannot_start_says_why_in_the_status(self, webster: Hands) -> None:
        wait_until(lambda: server(webster.gateway, "broken").state == "failed")
        status = server(webster.gateway, "broken")
        assert "no licence found; set LICENCE_FILE" in status.reason
        wait_until(lambda: server(webster.gateway, "nowhere").state == "failed")
        assert "no program '/no/such/program'" in server(webster.gateway, "nowhere").reason
        assert webster.gateway.raw("GET", "/ready")[0] == 200, "the agent can work without it"
        wait_until(lambda: server(webster.gateway, "broken").starts > 1)

    def test_a_server_that_dies_in_a_call_comes_back(self, webster: Hands) -> None:
        starts = ready(webster.gateway, "standin").starts
        assert "whether it was carried out is not known" in webster.call("mcp__standin__die")
        assert "\n5\n" in webster.call("mcp__standin__add", a=2, b=3), "a call waits for a server that is just starting"
        assert ready(webster.gateway, "standin", starts + 1).starts == starts + 1

    def test_a_call_that_a_kill_cut_short_is_reported_and_not_repeated(self, webster: Hands, log: Path) -> None:
        ready(webster.gateway, "standin")
        before = log.read_text().count("stall begins")
        run_id = webster.start("mcp__standin__stall", how_long=2.5)
        wait_until(lambda: log.read_text().count("stall begins") == before + 1)
        webster.gateway.kill()
        webster.gateway.start()
        run = webster.gateway.result(run_id, 60)
        assert run.state is RunState.SUCCEEDED
        assert [s.state for s in run.steps if s.kind == "tool"] == ["interrupted"]
        assert log.read_text().count("stall begins") == before + 1

    def test_a_reload_takes_servers_over_and_leaves_the_others_alone(self, webster: Hands) -> None:
        starts = ready(webster.gateway, "standin").starts
        path = webster.home.instance_toml("webster")
        before = path.read_text()
        path.write_text(before.replace("[mcp.broken]", "[mcp.broken]\nenabled = false"))
        assert webster.gateway.post("/control/reload", {})[0] == 200
        assert [s.name for s in webster.gateway.status().mcp] == ["standin", "remote", "nowhere"]
        assert server(webster.gateway, "standin").starts == starts
        secrets = webster.home.secrets
        for wrong, problem in (
            ("[mcp.Broken]", "cannot name an MCP server"),
            (f'[mcp.broken]\nread = ["{secrets}"]', "which no command may see"),
            ('[mcp.broken]\nurl = "http://127.0.0.1/"', "give either command"),
            ('[mcp.broken]\nsecrets = {T = "manager/token"}', "is a cluster token"),
            ('[mcp.broken]\nallowed = ["x"]', "allow"),
        ):
            path.write_text(before.replace("[mcp.broken]", wrong))
            status, _, answer = webster.gateway.post("/control/reload", {})
            assert (status, problem in answer["error"]["message"]) == (409, True), answer
        path.write_text(before)

    def test_nothing_of_a_server_is_left_when_the_gateway_has_stopped(
        self, make_home: Callable[..., ClusterHome]
    ) -> None:
        home = make_home("webster")
        instance = home.home.instance_toml("webster")
        instance.write_text(f"{instance.read_text()}\n{table('standin')}")
        with running(home, "webster") as (gateway,):
            ready(gateway, "standin")
            began = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - began < 8
            wait_until(lambda: home.processes() == [], 5)


def test_a_tool_s_name_fits_every_provider() -> None:
    assert tool_name("nx", "solve.run/fast") == "mcp__nx__solve_run_fast"
    long = tool_name("nx", "a" * 100)
    assert len(long) == 64
    assert long != tool_name("nx", "a" * 101)


def test_a_published_server_works_as_it_is(make_home: Callable[..., ClusterHome]) -> None:
    """`mcp-server-time` from PyPI."""
    home = make_home("webster")
    with obedient_model() as model:
        obey(home, model, "webster", f'[mcp.time]\ncommand = ["{sys.executable}", "-m", "mcp_server_time"]\n')
        with running(home, "webster") as (gateway,):
            its = Hands(gateway)
            assert "Europe/Berlin" in its.call("mcp__time__get_current_time", timezone="Europe/Berlin")
            assert "Nowhere" in its.call("mcp__time__get_current_time", timezone="Nowhere/Land")
            assert ready(gateway, "time").tools == ["get_current_time", "convert_time"]


def test_a_gateway_without_a_server_loads_nothing_for_it(make_home: Callable[..., ClusterHome]) -> None:
    """Not even after a run and a look at its status; `[mcp.NAME] enabled = false` counts as none."""
    home = make_home("webster")
    instance = home.home.instance_toml("webster")
    instance.write_text(f"{instance.read_text()}\n{table('standin', more='enabled = false')}")
    with running(home, "webster") as (gateway,):
        gateway.result(gateway.delegate("status"))
        assert gateway.status().mcp == []
        maps = Path(f"/proc/{gateway.pid}/maps").read_text()
        assert "msgspec" in maps, "libraries in C show here"
        assert [name for name in ("pydantic_core", "rpds", "_yaml") if name in maps] == []
