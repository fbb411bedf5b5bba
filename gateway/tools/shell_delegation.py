"""Delegation from a command: the descriptor that a command of `exec` gets in place of a token, and who serves it.

The sandbox lets a command open no socket, so it is born with one: its end of a pair, named in ATOMIZER_DELEGATE_FD.
All processes of the command share it, and it carries nothing but the wish for a connection. Each wish is answered with
one end of a fresh pair, so that requests and answers of several processes never mix, and no descriptor of theirs ever
comes to us. On a connection goes one request, a line of JSON, and back come lines of JSON:

    {"do": "delegate", "agent": "webster", "task": "...", "wait": true, "timeout_seconds": 600}
    {"do": "show", "run": "run-...", "wait": false, "timeout_seconds": 600}

    {"ok": true, "runId": "run-...", "agent": "webster", "state": "queued"}     accepted; the last line unless it waits
    {"ok": true, "runId": "run-...", "agent": "webster", "state": "succeeded", "reason": "", "text": "..."}
    {"ok": false, "error": {"code": "not_authorised", "message": "..."}}

The work is the `delegate` tool's. `delegate_program.py` is the other side.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments
from gateway.ledger.reading import Reader
from gateway.tools.delegate import Delegate, DelegateArguments, accepted
from protocols.decoding import decode_json
from protocols.errors import AtomizerError, DecodeError
from protocols.hooks import MAX_BODY_BYTES
from protocols.runs import Run, RunState

log = logging.getLogger("delegate")

DESCRIPTOR = "ATOMIZER_DELEGATE_FD"
ASK, HERE = b"ask", b"here"
MAX_CONNECTIONS = 8
"""Of one command at a time."""
MAX_ASKED = 1000
"""Connections one command may ask for in all; then its descriptor is closed."""
REQUEST_SECONDS = 10.0
"""A connection whose request does not come within this is closed."""
PROGRAM = Path(__file__).with_name("delegate_program.py")


class GiveRequest(DelegateArguments, tag_field="do", tag="delegate", forbid_unknown_fields=True, kw_only=True):
    """The tool's arguments. Whether the command waits is its own affair, and shows in no step."""

    agent: Annotated[str, msgspec.Meta(max_length=64)]
    wait: bool = False


class ShowRequest(msgspec.Struct, tag_field="do", tag="show", forbid_unknown_fields=True):
    run: Annotated[str, msgspec.Meta(max_length=60)]
    wait: bool = False
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 1800


_REQUEST: Any = GiveRequest | ShowRequest


class _HandOver(BaseTool):
    """`delegate` without the wait, with a deadline; keeps what the command is to be told."""

    replay = Replay.KEYED
    subject_field = "agent"

    def __init__(self, delegate: Delegate, deadline: float | None) -> None:
        self.spec = delegate.spec
        self.run_id = ""
        self.error: ToolError | None = None
        self._delegate = delegate
        self._deadline = deadline

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        try:
            asked: DelegateArguments = decode_arguments(DelegateArguments, arguments, "delegate")
            self.run_id = await self._delegate.give(context, asked, self._deadline)
        except ToolError as error:
            self.error = error
            raise
        return accepted(asked.agent, self.run_id)


class Channel:
    """What one command delegates through, from its start to its end or its run's."""

    def __init__(
        self, delegate: Delegate, reader: Reader, redact: Callable[[str], str], context: ToolContext, folder: Path
    ) -> None:
        self.folder = folder
        """Where the program is, for the command's PATH."""
        self._delegate = delegate
        self._reader = reader
        self._redact = redact
        self._context = context
        self._count = 0
        self._asked = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving: set[asyncio.Task[None]] = set()
        """Those that have begun to hand something over: whether it was accepted must be found out and written."""
        self._waits: list[str] = []
        self._news = asyncio.Event()
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        asyncio.get_running_loop().add_reader(self._ours, self._heard)

    @property
    def run_id(self) -> str:
        return self._context.run.run_id

    @property
    def open(self) -> bool:
        return self._ours.fileno() >= 0

    @property
    def alive(self) -> bool:
        return self.open or bool(self._tasks)

    def close(self) -> None:
        """Nothing more is taken. What is being handed over is finished; nobody waits for anything."""
        if self.open:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._ours.close()
        self.theirs.close()
        for task in self._tasks - self._giving:
            task.cancel()
        self._news.set()

    def abandon(self) -> None:
        """Close, and hand nothing over any more."""
        self.close()
        for task in self._giving:
            task.cancel()

    async def settle(self) -> None:
        """Until what is being handed over is written."""
        while self._giving:
            await asyncio.wait(self._giving)

    async def attend(self, done: asyncio.Event, seconds: float) -> bool:
        """Wait for the command's end, at most `seconds` of its own work; whether it has ended.

        While it waits for what it delegated, its run waits, without a place, and no second passes.
        """
        loop = asyncio.get_running_loop()
        while not done.is_set() and seconds > 0:
            if self._waits:
                async with self._context.park(self._waits[0]):
                    while self._waits and not done.is_set():
                        await self._something_new(done, None)
            else:
                began = loop.time()
                await self._something_new(done, seconds)
                seconds -= loop.time() - began
        return done.is_set()

    async def _something_new(self, done: asyncio.Event, seconds: float | None) -> None:
        self._news.clear()
        waiting = [asyncio.ensure_future(event.wait()) for event in (done, self._news)]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()

    # -- connections ---------------------------------------------------------------------------------------------------

    def _heard(self) -> None:
        """The command wants a connection, or says something that means nothing."""
        self._asked += 1
        try:
            said = self._ours.recv(16)
            if not said or self._asked > MAX_ASKED:
                self.close()
            elif said == ASK and len(self._tasks) >= MAX_CONNECTIONS:
                why = f"{MAX_CONNECTIONS} requests of this command are under way already; try again when one has ended"
                self._ours.send(_line(_refusal("too_many", why)))
            elif said == ASK:
                self._connect()
        except OSError as error:
            log.warning("a command of %s cannot delegate any more: %s", self.run_id, error.strerror)
            self.close()  # it asks and does not listen, or we have no descriptor left

    def _connect(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            ours.setblocking(False)
            try:
                socket.send_fds(self._ours, [HERE], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        task = asyncio.create_task(self._serve(ours), name=f"command of {self.run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """One request of one process."""
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_BODY_BYTES)
        except BaseException:
            connection.close()
            raise
        try:
            await self._answer(reader, writer)
        except OSError:
            pass  # it is gone, and wants no answer
        except Exception:
            log.exception("a command's request failed")
            writer.write(_line(_refusal("failed", "the gateway failed at it; its log says why")))
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(answer: dict[str, Any]) -> None:
            writer.write(_line(answer))
            await writer.drain()

        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readuntil()
            asked = decode_json(line, _REQUEST, "the request")
            if isinstance(asked, ShowRequest):
                agent, run_id = self._agent_of(asked.run), asked.run
            else:
                agent, run_id = asked.agent, await self._give(asked)
                await say(_fact(run_id, agent, RunState.QUEUED))
            if asked.wait:
                run = await self._wait(agent, run_id, asked.timeout_seconds, reader)
                if run.state is not RunState.SUCCEEDED and run.deadline and (run.finished_at or 0.0) >= run.deadline:
                    late = f"{agent} did not finish {run_id} in time, and it {run.state.value}: {run.reason}"
                    raise ToolError(late, "timeout")
            elif isinstance(asked, ShowRequest):
                run = await self._delegate.look(agent, run_id)
            else:
                return
            await say(_fact(run_id, agent, run.state, reason=run.reason, text=self._redact(run.text)))
        except (TimeoutError, asyncio.IncompleteReadError):
            pass  # it asked for a connection and died, or says nothing
        except asyncio.LimitOverrunError:
            await say(_refusal("too_long", f"a request has at most {MAX_BODY_BYTES} bytes; put the rest into a file"))
        except ToolError as error:
            await say(_refusal(error.code, self._redact(str(error))))
        except AtomizerError as error:
            await say(_refusal("bad_request" if isinstance(error, DecodeError) else "failed", str(error)))

    async def _give(self, asked: GiveRequest) -> str:
        """Hand it over as a step of the run; its run's id. Raises ToolError."""
        tool = _HandOver(self._delegate, time.time() + asked.timeout_seconds if asked.wait else None)
        self._count += 1
        # Unlike a model, a command may have seen what must not be stored.
        arguments = {"agent": self._redact(asked.agent), "task": self._redact(asked.task), "wait": False}
        task = asyncio.current_task()
        assert task is not None
        assert self._context.below is not None
        self._giving.add(task)
        try:
            await self._context.below(tool, arguments, self._count)
        except ToolError as error:
            raise tool.error or error from None
        finally:
            self._giving.discard(task)
        return tool.run_id

    async def _wait(self, agent: str, run_id: str, seconds: float, reader: asyncio.StreamReader) -> Run:
        """The run once it has ended; until then the command waits, and its run with it if it waits for the command."""
        if not self.open:
            raise ToolError(f"nobody waits for {run_id}: the command's run has ended", "run_ended")
        reason = f"{agent} works on {run_id}"
        self._waits.append(reason)
        self._news.set()
        ending = asyncio.create_task(self._delegate.wait_for(agent, run_id, seconds))
        hanging_up = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([ending, hanging_up], return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                raise ConnectionAbortedError
            return ending.result()
        finally:
            hanging_up.cancel()
            ending.cancel()
            self._waits.remove(reason)
            self._news.set()

    def _agent_of(self, run_id: str) -> str:
        for child in self._reader.children(self.run_id):
            if child.run_id == run_id:
                return child.agent
        raise ToolError(f"{run_id} is no run that {self.run_id} delegated; it may ask about those only", "not_yours")


class ShellDelegations:
    """The channels of a gateway's commands, by the run whose authority they use."""

    def __init__(
        self,
        delegate: Delegate,
        reader: Reader,
        folder: Path,
        *,
        redact: Callable[[str], str],
    ) -> None:
        """`folder` is where the program for commands is made, when the first of them needs it."""
        self._delegate = delegate
        self._reader = reader
        self._folder = folder
        self._redact = redact
        self._channels: dict[str, list[Channel]] = {}

    def open(self, context: ToolContext) -> Channel:
        """For one command of the context's call. Raises OSError."""
        self._install()
        channel = Channel(self._delegate, self._reader, self._redact, context, self._folder)
        theirs = self._channels.setdefault(channel.run_id, [])
        theirs[:] = [other for other in theirs if other.alive]
        theirs.append(channel)
        return channel

    async def settle(self, run_id: str) -> None:
        """The run is about to end: its commands hand nothing more over, and what they have is written."""
        for channel in self._channels.get(run_id, []):
            channel.close()
            await channel.settle()

    def abandon(self, run_id: str) -> None:
        """The run ends."""
        for channel in self._channels.pop(run_id, []):
            channel.abandon()

    def _install(self) -> None:
        """The program under its two names, for any command of this agent."""
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        run = shlex.join([sys.executable, "-I", "-S", "-B", str(PROGRAM)])
        for name in ("atomizer", "atomizer-delegate"):
            path = self._folder / name
            if not path.exists():
                path.write_text(f'#!/bin/sh\nexec {run} {name} "$@"\n')
                path.chmod(0o755)


def _fact(run_id: str, agent: str, state: RunState, **more: str) -> dict[str, Any]:
    return {"ok": True, "runId": run_id, "agent": agent, "state": state.value, **more}


def _refusal(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": message}}


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"
