"""Carrying out a run: its turn is built from what ledger, workspace and configuration say at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from gateway.agent.approvals import Approvals
from gateway.agent.budget import Budget
from gateway.agent.calling import Caller
from gateway.agent.children import OwnRuns
from gateway.agent.compaction import Compactor
from gateway.agent.permissions import Permissions
from gateway.agent.prompt import PromptBuilder
from gateway.agent.sessions import decode_blocks
from gateway.agent.tool import Tool
from gateway.agent.turn import Turn, TurnLimits
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun
from gateway.models.models import Models
from gateway.models.provider import Block, Request
from protocols.runs import one_line
from runtime.config import InstanceFile

Park = Callable[[str], AbstractAsyncContextManager[None]]


MOST_CONTEXT = 200_000
"""Tokens of a conversation where `[model] context_tokens` says nothing: the largest windows are dear to fill."""


class Work:
    """Works on the runs of one agent: `await work(run, park)` is the answer's text."""

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        models: Models,
        budget: Budget,
        prompt: PromptBuilder,
        approvals: Approvals,
        own_runs: OwnRuns,
        *,
        config: Callable[[], InstanceFile],
        tools: Callable[[], Mapping[str, Tool]],
        permissions: Callable[[], Permissions],
        redact: Callable[[str], str],
        on_change: Callable[[str], None],
        on_delta: Callable[[str, str, bool], None],
    ) -> None:
        """Configuration, tools and permissions are asked for when a run begins, so that a reload holds from then."""
        self._ledger = ledger
        self._reader = reader
        self._models = models
        self._budget = budget
        self._prompt = prompt
        self._approvals = approvals
        self._own_runs = own_runs
        self._config = config
        self._tools = tools
        self._permissions = permissions
        self._redact = redact
        self._on_change = on_change
        self._on_delta = on_delta
        self._compactor = Compactor(
            ledger,
            reader,
            budget.for_side_calls(),
            window=self._window,
            checkpoint=self._checkpoint,
            memory=lambda: self._tools().get("memory_write"),
        )

    async def __call__(self, run: ClaimedRun, park: Park) -> str:
        """A turn from where the ledger says it stands."""
        config, tools = self._config(), self._tools()
        caller = self._caller(run, tools, park, config.limits.max_steps)
        await caller.mend()
        turn = Turn(
            run,
            self._compactor.load(run),
            prompt=self._prompt.build(run),
            request=Request(
                model="",
                stable="",
                volatile="",
                messages=[],
                tools=[tool.spec for tool in tools.values()],
                max_output_tokens=config.model.max_output_tokens,
                thinking=run.options.thinking or config.model.thinking,
            ),
            limits=TurnLimits(max_steps=config.limits.max_steps, max_cost_usd=config.limits.max_cost_usd),
            cost_so_far=self._reader.run_cost(run.run_id),
            models=self._budget.for_run(run, park),
            caller=caller,
            ledger=self._ledger,
            compactor=self._compactor,
            collect=lambda: self._collect(run),
            before_end=lambda: self._before_end(run),
            on_delta=lambda text, reset: self._on_delta(run.run_id, text, reset),
        )
        last = await turn.run()
        # What it answered before people said more was seen while it was written, and would be gone with its draft.
        return "\n\n".join([*self._reader.conversations.answered(run.run_id), last])

    def _caller(self, run: ClaimedRun, tools: Mapping[str, Tool], park: Park, max_steps: int) -> Caller:
        return Caller(
            run,
            tools,
            self._ledger,
            permissions=self._permissions(),
            approvals=self._approvals,
            journalled=self._reader.tool_steps(run.run_id),
            answers=self._reader.answer_count(run.run_id),
            steps_done=self._reader.step_count(run.run_id),
            max_steps=max_steps,
            park=park,
            redact=self._redact,
        )

    async def _collect(self, run: ClaimedRun) -> list[list[Block]]:
        """What people said in this session since; with `[limits] steer = "queue"` it waits for its own run."""
        if self._config().limits.steer == "queue" or not self._reader.has_to_collect(run):
            return []
        said = await self._ledger.steps.collect(run)
        for merged in self._reader.merged(run.run_id):
            self._on_change(merged.run_id)
        return [decode_blocks(content) for content in said]

    async def _before_end(self, run: ClaimedRun) -> str | None:
        """What the model must still hear before it may finish."""
        return self._own_runs.before_end(run)

    def _window(self) -> int | None:
        """Tokens a conversation may have; None offline, where no model reads it."""
        if self._models.offline:
            return None
        window = self._models.context_window()
        return min(self._config().model.context_tokens or MOST_CONTEXT, window)

    def _checkpoint(self, run: ClaimedRun) -> str:
        """What a summary must not forget, from the ledger: the task, open runs, the route, pinned facts."""
        route, pinned = self._reader.conversations.session_facts(run.session_key)
        children = self._reader.children(run.run_id)
        lines = [f"- this run: {run.run_id}, given by {run.caller}: {one_line(run.message, 300)}"]
        lines += [f"- delegated: {c.run_id} to {c.agent}, {c.state}: {c.task}" for c in children]
        lines += [f"- open: {r.run_id}, {r.state.value}: {r.task}" for r in self._reader.current()]
        lines += [f"- answers go to {route}"] if route else []
        lines += [f"- pinned: {fact}" for fact in pinned]
        return "\n".join(lines)
