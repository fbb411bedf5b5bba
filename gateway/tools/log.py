"""project_log: one line for everybody."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from gateway.agent.projectlog import ProjectLog
from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of


class LogArguments(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=600, description="What was done or decided, in a line")]


class WriteProjectLog(BaseTool):
    """Appends one line to the shared project log, once however often the call is replayed."""

    spec = spec_of("project_log", "Add one line to the project log that all agents and people read.", LogArguments)
    replay = Replay.KEYED

    def __init__(self, log: ProjectLog, agent: str) -> None:
        self._log = log
        self._agent = agent

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: LogArguments = decode_arguments(LogArguments, arguments, "project_log")
        try:
            await asyncio.to_thread(self._log.append, context.key, self._agent, asked.text)
        except OSError as error:
            raise ToolError(f"the project log cannot be written: {error.strerror or error}") from None
        return "written to shared/project_log.md"
