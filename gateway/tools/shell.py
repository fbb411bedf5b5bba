"""exec and process: command lines in the agent's workspace, in the sandbox, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any, Literal

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.tools.commands import Command, Commands
from gateway.tools.roots import Roots
from gateway.tools.shell_delegation import Channel, ShellDelegations
from runtime.config import parse_duration

MAX_WAIT = 120.0
_WHAT = (
    "Run a command line in your workspace. Its output and exit code come back; what takes long goes on in the "
    "background (see process). When it ends, all that it started is ended too."
)
_DELEGATES = ' In it, `atomizer delegate AGENT "TASK" --wait` gives another agent a task and prints the answer.'


class ExecArguments(msgspec.Struct, forbid_unknown_fields=True):
    command: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000, description="A command line for /bin/sh")]
    cwd: Annotated[str, msgspec.Meta(description="The folder to run it in; default: your workspace")] = "."
    timeout_seconds: Annotated[float | None, msgspec.Meta(description="End it after so long")] = None
    background: Annotated[bool, msgspec.Meta(description="Do not wait for it; look after it with `process`")] = False


class ProcessArguments(msgspec.Struct, forbid_unknown_fields=True):
    action: Annotated[
        Literal["list", "poll", "write", "kill"],
        msgspec.Meta(description="poll: new output and state; write: to its input; kill: end it and all it started"),
    ]
    id: Annotated[str, msgspec.Meta(description="As exec named it, for example c1")] = ""
    text: Annotated[str, msgspec.Meta(max_length=100_000, description="write: what it reads, with line ends")] = ""
    close: Annotated[bool, msgspec.Meta(description="write: end its input after that")] = False
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT, description="poll: wait so long for its end")] = 0


class Exec(BaseTool):
    """Runs a command line. Never repeated by itself: after a crash the model is told that it was interrupted."""

    replay = Replay.NEVER
    subject_field = "command"

    def __init__(self, commands: Commands, roots: Roots, delegations: ShellDelegations | None, *, tell: bool) -> None:
        """`delegations`: None for an agent without the tool `delegate`; `tell` the model of them."""
        self._commands = commands
        self._roots = roots
        self._delegations = delegations
        self.spec = spec_of("exec", _WHAT + (_DELEGATES if delegations and tell else ""), ExecArguments)

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: ExecArguments = decode_arguments(ExecArguments, arguments, "exec")
        if "\0" in asked.command:
            raise ToolError("a command line cannot hold a NUL character")
        if asked.timeout_seconds is not None and asked.timeout_seconds <= 0:
            raise ToolError("timeout_seconds must be more than nothing")
        table = self._commands.table
        longest = parse_duration(table.timeout)
        timeout = min(longest, asked.timeout_seconds or longest)
        channel = self._channel(context)
        try:
            command = await self._start(asked, context.run.run_id, timeout, channel)
        except BaseException:
            if channel is not None:
                channel.close()
            raise
        if asked.background:
            command.alone = True
            return f"started as {command.name}; look after it with process"
        try:
            ended = await _attend(command, channel, parse_duration(table.background_after))
        except asyncio.CancelledError:
            await self._commands.stop(command, "its run was cancelled")
            raise
        if not ended:
            command.alone = True
            return f"{_output(command)}[{command.state()}; it goes on as {command.name}: see process]"
        if problem := command.outcome.get("error"):
            raise ToolError(f"the command was not started: {problem}")
        return f"{_output(command)}[{command.state()}]"

    def _channel(self, context: ToolContext) -> Channel | None:
        if self._delegations is None:
            return None
        try:
            return self._delegations.open(context)
        except OSError as error:
            raise ToolError(f"no command can be started: {error.strerror or error}") from None

    async def _start(self, asked: ExecArguments, run_id: str, timeout: float, channel: Channel | None) -> Command:
        place = self._roots.find(asked.cwd)
        with self._roots.folder(place) as folder:
            return await self._commands.start(
                asked.command, run_id, timeout, folder=folder, stdin=asked.background, channel=channel
            )


async def _attend(command: Command, channel: Channel | None, seconds: float) -> bool:
    """Wait for its end, at most `seconds`; whether it has ended."""
    if channel is not None:
        return await channel.attend(command.done, seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await command.done.wait()
    return command.done.is_set()


class ManageProcesses(BaseTool):
    """Looks after commands in the background."""

    spec = spec_of("process", "Commands that run in the background: list, poll, write to one, kill.", ProcessArguments)
    replay = Replay.NEVER

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def subject(self, arguments: dict[str, Any]) -> str:
        return f"{arguments.get('action', '')} {arguments.get('id', '')}".strip()

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: ProcessArguments = decode_arguments(ProcessArguments, arguments, "process")
        if asked.action == "list":
            known = self._commands.known()
            return "\n".join(f"{c.name}  {c.state()}  {c.line[:200]}" for c in known) or "[no commands]"
        command = self._commands.get(asked.id)
        if asked.action == "write":
            return await self._write(command, asked)
        if asked.action == "kill":
            await self._commands.stop(command, "it was killed")
        elif asked.wait_seconds and command.running:
            command.alone = False
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(asked.wait_seconds):
                        await command.done.wait()
            finally:
                command.alone = True
        return f"{_output(command)}[{command.name}: {command.state()}]"

    async def _write(self, command: Command, asked: ProcessArguments) -> str:
        stdin = command.process.stdin if command.process is not None else None
        if stdin is None:
            raise ToolError(f"{command.name} has no input: start it with `background`")
        if not command.running or stdin.is_closing():
            raise ToolError(f"{command.name} reads no more: {command.state()}")
        try:
            stdin.write(asked.text.encode("utf-8", "replace"))
            async with asyncio.timeout(10):
                await stdin.drain()
        except TimeoutError:
            raise ToolError(f"{command.name} does not read its input") from None
        except OSError as error:
            raise ToolError(f"{command.name} reads no more: {error.strerror or error}") from None
        if asked.close:
            stdin.close()
        return f"written to {command.name}{'; its input is closed' if asked.close else ''}"


def _output(command: Command) -> str:
    text = command.take()
    return f"{text}\n" if text else ""
