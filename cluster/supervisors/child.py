"""One gateway under supervision: started, watched, ended, started again; or found alive and taken over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

from cluster.supervisors import processes
from cluster.supervisors.launch import last_words, launch
from cluster.supervisors.policy import RestartPolicy
from cluster.supervisors.processes import Process
from cluster.supervisors.records import ChildRecord, save_record
from cluster.supervisors.supervisor import ChildState, State
from runtime.home import Home, explain_os_error

STOP_SECONDS = 20.0
"""What a gateway gets to drain between SIGTERM and SIGKILL."""
SLOW_SECONDS = 10.0
"""A gateway that has not answered for so long after its start is said to be slow."""
_SETTLED: frozenset[State] = frozenset({"up", "crash-loop", "config-error", "port-taken", "stopped"})
_TERMINAL: frozenset[State] = frozenset({"crash-loop", "config-error"})


class Running:
    """A live gateway process. `exited` becomes its exit code: negative for a signal, None where nobody could see it."""

    def __init__(self, process: Process, offset: int = 0, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.process = process
        self.offset = offset
        self.began = time.monotonic()
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._handle = -1

    def watch(self) -> None:
        """For a process that is not our child: the kernel tells us of its end, though not of its code."""
        loop = asyncio.get_running_loop()
        try:
            self._handle = os.pidfd_open(self.process.pid)
        except OSError:
            self.ended(None)
            return
        loop.add_reader(self._handle, self.ended, None)

    def ended(self, code: int | None) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
        if self._popen is not None:
            self._popen.returncode = code  # reaped by the supervisor: Popen must not wait for it as well
        if not self.exited.done():
            self.exited.set_result(code)


class Child:
    """One agent's gateway.

    `spawned` is told of each process started here, so that its end can be reported back; `orphans` answers what has
    lost its parent to this supervisor and belongs to nobody that lives.
    """

    def __init__(
        self,
        home: Home,
        record: ChildRecord,
        host: str,
        program: list[str],
        draw: Callable[[], float],
        spawned: Callable[[Running], None],
        orphans: Callable[[], Awaitable[list[Process]]],
    ) -> None:
        self.home, self.agent = home, record.agent
        self.host, self.port = host, record.port
        """Where its next process listens; `record.port` is where the present one does."""
        self.record = record
        self.program = program
        self.wanted = False
        self.running: Running | None = None
        self.retry_at: float | None = None
        self._policy = RestartPolicy(draw)
        self._spawned, self._orphans = spawned, orphans
        self._keeper: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()

    def shown(self) -> ChildState:
        record = self.record
        return ChildState(
            agent=self.agent,
            desired="up" if self.wanted else "stopped",
            state=record.state,
            pid=self.running.process.pid if self.running else None,
            port=record.port if self.running else self.port,
            since=record.since,
            restarts=record.restarts,
            retry_at=self.retry_at,
            detail=record.detail,
        )

    def resume(self, alive: Process | None) -> None:
        """Go on after a predecessor: keep `alive`, if it lives; leave crash loops and bad configurations stopped."""
        self.wanted = True
        if alive is not None:
            self.running = Running(alive)
            self.running.watch()
        elif self.record.state in _TERMINAL:
            return
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.agent}")

    async def start(self) -> None:
        """Start it if it does not run; a person's wish, so that crash loops and backoffs are forgotten."""
        async with self._turn:
            self.wanted = True
            if self.running is None:
                self._policy.clear()
                self.record.restarts, self.record.detail = 0, ""
            if self._keeper is None or self._keeper.done():
                self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.agent}")
                await asyncio.sleep(0)
            elif self.running is None:
                self._enter("starting", "")
                self._wake.set()

    async def stop(self) -> None:
        """Drain and end it, and whatever it left behind; returns when all are gone."""
        async with self._turn:
            self.wanted = False
            self._wake.set()
            if self.running is not None:
                self._enter("stopping", "")
                await self._terminate(self.running)
            if self._keeper is not None:
                await self._keeper
            self._enter("stopped", "")

    async def settled(self, seconds: float) -> None:
        """Wait until it is up or has failed for now, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.record.state not in _SETTLED:
                    self._changed.clear()
                    await self._changed.wait()

    async def _keep(self) -> None:
        while self.wanted:
            self.retry_at = None
            self._wake.clear()
            if self.running is None:
                self.running = await self._spawn()
            code: int | None = None
            uptime, words = 0.0, self.record.detail
            if self.running is not None:
                code = await self._tend(self.running)
                uptime = time.monotonic() - self.running.began
                words = await asyncio.to_thread(last_words, self.home, self.agent, self.running.offset)
                session, self.running = self.running.process.pid, None
                if not self._dismissed() and self.record.state != "port-taken":
                    self._enter("backoff", words)  # at once: what follows takes time, and it is not up
                await self._clean(session, ())
            if self._dismissed():
                break
            verdict = self._policy.exited(code, time.monotonic(), uptime)
            if verdict.delay is not None:
                self.retry_at = time.time() + verdict.delay
            self._enter(
                verdict.state,
                words
                if verdict.state in ("config-error", "port-taken") and words
                else f"{verdict.reason}{f': {words}' if words else ''}",
            )
            if verdict.delay is None:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(verdict.delay):
                    await self._wake.wait()
            self.record.restarts += 1
        self.retry_at = None

    def _dismissed(self) -> bool:
        """Was it asked to stop meanwhile?"""
        return not self.wanted

    async def _spawn(self) -> Running | None:
        """A new process, or None (with the reason in the record) where it could not be started."""
        # Why the last one ended stays until this one is up; a taken port is the state as well, for tries are short.
        self._enter("port-taken" if self.record.state == "port-taken" else "starting", self.record.detail)
        # A gateway that died with its supervisor may have left tools behind that nobody has looked for yet.
        await asyncio.to_thread(processes.sweep, self.home, self.agent)
        if self._dismissed():
            return None
        self.record.port = self.port
        try:
            popen, offset = launch(self.home, self.agent, self.program)
        except OSError as error:
            self.record.detail = explain_os_error(error, f"cannot start {self.agent}")
            return None
        process = processes.find(popen.pid) or Process(pid=popen.pid, started=0, parent=os.getpid(), session=popen.pid)
        running = Running(process, offset, popen)
        self._spawned(running)
        self.record.pid, self.record.started, self.record.started_at = process.pid, process.started, time.time()
        self._save()
        return running

    async def _tend(self, running: Running) -> int | None:
        """Wait for its end, and meanwhile for its first answer."""
        probing = asyncio.create_task(self._probe(running), name=f"probe {self.agent}")
        try:
            return await asyncio.shield(running.exited)
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing

    async def _probe(self, running: Running) -> None:
        pause = 0.05
        while not running.exited.done():
            here = processes.listens(running.process, self.record.port)
            if here and await healthy(self.host, self.record.port, self.agent):
                if self.wanted:
                    self._enter("up", "")
                return
            waited = time.monotonic() - running.began
            if waited > SLOW_SECONDS:
                pause = 1.0
                self._enter("starting", f"no answer on {self.host}:{self.record.port}/health for {waited:.0f} s")
            await asyncio.sleep(pause)

    async def _terminate(self, running: Running) -> None:
        # Taken while it lives: a tool that moved to another session and cleaned its environment still has its parent.
        below = await asyncio.to_thread(processes.descendants, [running.process.pid])
        processes.send(running.process, signal.SIGTERM)
        processes.send(running.process, signal.SIGCONT)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(running.exited)
        except TimeoutError:
            say(f"{self.agent}: did not end within {STOP_SECONDS:g} s of SIGTERM; sending SIGKILL")
            processes.send(running.process, signal.SIGKILL)
            await asyncio.shield(running.exited)
        await self._clean(running.process.pid, below)

    async def _clean(self, session: int, also: Iterable[Process]) -> None:
        """End what the gateway left behind: what carries its scope, what is in its session, orphans, and `also`."""
        left = [process for process in processes.all_processes() if process.session == session]
        left += await self._orphans()
        ended = await asyncio.to_thread(processes.sweep, self.home, self.agent, [*left, *also])
        if ended:
            say(f"{self.agent}: ended {ended} processes that it had left behind")

    def _enter(self, state: State, detail: str) -> None:
        if state != self.record.state:
            self.record.since = time.time()
            if state != "starting":
                say(f"{self.agent}: {state}{f' ({detail})' if detail else ''}")
        self.record.state, self.record.detail = state, detail
        if self.running is None and state != "starting":
            self.record.pid = self.record.started = None
        self._save()
        self._changed.set()

    def _save(self) -> None:
        try:
            save_record(self.home, self.record)
        except OSError as error:
            say(explain_os_error(error, f"cannot record the state of {self.agent}"))


async def healthy(host: str, port: int, agent: str) -> bool:
    """Does this very agent's gateway answer `GET /health` there?"""
    try:
        async with asyncio.timeout(2.0):
            address = "127.0.0.1" if host in ("0.0.0.0", "::") else host
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(f"GET /health HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                raw = await reader.read(65536)
                while not reader.at_eof() and len(raw) < 65536:
                    raw += await reader.read(65536)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    head, _, body = raw.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        return False
    try:
        return bool(json.loads(body)["agent"] == agent)
    except (ValueError, KeyError, TypeError):
        return False


def say(text: str) -> None:
    """A line in supervisor.log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", file=sys.stderr, flush=True)
