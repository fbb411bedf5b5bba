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
from gateway.agent.tool import Tool
from gateway.channels.outbox import Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.tools.commands import Commands
from gateway.tools.delegate import Delegate
from gateway.tools.editing import EditFile, WriteFile
from gateway.tools.files import ListFiles, ReadFile, SearchFiles
from gateway.tools.log import WriteProjectLog
from gateway.tools.memory import MemorySearch, MemoryWrite
from gateway.tools.roots import Roots
from gateway.tools.message import MessageTool
from gateway.tools.request import RequestDelegation
from gateway.tools.schedule import ScheduleTool
from gateway.tools.sessions import SessionsHistory, SessionsList, SessionsSend, SessionsSpawn
from gateway.tools.shell import Exec, ManageProcesses
from gateway.tools.status import ShowStatus
from protocols.status import AgentStatus
from runtime.config import Instance
from runtime.home import Home

log = logging.getLogger("tools")

ALWAYS = ("status",)
"""Tools that need no permission: they show the agent itself."""


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
    scheduler: Scheduler,
    own_runs: OwnRuns,
    outbox: Outbox,
    redact: Callable[[str], str],
    reader: Reader,
    status: Callable[[], AgentStatus],
) -> dict[str, Tool]:
    """Name -> tool, in a fixed order (so that a provider's prompt cache holds)."""
    roots = Roots(config.workspace, home.shared, agent)
    every: list[Tool] = [
        MemorySearch(memory),
        MemoryWrite(memory),
        *(kind(roots) for kind in (ReadFile, ListFiles, SearchFiles, WriteFile, EditFile)),
        Exec(commands, roots),
        ManageProcesses(commands),
        Delegate(peers, ledger),
        WriteProjectLog(project_log, agent),
        ScheduleTool(scheduler, reader, agent),
        SessionsList(reader),
        SessionsHistory(reader, own_runs),
        SessionsSend(own_runs),
        SessionsSpawn(own_runs),
        MessageTool(ledger, reader, outbox, redact),
        RequestDelegation(peers, ledger),
        ShowStatus(status),
    ]
    table = config.file.tools
    permissions = Permissions([*ALWAYS, *table.allow], table.ask, table.deny)
    tools = {tool.spec.name: tool for tool in every if permissions.has(tool.spec.name)}
    if "exec" in tools and (problem := commands.sandbox.problem()):
        log.error("no exec: %s", problem)
        del tools["exec"]
    return tools
