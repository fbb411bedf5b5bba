"""The tools of one agent, as its instance.toml allows them."""

from __future__ import annotations

from collections.abc import Callable

from gateway.agent.children import OwnRuns
from gateway.agent.memory import Memory
from gateway.agent.peers import Peers
from gateway.agent.permissions import Permissions
from gateway.agent.projectlog import ProjectLog
from gateway.agent.schedule import Scheduler
from gateway.agent.tool import Tool
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.tools.delegate import Delegate
from gateway.tools.files import ReadFile, Roots
from gateway.tools.log import WriteProjectLog
from gateway.tools.memory import MemorySearch, MemoryWrite
from gateway.tools.schedule import ScheduleTool
from gateway.tools.sessions import SessionsHistory, SessionsList, SessionsSend, SessionsSpawn
from gateway.tools.status import ShowStatus
from protocols.status import AgentStatus
from runtime.config import Instance
from runtime.home import Home

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
    scheduler: Scheduler,
    own_runs: OwnRuns,
    reader: Reader,
    status: Callable[[], AgentStatus],
) -> dict[str, Tool]:
    """Name -> tool, in a fixed order (so that a provider's prompt cache holds)."""
    every: list[Tool] = [
        MemorySearch(memory),
        MemoryWrite(memory),
        ReadFile(Roots(config.workspace, home.shared)),
        Delegate(peers, ledger),
        WriteProjectLog(project_log, agent),
        ScheduleTool(scheduler, reader, agent),
        SessionsList(reader),
        SessionsHistory(reader, own_runs),
        SessionsSend(own_runs),
        SessionsSpawn(own_runs),
        ShowStatus(status),
    ]
    table = config.file.tools
    permissions = Permissions([*ALWAYS, *table.allow], table.ask, table.deny)
    return {tool.spec.name: tool for tool in every if permissions.has(tool.spec.name)}
