"""What a supervisor is to its users: the states of its children, and a client that asks it to change them.

Synchronous and on the standard library: the CLI calls it directly, the console from a thread. One JSON object a line,
over the Unix socket `run/supervisor.sock` of the home.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from protocols.errors import AtomizerError
from runtime.home import Home

State = Literal["up", "starting", "backoff", "crash-loop", "config-error", "port-taken", "stopping", "stopped"]

SOCKET = "supervisor.sock"
LOCK = "supervisor.lock"
LOG = "supervisor.log"
LOG_BYTES = 1024 * 1024
"""A larger supervisor.log is put aside as supervisor.log.1 before the next start."""
ANSWER_SECONDS = 5.0
"""A supervisor that does not answer a plain question for so long is taken for hung."""
REVIVE_SECONDS = 10.0


class SupervisorError(AtomizerError):
    """The supervisor refused, or cannot be asked; the message says what to do."""


class SupervisorDown(SupervisorError):
    """No supervisor answers on this home's socket."""


class SupervisorHung(SupervisorError):
    """A supervisor lives and does not answer."""


class ChildState(msgspec.Struct, kw_only=True):
    """One gateway, as its supervisor sees it."""

    agent: str
    desired: Literal["up", "stopped"] = "stopped"
    state: State = "stopped"
    pid: int | None = None
    port: int | None = None
    since: float = 0.0
    """Unix seconds since when it is in `state`."""
    restarts: int = 0
    """Restarts since a person last asked for it."""
    retry_at: float | None = None
    """Unix seconds of the next try, in `backoff` and `port-taken`."""
    detail: str = ""
    """Why, in one line: the process's last words, the crash loop, the owner of the port."""


States = list[ChildState]


class Request(msgspec.Struct, kw_only=True):
    """One line to the supervisor."""

    op: Literal["list", "start", "stop", "restart", "forget", "shutdown"]
    agents: list[str] = msgspec.field(default_factory=list)
    wait: float = 0.0
    """Seconds the answer may wait for the agents to settle (`start`, `restart`)."""


class Answer(msgspec.Struct, kw_only=True):
    """One line back."""

    ok: bool
    pid: int = 0
    """The supervisor's own."""
    children: list[ChildState] = msgspec.field(default_factory=list)
    error: str = ""


class SupervisorClient:
    """Asks one home's supervisor. Raises SupervisorDown if nobody answers, SupervisorError for a refusal."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def alive(self) -> bool:
        try:
            self.list()
        except SupervisorDown:
            return False
        return True

    def list(self) -> States:
        """Every agent of the cluster, in its order."""
        return self._ask(Request(op="list")).children

    def pid(self) -> int:
        return self._ask(Request(op="list")).pid

    def start(self, names: Iterable[str], wait: float = 0.0) -> States:
        """Start these agents (harmless if they run) and clear their crash loops; answers their states.

        With `wait` it answers once each is up or has failed, at most that many seconds later.
        """
        return self._ask(Request(op="start", agents=[*names], wait=wait), wait).children

    def stop(self, names: Iterable[str]) -> States:
        """Drain and end these agents and all that they started; answers when they are gone (at most about 30 s)."""
        return self._ask(Request(op="stop", agents=[*names]), 60.0).children

    def restart(self, names: Iterable[str], wait: float = 0.0) -> States:
        return self._ask(Request(op="restart", agents=[*names], wait=wait), 60.0 + wait).children

    def forget(self, names: Iterable[str]) -> None:
        """Stop these agents and drop them from the list: they have been removed from the cluster."""
        self._ask(Request(op="forget", agents=[*names]), 60.0)

    def shutdown(self) -> None:
        """Stop every agent and the supervisor itself; returns when it has ended."""
        from cluster.supervisors.processes import find, wait_gone

        process = find(self.pid())
        self._ask(Request(op="shutdown"), 60.0)
        if process is not None and wait_gone([process], 15.0):
            raise SupervisorError(f"the supervisor (pid {process.pid}) does not end; see {self.home.run / LOG}")

    def ensure(self) -> bool:
        """Start the supervisor if it is dead; true if that was so. It then re-adopts or restarts its children."""
        if self.alive():
            return False
        began = time.monotonic()
        while (waited := time.monotonic() - began) < REVIVE_SECONDS:
            # More than once: the first may have met a predecessor that was still about to end.
            self._launch()
            while time.monotonic() - began < waited + 2.0:
                if self.alive():
                    return True
                time.sleep(0.02)
        raise SupervisorDown(f"the supervisor did not come up; its last words are in {self.home.run / LOG}")

    def _launch(self) -> None:
        from cluster.supervisors.launch import clean

        run = self.home.run
        run.mkdir(mode=0o700, exist_ok=True)
        if (run / LOG).exists() and (run / LOG).stat().st_size > LOG_BYTES:
            (run / LOG).replace(run / f"{LOG}.1")
        log = os.open(run / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            starter = subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.supervisors.embedded", "--home", str(self.home.root)],
                cwd=self.home.root,
                env=clean(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        try:
            starter.wait(REVIVE_SECONDS)
        except subprocess.TimeoutExpired:
            starter.kill()
            starter.wait()
            raise SupervisorDown(
                f"the supervisor hung at its start and was ended; its last words are in {self.home.run / LOG}"
            ) from None

    def _ask(self, request: Request, patience: float = 0.0) -> Answer:
        with self._connection(ANSWER_SECONDS + patience) as stream:
            return self._exchange(stream, request)

    def _exchange(self, stream: socket.socket, request: Request) -> Answer:
        data = b""
        try:
            stream.sendall(msgspec.json.encode(request) + b"\n")
            while not data.endswith(b"\n"):
                chunk = stream.recv(65536)
                if not chunk:
                    raise SupervisorDown("the supervisor died while it was asked; try again")
                data += chunk
        except TimeoutError:
            raise SupervisorHung(
                f"the supervisor does not answer; `atomizer stop` ends it (its log: {self.home.run / LOG})"
            ) from None
        except OSError as error:
            raise SupervisorDown(f"the supervisor hung up ({error})") from None
        answer = msgspec.json.decode(data, type=Answer)
        if not answer.ok:
            raise SupervisorError(answer.error)
        return answer

    @contextlib.contextmanager
    def _connection(self, timeout: float) -> Iterator[socket.socket]:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(timeout)
            try:
                with short_path(self.home) as path:
                    stream.connect(path)
            except TimeoutError:
                raise SupervisorHung(
                    f"the supervisor does not answer; `atomizer stop` ends it (its log: {self.home.run / LOG})"
                ) from None
            except OSError:
                raise SupervisorDown("no supervisor is running; `atomizer start` starts it") from None
            yield stream
        finally:
            stream.close()


def ensure(home: Home) -> bool:
    """Start `home`'s supervisor if it is dead; true if that was so."""
    return SupervisorClient(home).ensure()


@contextlib.contextmanager
def short_path(home: Home) -> Iterator[str]:
    """The socket's path in a form that fits into the 107 bytes a Unix address may have, however deep the home is.

    Raises OSError if `run/` is not there.
    """
    path = str(home.run / SOCKET)
    if len(os.fsencode(path)) <= 100:
        yield path
        return
    folder = os.open(home.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
