"""status: how this agent stands, for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, decode_arguments, spec_of
from protocols.status import AgentStatus


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    pass


class ShowStatus(BaseTool):
    """Tells the agent's own model, queue, heartbeat and spending."""

    spec = spec_of("status", "Your own state: model, queue, heartbeat, spending today.", NoArguments)
    replay = Replay.SAFE
    parallel = True

    def __init__(self, status: Callable[[], AgentStatus]) -> None:
        self._status = status

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        decode_arguments(NoArguments, arguments, "status")
        s = self._status()
        tokens = s.usage_today.input_tokens + s.usage_today.output_tokens
        cost = "unknown" if s.cost_today_usd is None else f"${s.cost_today_usd:.2f}"
        return "\n".join(
            (
                f"{s.title} ({s.agent}) on port {s.port}: {s.state}, version {s.version}",
                f"model {s.model.active} ({s.model.origin}), configured {s.model.configured}",
                f"queue: {s.queue.queued} queued, {s.queue.running} running, {s.queue.waiting} waiting",
                f"heartbeat: {s.heartbeat.state}, last: {s.heartbeat.last_outcome or 'none yet'}",
                f"today: {s.runs_today} runs, {tokens} tokens, {cost}",
                f"failing: {'; '.join(s.failing) or 'nothing'}",
            )
        )
