"""One real gateway process in a temporary home, without a supervisor: started, killed and asked by a test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from cluster.supervisors.launch import TUNING, command
from protocols.ask import Ask
from protocols.errors import Unreachable
from protocols.health import Health
from protocols.hooks import AgentAccepted, AgentHook
from protocols.runs import Run
from protocols.status import AgentStatus
from tests.conftest import ClusterHome


class GatewayProcess:
    """`agent` of `home` as a process of ours."""

    def __init__(self, home: ClusterHome, agent: str = "webster") -> None:
        self.home = home
        self.agent = agent
        self.port = home.ports[agent]
        self.process: subprocess.Popen[bytes] | None = None
        self.ask = Ask(self.port, home.token(), timeout=10)

    def spawn(self, **environment: str) -> None:
        folder = self.home.home.instance(self.agent)
        folder.joinpath("logs").mkdir(exist_ok=True)
        with open(folder / "logs" / "console.log", "ab") as out:
            self.process = subprocess.Popen(
                command(self.home.home, self.agent),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, **TUNING, **environment},
            )

    def start(self, **environment: str) -> GatewayProcess:
        """Spawn and wait until it answers as this agent."""
        self.spawn(**environment)
        self.wait_healthy()
        return self

    def wait_healthy(self, seconds: float = 30.0) -> Health:
        until = time.monotonic() + seconds
        while True:
            assert self.process is not None
            assert self.process.poll() is None, f"the gateway ended with {self.process.returncode}: {self.output()}"
            with contextlib.suppress(Unreachable):
                health = self.ask.get("/health", Health, timeout=2)
                assert health.agent == self.agent
                return health
            assert time.monotonic() < until, f"not healthy after {seconds} s: {self.output()}"
            time.sleep(0.02)

    def output(self) -> str:
        path = self.home.home.logs(self.agent) / "console.log"
        return path.read_text()[-4000:] if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def delegate(self, message: str, **fields: Any) -> str:
        """Hand in a run; its id."""
        hook = AgentHook(message=message, **fields)
        return self.ask.send("POST", "/hooks/agent", hook, AgentAccepted).run_id

    def result(self, run_id: str, seconds: float = 30.0) -> Run:
        """The run once it has ended."""
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Unreachable):
                run: Run = self.ask.run(run_id, wait=max(0.1, until - time.monotonic()))
                if run.state.ended:
                    return run
            assert time.monotonic() < until, f"{run_id} has not ended after {seconds} s"

    def status(self) -> AgentStatus:
        return self.ask.get("/status", AgentStatus)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the ledger's file, whoever has it open."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.home.home.state_db(self.agent)}?mode=ro", uri=True, timeout=5)
        ) as db:
            return db.execute(query, values).fetchall()

    def notes(self) -> str:
        """All of the agent's memory notes."""
        folder = self.home.home.workspace(self.agent) / "memory"
        return "".join(p.read_text() for p in sorted(folder.glob("*.md"))) if folder.is_dir() else ""

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """(status, headers, decoded body) of any request, well-formed or not."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
            try:
                decoded = json.loads(data)
            except ValueError:
                decoded = data.decode(errors="replace")
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, decoded
        finally:
            connection.close()

    def headers(self, owner: str = "operator", kind: str = "application/json") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.home.token(owner)}", "Content-Type": kind}

    def post(self, path: str, body: Any, owner: str = "operator") -> tuple[int, dict[str, str], Any]:
        return self.raw("POST", path, msgspec.json.encode(body), self.headers(owner))


@contextlib.contextmanager
def running(home: ClusterHome, *agents: str) -> Iterator[list[GatewayProcess]]:
    """Real gateways of `agents`, healthy; ended by pid afterwards."""
    processes = [GatewayProcess(home, agent) for agent in agents]
    try:
        for process in processes:
            process.spawn()
        for process in processes:
            process.wait_healthy()
        yield processes
    finally:
        for process in processes:
            process.close()
