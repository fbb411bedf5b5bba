"""Carrying out tool calls: allowed or asked about, journalled, side by side where that is safe, never in a loop."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from gateway.agent.approvals import Approvals
from gateway.agent.permissions import Decision, Permissions
from gateway.agent.sessions import INTERRUPTED, encode_blocks
from gateway.agent.tool import MAX_OUTPUT, Replay, Tool, ToolContext, ToolError
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import ClaimedRun, StoredStep
from gateway.models.provider import Block, Message, ToolCall, ToolResult
from protocols.errors import AtomizerError
from protocols.text import whole

REPEATS_TOLD = 3
REPEATS_ENDED = 6
"""The same call with the same result so often in one run: the model is told; then the run ends."""
STEPS_KEPT = 2
"""Of a run's steps, calls that are made by calls leave so many, for the model to answer with."""


class LimitReached(AtomizerError):
    """The run used up what it may; the message says what."""


class Caller:
    """Carries out the tool calls of one run."""

    def __init__(
        self,
        run: ClaimedRun,
        tools: Mapping[str, Tool],
        ledger: Ledger,
        *,
        permissions: Permissions,
        approvals: Approvals,
        journalled: dict[str, StoredStep],
        answers: int,
        steps_done: int,
        max_steps: int,
        park: Callable[[str], AbstractAsyncContextManager[None]],
        redact: Callable[[str], str],
    ) -> None:
        """`journalled`: the run's tool steps by call key; `answers`: model answers of the run so far."""
        self._run = run
        self._tools = tools
        self._ledger = ledger
        self._permissions = permissions
        self._approvals = approvals
        self._journalled = journalled
        self._answers = answers
        self._steps = steps_done
        self._max_steps = max_steps
        self._park = park
        self._redact = redact

    def answered(self) -> None:
        """The model has answered once more."""
        self._answers += 1
        self._steps += 1

    @property
    def steps_left(self) -> int:
        return self._max_steps - self._steps

    def check_steps(self, most: int) -> None:
        if self._steps >= most:
            raise LimitReached(f"the run used its {most} steps without an answer ([limits] max_steps)")

    async def call(self, calls: Sequence[ToolCall], messages: Sequence[Message]) -> Message:
        """The message of results, written. Calls that may run beside each other do; the others run alone, in order."""
        results: dict[int, ToolResult] = {}
        group: list[int] = []
        repeats = _repeats(messages)
        for position, call in enumerate(calls):
            tool = self._tools.get(call.name)
            if tool is not None and tool.parallel and self._allowed(tool, call):
                group.append(position)
                continue
            await self._together(calls, group, results, repeats)
            results[position] = await self._one(call, position, repeats)
        await self._together(calls, group, results, repeats)
        content: list[Block] = [results[position] for position in range(len(calls))]
        await self._ledger.steps.add_user_message(self._run, encode_blocks(content))
        return Message(role="user", content=content)

    async def _together(
        self, calls: Sequence[ToolCall], group: list[int], results: dict[int, ToolResult], repeats: dict[str, int]
    ) -> None:
        if len(group) == 1:
            results[group[0]] = await self._one(calls[group[0]], group[0], repeats)
        elif group:
            try:
                async with asyncio.TaskGroup() as tasks:
                    made = {p: tasks.create_task(self._one(calls[p], p, repeats)) for p in group}
            except ExceptionGroup as errors:  # the first ended the others; it says why the run ends
                raise errors.exceptions[0] from None
            results.update({p: task.result() for p, task in made.items()})
        group.clear()

    async def _one(self, call: ToolCall, position: int, repeats: dict[str, int]) -> ToolResult:
        """One call, journalled before and after. What a former life of the process has done is not done again."""
        key = f"{self._answers}.{position}"
        stored = self._journalled.get(key)
        if stored is not None and stored.state != "started":
            return _result(call, stored.output, stored.is_error)
        if stored is None:
            self.check_steps(self._max_steps)
            self._steps += 1
            arguments = msgspec.json.encode(call.arguments)
            refusal = self._loop(call, repeats) or await self._permit(call, key)
            if refusal is not None:
                await self._ledger.steps.refuse_tool(self._run, key, call.name, arguments, refusal)
                return _result(call, refusal, is_error=True)
            index = await self._ledger.steps.start_tool(self._run, key, call.name, arguments)
        else:
            index = stored.index
        output, state = await self._carry_out(self._tools.get(call.name), call, key, resumed=stored is not None)
        await self._ledger.steps.finish_tool(self._run, index, output, state=state, is_error=state != "done")
        return _result(call, output, state != "done")

    async def below(self, key: str, tool: Tool, arguments: dict[str, Any], number: int) -> str:
        """The `number`th call that the call `key` makes: its result, once it is written. Raises ToolError.

        It is permitted, counted and journalled like a model's own call. `tool` may be another with the name and the
        arguments of one that the agent has; after a crash the agent's own is called in its place (see `mend`).
        """
        call = ToolCall(id=f"{key}/{number}", name=tool.spec.name, arguments=arguments)
        verdict = self._permissions.decide(call.name, tool.subject(arguments))
        if call.name not in self._tools or verdict.decision is Decision.DENY:
            raise ToolError(f"not permitted ({verdict.rule})", "not_permitted")
        if verdict.decision is Decision.ASK:
            why = f"a person is asked first ({verdict.rule}), which only the model's own call of `{call.name}` can do"
            raise ToolError(why, "not_permitted")
        if self.steps_left <= STEPS_KEPT:
            raise ToolError(
                f"the run has used its steps; the last {STEPS_KEPT} are for its answer ([limits] max_steps)", "limit"
            )
        self._steps += 1
        index = await self._ledger.steps.start_tool(self._run, call.id, call.name, msgspec.json.encode(arguments))
        output, state = await self._carry_out(tool, call, call.id, resumed=False)
        await self._ledger.steps.finish_tool(self._run, index, output, state=state, is_error=state != "done")
        if state != "done":
            raise ToolError(output)
        return output

    async def mend(self) -> None:
        """After a crash: finish the calls that calls had begun to make, as their tools allow."""
        for key, step in self._journalled.items():
            if "/" in key and step.state == "started":
                call = ToolCall(id=key, name=step.name, arguments=msgspec.json.decode(step.input))
                output, state = await self._carry_out(self._tools.get(step.name), call, key, resumed=True)
                bad = state != "done"
                await self._ledger.steps.finish_tool(self._run, step.index, output, state=state, is_error=bad)
                self._journalled[key] = msgspec.structs.replace(step, state=state, output=output, is_error=bad)

    def _interrupted(self, key: str) -> tuple[str, str]:
        """What is said of a call that may have had effects, with the calls it is known to have made."""
        made = [step for other, step in self._journalled.items() if other.startswith(f"{key}/")]
        lines = [f"- {step.name} {step.input[:300]}: {step.output[:300]}" for step in made]
        return "\n".join([INTERRUPTED, *(["Before that it had called:"] if made else []), *lines]), "interrupted"

    async def _carry_out(self, tool: Tool | None, call: ToolCall, key: str, *, resumed: bool) -> tuple[str, str]:
        """(result, the step's state). A call that a crash cut short is replayed as its tool allows."""
        if tool is None and resumed:
            return self._interrupted(key)  # of a server that is not back yet: it may have had effects
        if tool is None:
            return f"there is no tool {call.name!r}; there are: {', '.join(self._tools) or 'none'}", "failed"
        if resumed and tool.replay is Replay.NEVER:
            return self._interrupted(key)
        below = functools.partial(self.below, key)
        context = ToolContext(self._run, f"{self._run.run_id}/{key}", self._park, below)
        try:
            output = self._redact(whole(await tool.call(context, call.arguments)))
        except ToolError as error:
            return self._redact(whole(str(error))), "failed"
        if len(output) > MAX_OUTPUT:
            output = f"{output[:MAX_OUTPUT]}\n[cut: {len(output) - MAX_OUTPUT} more characters]"
        return output, "done"

    def _allowed(self, tool: Tool, call: ToolCall) -> bool:
        subject = tool.subject(call.arguments)
        return self._permissions.decide(call.name, subject).decision is Decision.ALLOW

    async def _permit(self, call: ToolCall, key: str) -> str | None:
        """None if the call may be made; else why not. A question to a person is waited for, without a place."""
        tool = self._tools.get(call.name)
        if tool is None:
            return None
        shown = self._redact(_readable(call.arguments))
        subject = self._redact(tool.subject(call.arguments)) or shown
        verdict = self._permissions.decide(call.name, tool.subject(call.arguments))
        if verdict.decision is Decision.ALLOW:
            return None
        if verdict.decision is Decision.DENY:
            return f"not permitted ({verdict.rule}); do it another way or say that you cannot"
        asked = await self._approvals.ask(
            self._run, f"{self._run.run_id}/{key}", call.name, subject, verdict.rule, shown
        )
        if asked.state == "pending":
            async with self._park(f"approval {asked.id}: {asked.question}"):
                asked = await self._approvals.wait(asked.id)
        if asked.state == "approved":
            return None
        who = f" by {asked.answered_by}" if asked.answered_by else ""
        return f"a person was asked and it was {asked.state}{who}{f': {asked.reason}' if asked.reason else ''}"

    def _loop(self, call: ToolCall, repeats: dict[str, int]) -> str | None:
        """Refuse a call that was made before, again and again, with the same result."""
        count = repeats.get(_signature(call), 0)
        if count >= REPEATS_ENDED:
            raise LimitReached(f"a loop: {call.name} was called {count} times with the same arguments and result")
        if count >= REPEATS_TOLD:
            return f"you have made this call {count} times with the same result; do something else or finish"
        return None


def _readable(arguments: dict[str, object]) -> str:
    """A call's arguments as a person reads them: a line each, texts as they are."""
    lines = []
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"{name}:\n{text}" if "\n" in text else f"{name}: {text}")
    return "\n".join(lines)


def _signature(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"


def _repeats(messages: Sequence[Message]) -> dict[str, int]:
    """How often in a row, at the conversation's end, each call came back with what it had brought before."""
    made: dict[str, ToolCall] = {}
    last: dict[str, str] = {}
    counts: dict[str, int] = {}
    for message in messages:
        for block in message.content:
            if isinstance(block, ToolCall):
                made[block.id] = block
            elif isinstance(block, ToolResult) and block.id in made:
                signature = _signature(made[block.id])
                same = last.get(signature) == block.content or counts.get(signature, 0) >= REPEATS_TOLD
                counts[signature] = counts.get(signature, 0) + 1 if same else 1
                last[signature] = block.content
        if message.role == "user" and message.text:
            counts.clear()
    return counts


def _result(call: ToolCall, output: str, is_error: bool) -> ToolResult:
    return ToolResult(id=call.id, name=call.name, content=output, is_error=is_error)
