"""The embedded supervisor: one small process that keeps a home's gateways running where there is no systemd.

It outlives the console and the terminal it was started from, and its own death: the next command starts another, which
finds the living gateways again by pid, start time and command line. `python -P -m cluster.supervisors.embedded`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from cluster.supervisors import processes
from cluster.supervisors.child import Child, Running, say
from cluster.supervisors.launch import command_tail
from cluster.supervisors.processes import Process
from cluster.supervisors.records import ChildRecord, Desired, drop_record, load_desired, load_record, save_desired
from cluster.supervisors.supervisor import LOCK, Answer, Request, short_path
from protocols.errors import AtomizerError
from runtime.config import PLACEMENTS, load_cluster
from runtime.home import Home, explain_os_error

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: what a gateway's tools leave behind becomes ours instead of init's."""


class Supervisor:
    """Everything of one home's supervision. `draw` answers numbers in [0, 1) for the backoff."""

    def __init__(self, home: Home, draw: Callable[[], float] = random.random) -> None:
        self.home = home
        self._draw = draw
        self._children: dict[str, Child] = {}
        self._own: dict[int, Running] = {}
        self._desired = Desired()
        self._ending = asyncio.Event()
        self._stopping: list[asyncio.Task[None]] = []
        self._read_at: list[int] = []

    async def run(self) -> None:
        """Take over what runs, serve, and at the end stop what must not stay."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # not SIG_IGN, which the gateways would inherit
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        self._desired = load_desired(self.home)
        await self._take_over()
        with short_path(self.home) as path:
            Path(path).unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, path, limit=256 * 1024)
        say(f"supervisor {os.getpid()} serves {self.home.root}")
        try:
            await self._ending.wait()
        finally:
            server.close()
            (self.home.run / "supervisor.sock").unlink(missing_ok=True)
        await asyncio.gather(*self._stopping)
        await self._stop(list(self._children))
        orphans = await self._orphans()
        await asyncio.to_thread(processes.sweep, self.home, None, orphans)
        say("supervisor ends")

    async def _take_over(self) -> None:
        """Adopt the living gateways of a predecessor, start those that should live, end those that should not."""
        living = await asyncio.to_thread(self._living)
        self._sync_agents()
        for agent in [*self._desired.agents, *living]:
            if agent not in self._children:
                record = load_record(self.home, agent)
                if record is not None:
                    self._add(agent, record.port, "127.0.0.1")
        for agent, child in self._children.items():
            alive = living.get(agent)
            if agent in self._desired.agents:
                if alive is not None:
                    say(f"{agent}: adopted, pid {alive.pid}")
                child.resume(alive)
            elif alive is not None:
                child.resume(alive)
                self._stopping.append(asyncio.create_task(child.stop(), name=f"stop {agent}"))

    def _living(self) -> dict[str, Process]:
        """The gateways of this home that live: by record where it still holds, else by scope and command line."""
        found: dict[str, Process] = {}
        for process in processes.scoped(self.home):
            scope = processes.scope_in(process.pid)
            agent = scope.partition("/")[2] if scope else ""
            tail = command_tail(self.home, agent)
            if processes.command_of(process.pid)[-len(tail) :] != tail:
                continue
            record = load_record(self.home, agent)
            recorded = record is not None and (record.pid, record.started) == (process.pid, process.started)
            if recorded or (agent not in found and process.session == process.pid):
                found[agent] = process
        return found

    def _sync_agents(self) -> str:
        """Know the agents of cluster.toml as it is now; answers its error, if it has one: what is known then stays."""
        files = (self.home.cluster_toml, self.home.root / PLACEMENTS)
        read_at = [path.stat().st_mtime_ns if path.exists() else 0 for path in files]
        if read_at == self._read_at:
            return ""
        try:
            cluster = load_cluster(self.home)
        except AtomizerError as error:
            return str(error)
        for spec in cluster.agents.values():
            child = self._children.get(spec.name)
            if child is None:
                self._add(spec.name, spec.port, spec.host)
            else:
                child.port, child.host = spec.port, spec.host
        self._read_at = read_at
        gone = [name for name, child in self._children.items() if name not in cluster.agents and not child.wanted]
        for name in gone:
            del self._children[name]
        self._children = {n: self._children[n] for n in [*cluster.agents, *self._children] if n in self._children}
        return ""

    def _add(self, agent: str, port: int, host: str) -> None:
        record = load_record(self.home, agent) or ChildRecord(agent=agent, port=port)
        if agent not in self._desired.agents:
            record.state, record.pid, record.started, record.detail = "stopped", None, None, ""
        child = Child(self.home, record, host, self._desired.program, self._draw, self._spawned, self._orphans)
        child.port = port
        self._children[agent] = child

    def _spawned(self, running: Running) -> None:
        self._own[running.process.pid] = running

    def _reap(self) -> None:
        """Collect every ended child: gateways, and orphans that were given to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            running = self._own.pop(pid, None)
            if running is not None:
                running.ended(os.waitstatus_to_exitcode(status))

    async def _orphans(self) -> list[Process]:
        """Children of ours that we did not start and that carry no living agent's scope."""
        me = os.getpid()

        def look() -> list[Process]:
            ours = [process for process in processes.all_processes() if process.parent == me]
            return [process for process in ours if processes.scope_in(process.pid) is None]

        # Filtered here, on the loop's thread: a gateway that was forked meanwhile is known by now.
        return [process for process in await asyncio.to_thread(look) if process.pid not in self._own]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    request = msgspec.json.decode(line, type=Request)
                    answer = await self._answer(request)
                except msgspec.MsgspecError as error:
                    request, answer = None, Answer(ok=False, error=f"not a request: {error}")
                except AtomizerError as error:
                    answer = Answer(ok=False, error=str(error))
                except OSError as error:
                    answer = Answer(ok=False, error=explain_os_error(error, "the supervisor cannot record this"))
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
                if request is not None and request.op == "shutdown" and answer.ok:
                    self._ending.set()
        except (OSError, ValueError):
            pass  # the caller hung up, or sent a line without end: what it asked for goes on
        finally:
            writer.close()

    async def _answer(self, request: Request) -> Answer:
        names = request.agents
        if request.op in ("start", "restart", "stop", "list"):
            problem = self._sync_agents()
            if problem and request.op in ("start", "restart"):
                return Answer(ok=False, pid=os.getpid(), error=problem)
        unknown = [name for name in names if name not in self._children]
        if unknown and request.op != "forget":
            return Answer(
                ok=False, pid=os.getpid(), error=f"no agent {unknown[0]!r}; known: {', '.join(self._children)}"
            )
        match request.op:
            case "start":
                self._desire([*self._desired.agents, *names])
                await self._each(names, lambda child: child.start())
                await self._each(names, lambda child: child.settled(request.wait))
            case "restart":
                await self._stop(names)
                self._desire([*self._desired.agents, *names])
                await self._each(names, lambda child: child.start())
                await self._each(names, lambda child: child.settled(request.wait))
            case "stop":
                self._undesire(names)
                await self._stop(names)
            case "forget":
                self._undesire(names)
                await self._stop([name for name in names if name in self._children])
                for name in names:
                    self._children.pop(name, None)
                    drop_record(self.home, name)
            case "shutdown":
                self._undesire(self._desired.agents)
                await self._stop(list(self._children))
            case "list":
                pass
        shown = names if request.op in ("start", "restart", "stop") else list(self._children)
        return Answer(
            ok=True, pid=os.getpid(), children=[self._children[n].shown() for n in shown if n in self._children]
        )

    def _desire(self, agents: list[str]) -> None:
        wanted = list(dict.fromkeys(agents))
        if wanted != self._desired.agents:
            self._desired.agents = wanted
            save_desired(self.home, self._desired)

    def _undesire(self, agents: list[str]) -> None:
        """As `_desire`; a disk that cannot record it is no reason to go on."""
        try:
            self._desire([name for name in self._desired.agents if name not in agents])
        except OSError as error:
            say(explain_os_error(error, "cannot record what shall run"))

    async def _stop(self, names: list[str]) -> None:
        await self._each(names, lambda child: child.stop())

    async def _each(self, names: list[str], act: Callable[[Child], object]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(act(self._children[name]))  # type: ignore[arg-type]


def become_daemon(home: Home) -> int | None:
    """Leave the terminal and our parent; answers the lock's descriptor, or None where another supervisor holds it.

    Raises OSError. Only the child of the fork returns.
    """
    home.run.mkdir(mode=0o700, exist_ok=True)
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    lock = os.open(home.run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    return lock


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--home":
        print("usage: python -P -m cluster.supervisors.embedded --home DIR", file=sys.stderr)
        return 2
    home = Home(Path(sys.argv[2]).resolve())
    try:
        if become_daemon(home) is None:
            return 0
        asyncio.run(Supervisor(home).run())
    except OSError as error:
        say(explain_os_error(error, "the supervisor cannot start"))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
