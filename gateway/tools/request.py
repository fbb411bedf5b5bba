"""request_delegation: ask one who may delegate to have another agent do something."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec

from gateway.agent.tool import ToolContext, ToolError, decode_arguments, spec_of
from gateway.tools.delegate import Delegate
from protocols.hooks import DelegationRequest
from protocols.runs import RunState, one_line


class RequestArguments(msgspec.Struct, forbid_unknown_fields=True):
    agent: Annotated[str, msgspec.Meta(description="Who should do it, for example nx-expert")]
    task: Annotated[
        str, msgspec.Meta(min_length=1, max_length=50_000, description="One deliverable, its inputs, values with units")
    ]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=5_000, description="What it unblocks, and by when")]
    decided_by: Annotated[str | None, msgspec.Meta(description="manager (the default) or tech-lead")] = None
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86400, description="Longest to wait")] = 1800


class RequestDelegation(Delegate):
    """Asks once for its key; the run waits for the decision, without a place."""

    spec = spec_of(
        "request_delegation",
        "You may not delegate yourself: ask the manager or the tech-lead to have another agent do a task. The result is"
        " their decision, with the outcome if they granted it.",
        RequestArguments,
    )

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: RequestArguments = decode_arguments(RequestArguments, arguments, "request_delegation")
        self._client(asked.agent, context)  # an unknown agent is named with the nearest one
        if asked.agent in self._peers.names():
            raise ToolError(f"you may delegate to {asked.agent} yourself: use `delegate`")
        decider = self._decider(asked)
        client = self._client(decider, context)
        own = time.time() + asked.timeout_seconds
        request = DelegationRequest(
            agent=asked.agent,
            task=asked.task,
            reason=asked.reason,
            idempotency_key=context.key,
            parent_run_id=context.run.run_id,
            depth=context.run.depth + 1,
            deadline=min(filter(None, (own, context.run.deadline)), default=None),
        )
        task = one_line(f"request: {asked.agent}: {asked.task}")
        run_id = await self._hand_over(
            context, client, decider, lambda: client.request_delegation(request), task, awaited=True
        )
        async with context.park(f"{decider} decides on a request ({run_id})"):
            decision = await self._await_end(client, decider, run_id, asked.timeout_seconds)
        if decision.state is not RunState.SUCCEEDED:
            raise ToolError(f"{decider} did not decide ({run_id} {decision.state.value}): {decision.reason}")
        return f"{decider} decided ({run_id}):\n{decision.text}"

    def _decider(self, asked: RequestArguments) -> str:
        """Who is asked: the one named, else the one with the widest authority over the agent."""
        able = self._peers.deciders(asked.agent)
        if asked.decided_by is None:
            if not able:
                raise ToolError(f"nobody in this cluster may delegate to {asked.agent}; tell the operator")
            return able[0]
        if asked.decided_by not in able:
            raise ToolError(
                f"{asked.decided_by} may not delegate to {asked.agent}; ask {' or '.join(able) or 'nobody'}"
            )
        return asked.decided_by
