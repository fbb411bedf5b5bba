"""delegate: give another agent a task, and wait for its answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import msgspec

from gateway.agent.peers import Peers
from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.ledger.ledger import Ledger
from protocols.client import GatewayClient
from protocols.decoding import nearest
from protocols.errors import ProtocolError, Unreachable
from protocols.hooks import MAX_DEPTH, AgentAccepted, AgentHook
from protocols.runs import ChildRun, Run, RunState, one_line

log = logging.getLogger("delegate")

WAIT_SECONDS = 20.0
"""One long poll for the child's end."""
UNREACHABLE_SECONDS = 120.0
"""A receiver that does not answer is tried again for so long."""


class DelegateArguments(msgspec.Struct, forbid_unknown_fields=True):
    agent: Annotated[str, msgspec.Meta(description="Who is to do it, for example webster")]
    task: Annotated[str, msgspec.Meta(min_length=1, max_length=100_000, description="What to do, complete in itself")]
    wait: Annotated[bool, msgspec.Meta(description="Wait for the answer (else it is reported later)")] = True
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86400, description="Longest to wait")] = 1800


class Delegate(BaseTool):
    """Gives a run to another agent. Replayed with the same key, so a crash never delegates twice."""

    spec = spec_of(
        "delegate",
        "Give another agent a task. With wait (the default) the result is its answer; without, its run id.",
        DelegateArguments,
    )
    replay = Replay.KEYED
    parallel = True
    subject_field = "agent"

    def __init__(self, peers: Peers, ledger: Ledger) -> None:
        self._peers = peers
        self._ledger = ledger
        self._attempts: set[asyncio.Task[str]] = set()

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: DelegateArguments = decode_arguments(DelegateArguments, arguments, "delegate")
        run_id = await self.give(context, asked, time.time() + asked.timeout_seconds if asked.wait else None)
        if not asked.wait:
            return accepted(asked.agent, run_id)
        async with context.park(f"{asked.agent} works on {run_id}"):
            child = await self.wait_for(asked.agent, run_id, asked.timeout_seconds)
        if child.state is not RunState.SUCCEEDED:
            raise ToolError(f"{asked.agent}'s run {run_id} {child.state.value}: {child.reason or 'no reason given'}")
        return f"{asked.agent} answered ({run_id}):\n{child.text}"

    async def give(self, context: ToolContext, asked: DelegateArguments, deadline: float | None) -> str:
        """Hand the task over, once for the context's key; the id of its run, which is now among the run's children.

        `deadline`: unix seconds that somebody waits for it, or None; the run's own holds in any case. Raises ToolError.
        """
        client = self._client(asked.agent, context)
        hook = AgentHook(
            message=asked.task,
            name=f"delegation from {context.run.run_id}",
            idempotency_key=context.key,
            parent_run_id=context.run.run_id,
            depth=context.run.depth + 1,
            deadline=min(filter(None, (deadline, context.run.deadline)), default=None),
            deliver=False,
        )
        run_id = await self._hand_over(
            context, client, asked.agent, lambda: client.delegate(hook), one_line(asked.task), deadline is not None
        )
        log.info("delegated to %s: %s", asked.agent, run_id)
        return run_id

    async def wait_for(self, agent: str, run_id: str, seconds: float) -> Run:
        """The run that was given to `agent`, once it has ended; raises ToolError if it has not within `seconds`."""
        return await self._await_end(self._peer(agent), agent, run_id, seconds)

    async def look(self, agent: str, run_id: str) -> Run:
        """The run that was given to `agent`, as it stands; raises ToolError."""
        try:
            return await self._peer(agent).run(run_id)
        except ProtocolError as error:
            raise ToolError(f"{agent} refused it: {error.message}", error.code) from None
        except Unreachable as error:
            raise ToolError(f"{agent} cannot be reached: {error}", "unreachable") from None

    def _client(self, agent: str, context: ToolContext) -> GatewayClient:
        if context.run.depth + 1 > MAX_DEPTH:
            raise ToolError(
                f"this task was already passed on {context.run.depth} times; {MAX_DEPTH} is the limit", "too_deep"
            )
        return self._peer(agent)

    def _peer(self, agent: str) -> GatewayClient:
        try:
            return self._peers.client(agent)
        except KeyError:
            close = nearest(agent, self._peers.known())
            hint = f"did you mean {close}?" if close else f"there are: {', '.join(self._peers.known())}"
            raise ToolError(f"there is no agent {agent!r}; {hint}", "no_such_agent") from None

    async def _hand_over(
        self,
        context: ToolContext,
        client: GatewayClient,
        agent: str,
        send: Callable[[], Awaitable[AgentAccepted]],
        task: str,
        awaited: bool,
    ) -> str:
        """Hand the task over with `send`; a receiver that is just restarting is tried again. Its run's id.

        It is written as a child then, called `task` in one line.
        """

        async def attempt() -> str:
            run_id = (await send()).run_id
            child = ChildRun(run_id=run_id, agent=agent, task=task, state=RunState.QUEUED.value)
            if await self._ledger.add_child(context.run.run_id, child, awaited=awaited):
                log.info("%s has ended: %s on %s is cancelled", context.run.run_id, run_id, agent)
                await client.cancel(run_id)
            return run_id

        until = time.monotonic() + UNREACHABLE_SECONDS
        pause = 0.2
        while True:
            try:
                return await self._see_through(attempt())
            except ProtocolError as error:
                if error.status not in (503, 507, 429):
                    raise ToolError(f"{agent} refused it: {error.message}", error.code) from None
                problem: Exception = error
            except Unreachable as error:
                problem = error
            if time.monotonic() >= until:
                raise ToolError(f"{agent} cannot be reached: {problem}", "unreachable") from None
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _see_through(self, attempt: Coroutine[Any, Any, str]) -> str:
        """Its result; if our run ends meanwhile, it goes on: what a receiver accepts must be known, and cancelled."""
        task = asyncio.create_task(attempt)
        self._attempts.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[str]) -> None:
        self._attempts.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("not handed over: %s", error)

    async def _await_end(self, client: GatewayClient, agent: str, run_id: str, seconds: float) -> Run:
        """Wait for the child's end, over restarts of its gateway."""
        until = time.monotonic() + seconds
        pause = 0.2
        while True:
            try:
                run = await client.run(run_id, wait=max(0.0, min(WAIT_SECONDS, until - time.monotonic())))
                pause = 0.2
                if run.state.ended:
                    await self._ledger.update_child(run_id, agent, run.state.value, run.text, run.reason or None)
                    return run
            except (ProtocolError, Unreachable) as error:
                if isinstance(error, ProtocolError) and error.status in (403, 404):
                    raise ToolError(f"{agent} no longer knows {run_id}: {error.message}", error.code) from None
                log.warning("waiting for %s on %s: %s", run_id, agent, error)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
            if time.monotonic() >= until:
                why = f"{agent} did not finish {run_id} within {seconds:.0f} s; it was left running"
                raise ToolError(why, "timeout")


def accepted(agent: str, run_id: str) -> str:
    """What is said of a delegation that nobody waits for."""
    return f"{agent} accepted it as {run_id}; the outcome will be among this run's children"
