"""Recordings: a run taken out of the ledger as one document, and gone through again step by step.

A replay runs the real turn with a model that gives the recorded answers and tools that give the recorded results. It
says where today's code would have asked the model something else than it was asked then.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import msgspec

from gateway.agent.approvals import Approvals
from gateway.agent.calling import Caller
from gateway.agent.compaction import Compactor
from gateway.agent.permissions import Permissions
from gateway.agent.prompt import Prompt
from gateway.agent.tool import Replay, ToolContext, ToolError
from gateway.agent.turn import Turn, TurnLimits
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, NewRun, RunOptions
from gateway.models.provider import (
    Answer,
    Block,
    Image,
    Message,
    Native,
    Request,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from protocols.errors import AtomizerError
from protocols.recordings import Recording
from protocols.runs import RunState, Usage, one_line

Say = Callable[[str], None]


class Diverged(AtomizerError):
    """The replay went another way than the recording; the message says where."""


async def replay(recording: Recording, say: Say) -> str:
    """Go through the run again; its text. Raises Diverged, or what ended the run."""
    before = [_message(m.role, m.content) for m in recording.before]
    conversation = [_message(m.role, m.content) for m in recording.conversation]
    tape = _Tape(recording, before, conversation, say)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "replay.db", recording.agent)
        ledger.start()
        try:
            run = await _claimed(ledger, recording)
            tools = {name: _RecordedTool(name, tape) for name in tape.tool_names()}
            caller = Caller(
                run,
                tools,
                ledger,
                permissions=Permissions(["*"], [], []),
                approvals=cast(Approvals, None),  # everything is allowed, so nobody is asked
                journalled={},
                answers=0,
                steps_done=0,
                max_steps=10_000,
                park=_no_park,
                redact=str,
            )
            turn = Turn(
                run,
                [*before, conversation[0]],
                prompt=Prompt("", ""),
                request=Request(model="", stable="", volatile="", messages=[], tools=[t.spec for t in tools.values()]),
                limits=TurnLimits(max_steps=10_000),
                cost_so_far=0.0,
                models=tape,
                caller=caller,
                ledger=ledger,
                compactor=_NoCompaction(ledger, tape),
                collect=tape.said_meanwhile,
                before_end=_nothing,
                on_delta=lambda text, reset: None,
            )
            text = await turn.run()
        finally:
            ledger.close()
    if recording.run.state is RunState.SUCCEEDED and text != recording.run.text:
        raise Diverged(f"it ended with {one_line(text, 120)!r}, recorded is {one_line(recording.run.text, 120)!r}")
    return text


class _Tape:
    """The recording as a model: each question is compared and gets the next recorded answer."""

    def __init__(self, recording: Recording, before: list[Message], conversation: list[Message], say: Say) -> None:
        self._recording = recording
        self._before = before
        self._conversation = conversation
        self._say = say
        self._at = 1
        self._answers = 0
        say(f"task: {one_line(recording.run.message, 300)}")

    def tool_names(self) -> list[str]:
        return sorted({call.name for message in self._conversation for call in message.tool_calls})

    async def stream(self, request: Request, *, model: str | None = None) -> AsyncIterator[TextDelta | Answer]:
        self._pass_results()
        if self._at >= len(self._conversation):
            raise Diverged(f"the model is asked once more than the {self._answers} times that are recorded")
        if not self._recording.compacted:
            self._compare(request)
        message = self._conversation[self._at]
        if message.role != "assistant":
            raise Diverged(f"message {self._at} of the recording is no answer of a model")
        self._at += 1
        self._answers += 1
        told = (
            self._recording.answers[self._answers - 1].model if self._answers <= len(self._recording.answers) else "?"
        )
        self._say(f"{self._answers}. model {told}: {one_line(message.text, 300) or '(tool calls)'}")
        for call in message.tool_calls:
            self._say(f"   calls {call.name} {one_line(msgspec.json.encode(call.arguments).decode(), 200)}")
        yield Answer(message, Usage(), "tool_use" if message.tool_calls else "end", told, cost_usd=0.0)

    def _compare(self, request: Request) -> None:
        expected = [_plain(m) for m in (*self._before, *self._conversation[: self._at])]
        asked = [_plain(m) for m in request.messages]
        if asked == expected:
            return
        for position, (now, then) in enumerate(zip(asked, expected, strict=False)):
            if now != then:
                raise Diverged(f"question {self._answers + 1}, message {position}: now {now!r}, recorded {then!r}")
        raise Diverged(f"question {self._answers + 1} has {len(asked)} messages, recorded are {len(expected)}")

    async def said_meanwhile(self) -> list[list[Block]]:
        self._pass_results()
        said: list[list[Block]] = []
        while self._at < len(self._conversation) and _is_said(self._conversation[self._at]):
            message = self._conversation[self._at]
            said.append(message.content)
            self._at += 1
            self._say(f"   said meanwhile: {one_line(message.text, 200)}")
        return said

    def _pass_results(self) -> None:
        if self._at < len(self._conversation) and any(
            isinstance(b, ToolResult) for b in self._conversation[self._at].content
        ):
            self._at += 1

    def result(self, answer: int, position: int) -> ToolResult:
        """What the tool call at `position` of the `answer`th answer brought back then."""
        if self._at < len(self._conversation):
            results = [b for b in self._conversation[self._at].content if isinstance(b, ToolResult)]
            if position < len(results):
                self._say(f"   -> {one_line(results[position].content, 300)}")
                return results[position]
        raise Diverged(f"no result is recorded for call {position} of answer {answer}")


class _RecordedTool:
    parallel = False
    replay = Replay.SAFE

    def __init__(self, name: str, tape: _Tape) -> None:
        self.spec = ToolSpec(name=name, description="recorded", parameters={"type": "object"})
        self._tape = tape

    def subject(self, arguments: dict[str, Any]) -> str:
        return ""

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        answer, position = context.key.rsplit("/", 1)[1].split(".")
        result = self._tape.result(int(answer), int(position))
        if result.is_error:
            raise ToolError(result.content)
        return result.content


class _NoCompaction(Compactor):
    """What was given to the model is recorded: nothing is shortened."""

    def __init__(self, ledger: Ledger, tape: _Tape) -> None:
        super().__init__(
            ledger,
            cast(Reader, None),
            tape,
            window=lambda: None,
            checkpoint=lambda run: "",
            memory=lambda: None,
            clock=time.time,
        )


async def _claimed(ledger: Ledger, recording: Recording) -> ClaimedRun:
    run = recording.run
    new = NewRun(
        run_id=run.run_id,
        source=run.source,
        name=run.name,
        caller=run.caller,
        people=True,
        session_key=run.session_key,
        message=run.message,
        options=RunOptions(),
    )
    await ledger.accept(new)
    (claimed,) = await ledger.claim(1, 1)
    return claimed


def _message(role: str, content: Any) -> Message:
    blocks = msgspec.convert(content, list[Block])
    return Message(role="user" if role == "user" else "assistant", content=blocks)


def _plain(message: Message) -> tuple[str, list[object]]:
    """A message without its provider's own copy, to compare."""
    return message.role, [_plain_block(b) for b in message.content if not isinstance(b, Native)]


def _plain_block(block: Block) -> object:
    if isinstance(block, ToolCall):
        return ("call", block.name, block.arguments)
    if isinstance(block, ToolResult):
        return ("result", block.name, block.content, block.is_error)
    if isinstance(block, Image):
        return ("image", block.path, block.sha256)
    return ("text", block.text) if isinstance(block, Text) else ("native",)


def _is_said(message: Message) -> bool:
    return message.role == "user" and bool(message.content) and isinstance(message.content[0], Text)


async def _nothing() -> str | None:
    return None


def _no_park(reason: str) -> AbstractAsyncContextManager[None]:
    raise Diverged(f"a recorded run waits for nobody ({reason})")


def describe(recording: Recording) -> Iterator[str]:
    """The facts of a recording, a line each."""
    run = recording.run
    yield f"{run.run_id} of {recording.agent}: {run.state.value}{f' ({run.reason})' if run.reason else ''}"
    yield f"{len(recording.answers)} answers, {len(run.steps)} steps, {len(recording.prompts)} system prompt(s)"
