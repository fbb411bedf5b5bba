"""One turn: the loop between model and tools, every step written before the next depends on it.

    run() -> step() -> step() -> ... -> Finished

A step either carries out the tool calls of the last answer or asks the model. Where the turn stands is read from the
messages alone, so a turn that is built again after a crash goes on exactly where the ledger ends.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from gateway.agent.prompt import Prompt
from gateway.agent.sessions import INTERRUPTED, encode_blocks
from gateway.agent.tool import MAX_OUTPUT, Replay, Tool, ToolContext, ToolError
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import ClaimedRun, StoredStep
from gateway.models.provider import Answer, Block, Message, Request, Reset, TextDelta, ToolCall, ToolResult
from protocols.errors import AtomizerError

DELTA_SECONDS = 0.1
"""Streamed text is published at most so often."""


class Finished(Exception):
    """The model has answered and asks for nothing more."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class LimitReached(AtomizerError):
    """The run used up what it may; the message says what."""


class ModelStream(Protocol):
    """The models, as a turn sees them."""

    def stream(self, request: Request, *, model: str | None = None) -> AsyncIterator[TextDelta | Reset | Answer]: ...


class Turn:
    """One run's conversation with its model."""

    def __init__(
        self,
        run: ClaimedRun,
        messages: list[Message],
        *,
        prompt: Prompt,
        request: Request,
        journalled: dict[str, StoredStep],
        steps_done: int,
        max_steps: int,
        models: ModelStream,
        tools: Mapping[str, Tool],
        ledger: Ledger,
        park: Callable[[str], AbstractAsyncContextManager[None]],
        redact: Callable[[str], str],
        on_delta: Callable[[str, bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`request` carries model settings and tool specs; `on_delta(text, reset)` previews text as it streams."""
        self._run = run
        self._messages = messages
        self._prompt = prompt
        self._request = request
        self._journalled = journalled
        self._steps = steps_done
        self._max_steps = max_steps
        self._models = models
        self._tools = tools
        self._ledger = ledger
        self._park = park
        self._redact = redact
        self._on_delta = on_delta
        self._clock = clock
        self._answers = sum(1 for m in messages if m.role == "assistant")

    async def run(self) -> str:
        """The answer's text. Raises LimitReached, ProviderError or CancelledError."""
        try:
            while True:
                await self.step()
        except Finished as end:
            return end.text

    async def step(self) -> None:
        """Go one step on; raises Finished at the end."""
        last = self._messages[-1]
        if last.tool_calls:
            await self._call_tools(last.tool_calls)
        elif last.role == "assistant":
            raise Finished(last.text)
        else:
            await self._ask()

    async def _ask(self) -> None:
        if self._steps >= self._max_steps:
            raise LimitReached(f"the run used its {self._max_steps} steps without an answer ([limits] max_steps)")
        started = self._clock()
        request = msgspec.structs.replace(
            self._request, stable=self._prompt.stable, volatile=self._prompt.volatile, messages=self._messages
        )
        answer = await self._stream(request)
        message = answer.message
        if not message.content:
            raise LimitReached(f"{answer.model} answered nothing ({answer.stop})")
        await self._ledger.save_answer(
            self._run,
            encode_blocks(message.content),
            text=message.text,
            model=answer.model,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
            started_at=started,
        )
        self._messages.append(message)
        self._steps += 1
        self._answers += 1

    async def _stream(self, request: Request) -> Answer:
        """Ask once; deltas are gathered and published a few times a second."""
        answer: Answer | None = None
        pending, reset, last = "", False, 0.0
        async for item in self._models.stream(request, model=self._run.options.model):
            if isinstance(item, TextDelta):
                pending += item.text
            elif isinstance(item, Reset):
                pending, reset = "", True
            else:
                answer = item
            now = time.monotonic()
            if (pending or reset) and now - last >= DELTA_SECONDS and answer is None:
                self._on_delta(pending, reset)
                pending, reset, last = "", False, now
        if answer is None:
            raise LimitReached("the model's stream ended without an answer")
        return answer

    async def _call_tools(self, calls: list[ToolCall]) -> None:
        """Carry out the last answer's calls in order; the last result completes the message of results."""
        results: list[Block] = []
        for position, call in enumerate(calls):
            key = f"{self._answers}.{position}"
            stored = self._journalled.get(key)
            if stored is not None and stored.state != "started":
                results.append(_result(call, stored.output, stored.is_error))
                continue
            if stored is None and self._steps >= self._max_steps:
                raise LimitReached(f"the run used its {self._max_steps} steps without an answer ([limits] max_steps)")
            arguments = msgspec.json.encode(call.arguments)
            index = (
                stored.index
                if stored is not None
                else await self._ledger.start_tool(self._run, key, call.name, arguments)
            )
            self._steps += stored is None
            output, state = await self._call(call, key, resumed=stored is not None)
            failed = state != "done"
            results.append(_result(call, output, failed))
            await self._ledger.finish_tool(
                self._run,
                index,
                output,
                state=state,
                is_error=failed,
                results=encode_blocks(results) if position == len(calls) - 1 else None,
            )
        if self._messages[-1].tool_calls:
            self._messages.append(Message(role="user", content=results))

    async def _call(self, call: ToolCall, key: str, *, resumed: bool) -> tuple[str, str]:
        """(result, the step's state) of one call. A call that a crash cut short is replayed as its tool allows."""
        tool = self._tools.get(call.name)
        if tool is None:
            return f"there is no tool {call.name!r}; there are: {', '.join(self._tools) or 'none'}", "failed"
        if resumed and tool.replay is Replay.NEVER:
            return INTERRUPTED, "interrupted"
        context = ToolContext(self._run, f"{self._run.run_id}/{key}", self._park)
        try:
            output = self._redact(await tool.call(context, call.arguments))
        except ToolError as error:
            return str(error), "failed"
        if len(output) > MAX_OUTPUT:
            output = f"{output[:MAX_OUTPUT]}\n[cut: {len(output) - MAX_OUTPUT} more characters]"
        return output, "done"


def _result(call: ToolCall, output: str, is_error: bool) -> ToolResult:
    return ToolResult(id=call.id, name=call.name, content=output, is_error=is_error)
