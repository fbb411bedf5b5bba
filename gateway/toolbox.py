"""The tools of one agent, as its instance.toml allows them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.agent.children import OwnRuns
from gateway.agent.memory import Memory
from gateway.agent.peers import Peers
from gateway.agent.permissions import Permissions
from gateway.agent.projectlog import ProjectLog
from gateway.agent.schedule import Scheduler
from gateway.agent.skills import Skills
from gateway.agent.tool import Tool
from gateway.channels.outbox import Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.mcp.servers import McpServers
from gateway.tools.commands import Commands
from gateway.tools.delegate import Delegate
from gateway.tools.editing import EditFile, WriteFile
from gateway.tools.files import ListFiles, ReadFile, SearchFiles
from gateway.tools.log import WriteProjectLog
from gateway.tools.mcp import mcp_tools
from gateway.tools.memory import MemorySearch, MemoryWrite
from gateway.tools.message import MessageTool
from gateway.tools.request import RequestDelegation
from gateway.tools.roots import Roots
from gateway.tools.schedule import ScheduleTool
from gateway.tools.sessions import SessionsHistory, SessionsList, SessionsSend, SessionsSpawn
from gateway.tools.shell import Exec, ManageProcesses
from gateway.tools.shell_delegation import ShellDelegations
from gateway.tools.skill import ReadSkill
from gateway.tools.status import ShowStatus
from gateway.tools.web import WebFetch, WebSearch
from gateway.tools.web_guard import WebGuard
from gateway.tools.web_services import Searcher
from protocols.status import AgentStatus
from runtime.config import Instance
from runtime.config_reach import WebTable
from runtime.home import Home

log = logging.getLogger("tools")


def build_tools(
    agent: str,
    config: Instance,
    home: Home,
    *,
    memory: Memory,
    peers: Peers,
    ledger: Ledger,
    project_log: ProjectLog,
    commands: Commands,
    delegations: ShellDelegations,
    scheduler: Scheduler,
    own_runs: OwnRuns,
    outbox: Outbox,
    redact: Callable[[str], str],
    reader: Reader,
    status: Callable[[], AgentStatus],
    skills: Skills,
    web: WebTable,
    search_key: Callable[[], str | None],
    mcp: McpServers,
    permissions: Permissions,
) -> dict[str, Tool]:
    """Name -> tool, in a fixed order (so that a provider's prompt cache holds)."""
    roots = Roots(config.workspace, home.shared, agent, home.run / "locks")
    every: list[Tool] = [
        MemorySearch(memory),
        MemoryWrite(memory, ledger),
        *(kind(roots) for kind in (ReadFile, ListFiles, SearchFiles, WriteFile, EditFile)),
        Exec(commands, roots, delegations if permissions.has("delegate") else None, tell=bool(peers.names())),
        ManageProcesses(commands),
        Delegate(peers, ledger),
        WriteProjectLog(project_log, agent),
        ScheduleTool(scheduler, reader, agent),
        SessionsList(reader),
        SessionsHistory(reader, own_runs),
        SessionsSend(own_runs),
        SessionsSpawn(own_runs),
        MessageTool(ledger, reader, outbox, roots, redact),
        RequestDelegation(peers, ledger),
        ShowStatus(status),
        ReadSkill(skills),
        WebFetch(WebGuard(web), redact=redact),
        WebSearch(Searcher(web, search_key), redact=redact),
        *mcp_tools(mcp.all(), redact),
    ]
    tools = {tool.spec.name: tool for tool in every if permissions.has(tool.spec.name)}
    if "exec" in tools and (problem := commands.sandbox.problem()):
        log.error("no exec: %s", problem)
        del tools["exec"]
    return tools
