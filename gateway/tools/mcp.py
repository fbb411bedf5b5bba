"""The tools of MCP servers, as tools of the agent: `mcp__SERVER__TOOL`, each allowed by its server's table."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError
from gateway.mcp.server import McpFailed, McpServer, McpToolSpec
from gateway.models.outside import as_data, cut
from gateway.models.provider import ToolSpec
from gateway.tools.web import refuse_secrets

log = logging.getLogger("mcp")

MAX_NAME = 64
"""Characters of a tool's name that every provider takes."""
MAX_DESCRIPTION = 2000
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


class McpTool(BaseTool):
    """One tool of one server. What it does is not known to us, so a call that a crash cut short is never repeated."""

    replay = Replay.NEVER

    def __init__(self, name: str, server: McpServer, described: McpToolSpec, redact: Callable[[str], str]) -> None:
        self.spec = ToolSpec(
            name=name,
            description=f"[{server.name}] {described.description}"[:MAX_DESCRIPTION],
            parameters=described.schema,
        )
        self._server = server
        self._tool = described.name
        self._redact = redact

    def subject(self, arguments: dict[str, Any]) -> str:
        return msgspec.json.encode(arguments).decode()

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        refuse_secrets(self.subject(arguments), "the call", self._redact)
        source = f"the MCP server {self._server.name}"
        try:
            text = await self._server.call(self._tool, arguments)
        except McpFailed as error:
            raise ToolError(f"{error}:\n{as_data(error.said, source)}" if error.said else str(error)) from None
        return as_data(cut(text), source)


def mcp_tools(servers: Iterable[McpServer], redact: Callable[[str], str]) -> list[McpTool]:
    """The allowed tools of all servers, in a fixed order."""
    found: dict[str, McpTool] = {}
    for server in servers:
        for described in sorted(server.tools, key=lambda tool: tool.name):
            if not any(fnmatchcase(described.name, pattern) for pattern in server.table.allow):
                continue
            name = tool_name(server.name, described.name)
            if name in found:
                log.warning("%s: the tool %r is left out: another has the same name", server.name, described.name)
                continue
            found[name] = McpTool(name, server, described, redact)
    return list(found.values())


def tool_name(server: str, tool: str) -> str:
    """`mcp__SERVER__TOOL` in the characters and the length that providers take."""
    name = f"mcp__{server}__{_OTHER.sub('_', tool)}"
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - 7]}_{hashlib.sha256(tool.encode()).hexdigest()[:6]}"
    return name
