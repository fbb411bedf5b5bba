"""One turn: the loop between model and tools, every step written before the next depends on it.

    run() -> step() -> step() -> ... -> Finished

A step either carries out the tool calls of the last answer or asks the model. Where the turn stands is read from the
messages alone, so a turn that is built again after a crash goes on exactly where the ledger ends.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.agent.calling import STEPS_KEPT, Caller, LimitReached
from gateway.agent.compaction import Compactor
from gateway.agent.prompt import Prompt
from gateway.agent.sessions import encode_blocks
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import ClaimedRun, PromptUsed
from gateway.models.provider import (
    Answer,
    Block,
    ErrorKind,
    Message,
    ProviderError,
    Request,
    Reset,
    Stop,
    Text,
    TextDelta,
    whole_message,
)
from protocols.text import whole

DELTA_SECONDS = 0.1
"""Streamed text is published at most so often."""

_KEPT = 4
"""One part in so many of a run's steps, and of its money, is for what it has taken in already."""

_CUT: dict[Stop, str] = {
    "max_tokens": "the answer reached [model] max_output_tokens",
    "overflow": "the conversation filled the model's window",
}


class Finished(Exception):
    """The model has answered and asks for nothing more."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ModelStream(Protocol):
    """The models, as a turn sees them."""

    def stream(self, request: Request, *, model: str | None = None) -> AsyncIterator[TextDelta | Reset | Answer]: ...


class TurnLimits(msgspec.Struct, frozen=True):
    max_steps: int
    """Model answers and tool calls."""
    max_cost_usd: float | None = None


class Turn:
    """One run's conversation with its model."""

    def __init__(
        self,
        run: ClaimedRun,
        messages: list[Message],
        *,
        prompt: Prompt,
        request: Request,
        limits: TurnLimits,
        cost_so_far: float,
        models: ModelStream,
        caller: Caller,
        ledger: Ledger,
        compactor: Compactor,
        collect: Callable[[], Awaitable[list[list[Block]]]],
        before_end: Callable[[], Awaitable[str | None]],
        on_delta: Callable[[str, bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`request` carries model settings and tool specs.

        `collect()` takes in what people said meanwhile in this session, as long as there is room; `before_end()` is
        what the model must still hear before it may finish, if anything; `on_delta(text, reset)` previews text as it
        streams.
        """
        self._run = run
        self._messages = messages
        self._prompt = prompt
        self._request = request
        self._limits = limits
        self._cost = cost_so_far
        self._models = models
        self._caller = caller
        self._ledger = ledger
        self._compactor = compactor
        self._collect = collect
        self._before_end = before_end
        self._on_delta = on_delta
        self._previewed = False
        """An answer of this turn was previewed; the next one begins anew."""
        self._clock = clock
        self._compacted_in_vain = False

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
            self._messages.append(await self._caller.call(last.tool_calls, self._messages))
        elif last.role == "user":
            await self._take_in()
            await self._ask()
        elif not await self._take_in():
            raise Finished(last.text)

    async def _take_in(self) -> bool:
        """Add what was said meanwhile, or must be heard before the end; False if there is nothing."""
        said = await self._collect() if self._has_room() else []
        if not said and self._messages[-1].role == "assistant":
            reminder = await self._before_end()
            if reminder is not None:
                await self._ledger.steps.add_user_message(self._run, encode_blocks([Text(reminder)]))
                said = [[Text(reminder)]]
        for content in said:
            self._messages.append(Message(role="user", content=content))
        return bool(said)

    def _has_room(self) -> bool:
        """Can it take more in, and still bring to an end what it has? Else that waits for a run of its own."""
        most = self._limits.max_cost_usd
        if most is not None and self._cost > most - most / _KEPT:
            return False
        return self._caller.steps_left > max(STEPS_KEPT, self._limits.max_steps // _KEPT)

    async def _ask(self) -> None:
        self._check_limits()
        started = self._clock()
        if not self._compacted_in_vain and self._compactor.full(
            self._prompt, self._messages, self._request.max_output_tokens
        ):
            self._compacted_in_vain = not await self._compact()
        try:
            answer = await self._stream(self._question())
        except ProviderError as error:  # the model's own count is the true one
            if error.kind is not ErrorKind.OVERFLOW or not await self._compact():
                raise
            answer = await self._stream(self._question())
        message = _with_its_end(answer)
        if not message.content:
            await self._ledger.steps.save_empty_answer(
                self._run, answer.model, answer.usage, answer.cost_usd, started_at=started
            )
            raise LimitReached(f"{answer.model} answered nothing ({answer.stop})")
        await self._ledger.steps.save_answer(
            self._run,
            encode_blocks(message.content),
            text=message.text,
            model=answer.model,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
            started_at=started,
            prompt=PromptUsed(self._prompt.stable, self._prompt.volatile),
        )
        self._messages.append(message)
        self._caller.answered()
        self._cost += answer.cost_usd or 0.0

    def _question(self) -> Request:
        return msgspec.structs.replace(
            self._request, stable=self._prompt.stable, volatile=self._prompt.volatile, messages=self._messages
        )

    async def _compact(self) -> bool:
        """Shorten the conversation; tried once between two answers, and by itself no more in this run once in vain."""
        shorter = await self._compactor.compact(self._run, self._prompt, self._request)
        if shorter is None:
            return False
        self._messages = shorter
        return True

    def _check_limits(self) -> None:
        self._caller.check_steps(self._limits.max_steps)
        most = self._limits.max_cost_usd
        if most is not None and self._cost >= most:
            raise LimitReached(f"the run has cost ${self._cost:.2f}, its limit is ${most:.2f} ([limits] max_cost_usd)")

    async def _stream(self, request: Request) -> Answer:
        """Ask once, and count what was used even if no answer comes of it."""
        started = self._clock()
        try:
            return await self._listen(request)
        except ProviderError as error:
            if (spent := error.spent) is not None:
                await self._ledger.steps.save_empty_answer(
                    self._run, spent.model, spent.usage, spent.cost_usd, started_at=started
                )
                self._cost += spent.cost_usd or 0.0
            raise

    async def _listen(self, request: Request) -> Answer:
        """The answer; its deltas are gathered and published a few times a second."""
        answer: Answer | None = None
        pending, reset, last = "", self._previewed, 0.0
        async for item in self._models.stream(request, model=self._run.options.model):
            if isinstance(item, TextDelta):
                pending += whole(item.text)
            elif isinstance(item, Reset):
                pending, reset = "", True
            else:
                answer = msgspec.structs.replace(item, message=whole_message(item.message))
            now = time.monotonic()
            if (pending or reset) and now - last >= DELTA_SECONDS and answer is None:
                self._on_delta(pending, reset)
                pending, reset, last, self._previewed = "", False, now, True
        if answer is None:
            raise LimitReached("the model's stream ended without an answer")
        return answer


def _with_its_end(answer: Answer) -> Message:
    """The answer's message. One that was cut off and calls nothing would pass for whole: it says so."""
    message, why = answer.message, _CUT.get(answer.stop)
    if why is None or message.tool_calls or not message.text:
        return message
    return Message("assistant", [*message.content, Text(f"\n\n[cut: {why}]")])
