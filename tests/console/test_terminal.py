"""The real program in a real terminal: tmux, its own server, keys sent and the screen read."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cluster.supervisors.supervisor import Answer, Request, short_path
from tests.console.conftest import Fleet, until

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """One tmux server with one window, in which the console runs."""

    def __init__(self) -> None:
        self._server = f"atomizer-test-{uuid.uuid4().hex[:8]}"

    async def tmux(self, *words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR", "COLUMNS", "LINES")}
        process = await asyncio.create_subprocess_exec(
            "tmux", "-L", self._server, "-f", "/dev/null", *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment,
        )  # fmt: skip
        return (await process.communicate())[0].decode()

    async def open(self, command: str, width: int, height: int) -> None:
        await self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), command)

    async def close(self) -> None:
        await self.tmux("kill-server")

    async def keys(self, *keys: str) -> None:
        await self.tmux("send-keys", *keys)

    async def screen(self) -> str:
        return await self.tmux("capture-pane", "-p")

    async def pid(self) -> int:
        return int(await self.tmux("display-message", "-p", "#{pane_pid}"))

    async def sees(self, *texts: str, seconds: float = 20.0) -> str:
        """Wait until every text is on screen; the screen then."""
        shown = ""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    shown = await self.screen()
                    if all(text in shown for text in texts):
                        return shown
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{texts} not on screen:\n{shown}") from None


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    await made.close()


async def test_a_person_delegates_reads_the_answer_and_leaves(fleet: Fleet, terminal: Terminal) -> None:
    command = f"cd {ROOT}; {sys.executable} -m console --home {fleet.home.root}; echo left $?; sleep 60"
    await terminal.open(command, 80, 24)
    shown = await terminal.sees("3up", "webster", "? Help")
    assert all(len(line) <= 80 for line in shown.splitlines())
    await terminal.keys("'")
    await terminal.sees("jump to '")
    await terminal.keys("web")
    await terminal.keys("Enter")
    await terminal.sees(">  + up       webster")
    await terminal.keys("d")
    await terminal.keys("typed at once")
    await terminal.sees("Delegate to webster", "typed at once")
    await terminal.keys("Enter")
    await until(lambda: fleet["webster"].hooks, 10)
    assert fleet["webster"].hooks[0].message == "typed at once"
    await terminal.sees("webster succeeded")
    await terminal.keys("t")
    await terminal.sees("RUNS 1")
    await terminal.keys("Enter")
    await terminal.sees("ANSWER", "materials.md:12")
    await terminal.keys("q")
    assert "Traceback" not in await terminal.sees("left 0")


async def test_leaving_waits_for_no_answer_of_the_supervisor(fleet: Fleet, terminal: Terminal) -> None:
    """It was asked to stop an agent, which may take a minute; whoever leaves meanwhile has their shell back."""
    asked: list[Request] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = msgspec.json.decode(line, type=Request)
            if request.op == "list":
                writer.write(msgspec.json.encode(Answer(ok=True, pid=os.getpid())) + b"\n")
            else:
                asked.append(request)

    fleet.home.run.mkdir(exist_ok=True)
    with short_path(fleet.home) as path:
        server = await asyncio.start_unix_server(serve, path)
    async with server:
        command = f"cd {ROOT}; {sys.executable} -m console --home {fleet.home.root}; echo left $?; sleep 60"
        await terminal.open(command, 80, 24)
        await terminal.sees("3up", "webster", "? Help")
        await terminal.keys("x")
        await terminal.sees("Stop")
        await terminal.keys("y")
        await until(lambda: asked, 10)
        await terminal.keys("q")
        assert "Traceback" not in await terminal.sees("left 0", seconds=30)


async def test_a_suspended_console_shows_the_gap_when_it_goes_on(fleet: Fleet, terminal: Terminal) -> None:
    command = f"cd {ROOT} && exec {sys.executable} -m console --home {fleet.home.root}"
    await terminal.open(command, 120, 40)
    await terminal.sees("3 up")
    pid = await terminal.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(20_000):
            fleet["webster"].log(f"while it slept {number} " + "x" * 1000)
            if number % 500 == 0:
                await asyncio.sleep(0)
    finally:
        os.kill(pid, signal.SIGCONT)
    await terminal.sees("events were dropped")
    fleet["webster"].log("awake again")
    await terminal.sees("awake again", "3 up")
