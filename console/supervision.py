"""The way to the cluster's supervisor.

Its client is synchronous, so each call goes to a thread, and is imported there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from console.store import Store
from runtime.home import Home

POLL_SECONDS = 5.0
MISSED_POLL_SECONDS = 1.5
"""Seconds between looks while an agent that should be up is not."""
REVIVE = "supervisor not running: any atomizer command or `s` revives it"
REVIVE_READ_ONLY = "supervisor not running: any atomizer command revives it"
"""In its place where no key writes."""


class Child(Protocol):
    """One process as the supervisor sees it."""

    agent: str
    state: str
    detail: str


class SupervisorLike(Protocol):
    """What the console uses of `cluster.supervisors.supervisor.SupervisorClient`."""

    def list(self) -> Sequence[Any]: ...
    def start(self, names: Sequence[str]) -> Any: ...
    def stop(self, names: Sequence[str]) -> Any: ...
    def restart(self, names: Sequence[str]) -> Any: ...


Connect = Callable[[Home, bool], SupervisorLike]
"""(home, revive): a client; with `revive` the supervisor is started first if it does not live."""


class NoSupervisor(Exception):
    """The supervisor could not be asked; the text says why."""


class Supervision:
    """Asks and tells the supervisor."""

    def __init__(self, home: Home, store: Store, connect: Connect) -> None:
        self._home, self._store, self._connect = home, store, connect

    async def poll(self) -> None:
        """Learn whether it lives and, if an agent cannot be reached, what it says about the processes."""
        try:
            children = await asyncio.to_thread(self._look)
            alive = True
        except NoSupervisor:
            alive, children = False, []
        self._store.set_supervisor(alive)
        for child in children:
            self._store.supervised(str(child.agent), str(child.state), str(child.detail or ""))
        self._store.explained()

    async def act(self, verb: str, names: Sequence[str]) -> str:
        """`start`, `stop` or `restart` agents, reviving the supervisor if need be; raises NoSupervisor."""
        await asyncio.to_thread(self._act, verb, list(names))
        self._store.set_supervisor(True)
        return {"start": "started", "stop": "stopped", "restart": "restarted"}[verb]

    def _look(self) -> list[Any]:
        try:
            return list(self._connect(self._home, False).list())
        except Exception as error:  # another room's errors end here
            raise NoSupervisor(str(error)) from error

    def _act(self, verb: str, names: list[str]) -> None:
        try:
            getattr(self._connect(self._home, True), verb)(names)
        except Exception as error:  # another room's errors end here
            raise NoSupervisor(str(error) or type(error).__name__) from error


def connect_supervisor(home: Home, revive: bool) -> SupervisorLike:
    """The real one."""
    from cluster.supervisors import supervisor

    if revive:
        supervisor.ensure(home)
    client: SupervisorLike = supervisor.SupervisorClient(home)
    return client
