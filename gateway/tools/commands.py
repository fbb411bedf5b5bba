"""The commands an agent has running: started in the sandbox, their output kept in bounded memory, ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.agent.tool import ToolError
from gateway.tools.scratch import remove_folder
from gateway.tools.shell_delegation import DESCRIPTOR, PROGRAM, Channel
from runtime.config_shell import ShellTable
from runtime.sandbox import Sandbox

log = logging.getLogger("shell")

MAX_RUNNING = 8
"""Commands of one agent at a time."""
MAX_ENDED = 20
"""Ended commands whose output can still be asked for."""
_STOP_SECONDS = 3.0
"""The keeper needs half a second; one that does not end in this time is hung."""
_CHUNK = 65536
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROLS = {c: None for c in (*range(32), 127) if chr(c) not in "\n\t"}


class Output:
    """The first and the last bytes of a stream, however long it is."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self, since: int = 0) -> str:
        """What was kept of the stream from byte `since` on; what was not is said."""
        tail = self._tail[-self._half :]
        begin = max(since, len(self._head))
        gap = self.total - len(tail) - begin
        parts = [_readable(self._head[since:])]
        if gap > 0:
            parts.append(f"\n[{gap} bytes in between were not kept]\n")
        parts.append(_readable(tail[max(0, -gap) :]))
        return "".join(parts)


def _readable(data: bytes | bytearray) -> str:
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    return _ESCAPES.sub("", text).translate(_CONTROLS)


class Command:
    """One command line, from its start on."""

    def __init__(self, name: str, line: str, run_id: str, timeout: float, output: Output) -> None:
        self.name = name
        self.line = line
        self.run_id = run_id
        self.output = output
        self.seen = 0
        """Bytes of the output that the model was shown."""
        self.done = asyncio.Event()
        self.alone = False
        """In the background, and nobody waits for its end."""
        self.process: asyncio.subprocess.Process | None = None
        self.stopped = ""
        """Why we ended it, if we did."""
        self.outcome: dict[str, Any] = {}
        self._timeout = timeout
        self._began = time.monotonic()
        self._ended = 0.0

    @property
    def running(self) -> bool:
        return not self.done.is_set()

    @property
    def seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._began

    def take(self) -> str:
        """The output that was not taken before."""
        since, self.seen = self.seen, self.output.total
        return self.output.text(since).rstrip("\n")

    def state(self) -> str:
        """How it stands, in words."""
        if self.running:
            return f"running for {self.seconds:.0f} s"
        outcome, after = self.outcome, f"after {self.seconds:.1f} s"
        if outcome.get("why") == "processes":
            return f"ended {after}: it had more processes than [shell] processes allows"
        if self.stopped:
            return f"ended {after}: {self.stopped}"
        if outcome.get("signal"):
            return f"ended {after} by {signal.Signals(outcome['signal']).name}"
        if outcome.get("code") is None:
            return f"ended {after}; how is not known"
        left = outcome.get("left", 0)
        more = f"; {left} processes that it left behind were ended" if left else ""
        return f"exit code {outcome['code']} {after}{more}"

    async def watch(self, report: int) -> None:
        """Read its output until all of it has ended, or its time is up."""
        assert self.process is not None
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout):
                while data := await self.process.stdout.read(_CHUNK):
                    self.output.add(data)
                await self.process.wait()
        except TimeoutError:
            await self.stop(f"its time of {self._timeout:.0f} s was up")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    while data := await self.process.stdout.read(_CHUNK):
                        self.output.add(data)
        finally:
            os.set_blocking(report, False)
            with contextlib.suppress(ValueError, BlockingIOError):
                self.outcome = json.loads(os.read(report, 4096) or b"{}")
            os.close(report)
            self._ended = time.monotonic()
            self.done.set()

    async def stop(self, why: str) -> None:
        """End it and all that came of it."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        self.stopped = self.stopped or why
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            await asyncio.to_thread(_kill_all, process.pid)


def _kill_all(keeper: int) -> None:
    from runtime.confine import below

    for pid in (*below(keeper), keeper):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Commands:
    """Starts commands and knows those that run. One for a gateway; closed with it."""

    def __init__(
        self, sandbox: Sandbox, table: ShellTable, workspace: Path, scratch: Path, on_end: Callable[[Command], None]
    ) -> None:
        """`scratch` is this agent's alone; what a killed predecessor left in it is removed.

        `on_end` is told of a command that ended by itself while nobody waited for it.
        """
        self._scratch = scratch
        self._on_end = on_end
        self._known: dict[str, Command] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._count = 0
        self.configure(sandbox, table, workspace)
        remove_folder(scratch)

    def configure(self, sandbox: Sandbox, table: ShellTable, workspace: Path) -> None:
        """For commands that start from now on."""
        self.sandbox, self.table, self.workspace = sandbox, table, workspace

    def known(self) -> list[Command]:
        return list(self._known.values())

    def get(self, name: str) -> Command:
        """Raises ToolError."""
        if name not in self._known:
            names = ", ".join(self._known) or "none"
            raise ToolError(f"there is no command {name!r}; there are: {names}")
        return self._known[name]

    async def start(
        self,
        line: str,
        run_id: str,
        timeout: float,
        *,
        folder: int | None,
        stdin: bool,
        channel: Channel | None = None,
    ) -> Command:
        """Start `line` in the open `folder`, or the workspace; raises ToolError. Cancelled, it leaves nothing.

        It delegates through `channel`, which is closed with it.
        """
        running = sum(command.running for command in self._known.values())
        if running >= MAX_RUNNING:
            raise ToolError(f"{running} commands are running already; end one with process kill, or wait")
        self._count += 1
        command = Command(f"c{self._count}", line, run_id, timeout, Output(self.table.output_kb * 1024))
        self._known[command.name] = command
        starting = asyncio.create_task(self._spawn(command, folder, stdin, channel), name=f"start {command.name}")
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            await self.stop(command, "it was cancelled")
            raise
        except (OSError, ValueError) as error:
            del self._known[command.name]
            raise ToolError(f"no command can be started: {getattr(error, 'strerror', None) or error}") from None
        self._forget()
        return command

    async def stop(self, command: Command, why: str) -> None:
        """End it, and wait until it has ended, even if we are cancelled meanwhile."""
        watcher = self._watchers.get(command.name)
        await asyncio.shield(command.stop(why))
        if watcher is not None:
            await asyncio.wait([watcher], timeout=1.0)

    async def end_run(self, run_id: str, why: str) -> None:
        """End what a run had started and left running."""
        theirs = [command for command in self._known.values() if command.run_id == run_id and command.running]
        await asyncio.gather(*(self.stop(command, why) for command in theirs))

    async def close(self) -> None:
        running = [command for command in self._known.values() if command.running]
        if running:
            log.info("ending %d command(s)", len(running))
        await asyncio.gather(*(self.stop(command, "the gateway stopped") for command in running))
        for watcher in list(self._watchers.values()):
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await asyncio.to_thread(remove_folder, self._scratch)

    async def _spawn(self, command: Command, folder: int | None, stdin: bool, channel: Channel | None) -> None:
        scratch = self._scratch / command.name
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        readable = [str(channel.folder), str(PROGRAM)] if channel else []
        ours, theirs = os.pipe()
        try:
            command.process = await asyncio.create_subprocess_exec(
                *self.sandbox.command(["/bin/sh", "-c", command.line], scratch=scratch, report=theirs, read=readable),
                cwd=self.workspace if folder is None else f"/proc/self/fd/{folder}",
                env=self._environment(command, scratch, channel),
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs, channel.theirs.fileno()) if channel else (theirs,),
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
            if channel is not None:
                channel.theirs.close()
        watcher = asyncio.create_task(self._watch(command, ours, scratch, channel), name=f"watch {command.name}")
        self._watchers[command.name] = watcher

    def _environment(self, command: Command, scratch: Path, channel: Channel | None) -> Mapping[str, str]:
        found = self.sandbox.environment(os.environ, scratch, ATOMIZER_RUN=command.run_id)
        if channel is not None:
            found[DESCRIPTOR] = str(channel.theirs.fileno())
            found["PATH"] = f"{channel.folder}:{found['PATH']}"
        return found

    async def _watch(self, command: Command, report: int, scratch: Path, channel: Channel | None) -> None:
        try:
            await command.watch(report)
        finally:
            self._watchers.pop(command.name, None)
            if channel is not None:
                channel.close()
            if command.alone and not command.stopped:
                self._on_end(command)
            await asyncio.to_thread(remove_folder, scratch)

    def _forget(self) -> None:
        """Keep the newest of those that ended."""
        ended = [name for name, command in self._known.items() if not command.running]
        for name in ended[:-MAX_ENDED]:
            del self._known[name]
