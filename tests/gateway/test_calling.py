"""Tool calls on a real ledger: limits among parallel calls, and refusals over a death of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.agent.approvals import Approvals
from gateway.agent.calling import REPEATS_ENDED, Caller, LimitReached
from gateway.agent.permissions import Permissions
from gateway.agent.tool import BaseTool, Replay, ToolContext
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, NewRun
from gateway.models.provider import Message, Text, ToolCall, ToolResult, ToolSpec
from protocols.runs import RunSource, Usage, new_run_id


class _Died(BaseException):
    """The process is gone."""


class Writer(BaseTool):
    """Does its work once for a key, so a call that had begun is made again."""

    replay = Replay.KEYED
    subject_field = "what"

    def __init__(self, *, parallel: bool = False) -> None:
        self.spec = ToolSpec("write", "writes", {"type": "object"})
        self.parallel = parallel
        self.written: list[str] = []

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        self.written.append(str(arguments["what"]))
        return "written"


class Bench:
    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "state.db", "webster")
        self.ledger.start()
        self.reader = Reader(folder / "state.db", "webster")

    async def run(self) -> ClaimedRun:
        new = NewRun(new_run_id(), RunSource.HOOK, "Hook", "operator", True, "hook:one", "go")
        await self.ledger.accept(new)
        (run,) = await self.ledger.claim(1, 1)
        return run

    def caller(self, run: ClaimedRun, tool: Writer, *, deny: tuple[str, ...] = (), max_steps: int = 100) -> Caller:
        """As a life of the process builds it: from what the ledger says."""
        return Caller(
            run,
            {"write": tool},
            self.ledger,
            permissions=Permissions(["write"], [], deny),
            approvals=cast(Approvals, None),
            journalled=self.reader.tool_steps(run.run_id),
            answers=1,
            steps_done=self.reader.step_count(run.run_id),
            max_steps=max_steps,
            park=cast(Any, None),
            redact=str,
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.reader.close()
    made.ledger.close()


def made_before(times: int) -> list[Message]:
    """A conversation in which the same call came back with the same result so often."""
    messages = [Message("user", [Text("go")])]
    for number in range(times):
        messages.append(Message("assistant", [ToolCall(f"c{number}", "write", {"what": "x"})]))
        messages.append(Message("user", [ToolResult(f"c{number}", "write", "written")]))
    return messages


async def test_a_loop_among_parallel_calls_ends_the_run_as_a_loop(bench: Bench) -> None:
    caller = bench.caller(await bench.run(), Writer(parallel=True))
    calls = [ToolCall("a", "write", {"what": "x"}), ToolCall("b", "write", {"what": "y"})]
    with pytest.raises(LimitReached, match="a loop: write was called 6 times"):
        await caller.call(calls, made_before(REPEATS_ENDED))


async def test_parallel_calls_do_not_pass_the_limit_of_steps_together(bench: Bench) -> None:
    tool = Writer(parallel=True)
    caller = bench.caller(await bench.run(), tool, max_steps=2)
    calls = [ToolCall(name, "write", {"what": name}) for name in "abcd"]
    with pytest.raises(LimitReached, match="its 2 steps"):
        await caller.call(calls, made_before(0))
    assert len(tool.written) <= 2


async def test_a_refused_call_is_still_refused_when_the_process_died_while_writing_it(bench: Bench) -> None:
    run, tool = await bench.run(), Writer()
    calls = [ToolCall("a", "write", {"what": "x"})]
    denying = bench.caller(run, tool, deny=("write(x)",))
    submit = bench.ledger.writer.submit
    written = 0

    async def die_after_one(operation: Any) -> Any:
        nonlocal written
        if written == 1:
            raise _Died
        written += 1
        return await submit(operation)

    bench.ledger.writer.submit = die_after_one  # type: ignore[method-assign]
    with pytest.raises(_Died):
        await denying.call(calls, made_before(0))
    bench.ledger.writer.submit = submit  # type: ignore[method-assign]
    message = await bench.caller(run, tool, deny=("write(x)",)).call(calls, made_before(0))
    assert tool.written == []
    (result,) = message.content
    assert isinstance(result, ToolResult)
    assert result.is_error
    assert "not permitted (deny write(x))" in result.content


async def test_a_call_of_a_model_that_failed_does_not_shift_the_keys_of_the_calls_after_it(bench: Bench) -> None:
    """A key is made of the answer's number: told otherwise after a restart, a call would be made twice."""
    run = await bench.run()
    await bench.ledger.steps.save_empty_answer(run, "anthropic/x", Usage(input_tokens=5), None, started_at=0.0)
    assert (bench.reader.answer_count(run.run_id), bench.reader.step_count(run.run_id)) == (0, 1)
