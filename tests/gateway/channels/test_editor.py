"""The coalescing editor, in virtual time: newest first, one call at a time, never too fast, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.channel import Refusal, Uncertain, Unreachable
from gateway.channels.editor import BACKOFF_CAP, INTERVAL, Editor
from gateway.channels.splitting import split
from tests.gateway.channels.virtual import run
from tests.properties import use_small_examples

use_small_examples()

DIVIDE = partial(split, limit=64)
QUIET = 600.0
"""Seconds after which whatever went wrong in these tests was tried again."""
Fault = Literal["", "limited", "unreachable", "lost", "broken", "gone", "too_old"]


class Wall:
    """A channel: what stands on it, and each call with its time. `faults` are the fates of its first calls."""

    def __init__(self, faults: list[Fault] | None = None, latencies: list[float] | None = None) -> None:
        self.messages: dict[int, str] = {}
        self.calls: list[tuple[float, str]] = []
        self.in_flight = 0
        self._faults = list(faults or [])
        self._latencies = list(latencies or [])
        self._nonces: dict[int, int] = {}

    async def send(self, index: int, text: str) -> int:
        return await self._call("send", partial(self._post, index, text))

    async def edit(self, handle: int, text: str) -> None:
        await self._call("edit", partial(self._change, handle, text), handle)

    def _post(self, index: int, text: str) -> int:
        found = self._nonces.get(index)
        if found is None or found not in self.messages:
            found = self._nonces[index] = len(self.messages) + 1000
            self.messages[found] = text
        return found

    def _change(self, handle: int, text: str) -> int:
        self.messages[handle] = text
        return handle

    async def _call(self, kind: str, work: Callable[[], int], handle: int | None = None) -> int:
        assert self.in_flight == 0, "two calls at once"
        self.in_flight += 1
        self.calls.append((asyncio.get_running_loop().time(), kind))
        try:
            await asyncio.sleep(self._latencies.pop() if self._latencies else 0.05)
            match self._faults.pop(0) if self._faults else "":
                case "limited":
                    raise Unreachable("429", retry_after=3.0)
                case "unreachable":
                    raise Unreachable("503")
                case "lost":
                    work()
                    raise Uncertain("no answer")
                case "broken":
                    raise OSError("reset")
                case "gone" if handle is not None:
                    self._nonces = {index: there for index, there in self._nonces.items() if there != handle}
                    raise Refusal("unknown_message", "10008")
                case "too_old" if handle is not None:
                    self._nonces = {index: there for index, there in self._nonces.items() if there != handle}
                    raise Refusal("too_old", "30046")
            return work()
        finally:
            self.in_flight -= 1


def editor(wall: Wall, divide: Callable[[str], list[str]] = DIVIDE) -> Editor[int]:
    return Editor(wall.send, wall.edit, clock=asyncio.get_running_loop().time, divide=divide)


PUSHES = st.lists(
    st.tuples(st.floats(0, 3), st.text(alphabet="ab \n`*", max_size=60).map(lambda text: f"{text} word")), max_size=15
)
FAULTS = st.lists(
    st.sampled_from(["", "", "", "limited", "unreachable", "lost", "broken", "gone", "too_old"]), max_size=10
)
LATENCIES = st.lists(st.floats(0, 4), max_size=20)


async def typed(shown: Editor[int], pushes: list[tuple[float, str]]) -> str:
    text = ""
    for pause, more in pushes:
        await asyncio.sleep(pause)
        text += more
        shown.push(text)
    return text


class TestWhateverTheTiming:
    @given(PUSHES, FAULTS, LATENCIES, st.text(alphabet="xyz \n", max_size=100))
    def test_the_newest_text_stands_there_whole_and_the_calls_are_apart(
        self, pushes: list[tuple[float, str]], faults: list[Fault], latencies: list[float], end: str
    ) -> None:
        wall = Wall(faults, latencies)

        async def main() -> None:
            async with editor(wall) as shown:
                newest = await typed(shown, pushes) + end
                shown.push(newest)
                await asyncio.sleep(QUIET)
                calls = len(wall.calls)
                draft = await shown.stop()
            parts = DIVIDE(newest)
            assert len(wall.calls) == calls, "it was shown already"
            assert [wall.messages[message.handle] for message in draft.messages][: len(parts)] == parts
            assert [message.text for message in draft.messages][: len(parts)] == parts

        run(main())
        starts = [at for at, _ in wall.calls]
        assert all(late - early >= INTERVAL - 1e-6 for early, late in pairwise(starts))

    @given(PUSHES, FAULTS, LATENCIES)
    def test_what_stop_returns_is_what_stands_there(
        self, pushes: list[tuple[float, str]], faults: list[Fault], latencies: list[float]
    ) -> None:
        wall = Wall(faults, latencies)

        async def main() -> None:
            async with editor(wall) as shown:
                text = await typed(shown, pushes)
                draft = await shown.stop()
                calls = len(wall.calls)
                shown.push(text + " more of the same and more")
                await asyncio.sleep(60)
            assert len(wall.calls) == calls
            known = [message for message in draft.messages if message.text is not None]
            assert [wall.messages[message.handle] for message in known] == [message.text for message in known]

        run(main())

    @given(PUSHES, FAULTS, LATENCIES, st.floats(0, 30))
    def test_cancelled_at_any_point_it_leaves_nothing_running(
        self, pushes: list[tuple[float, str]], faults: list[Fault], latencies: list[float], after: float
    ) -> None:
        wall = Wall(faults, latencies)

        async def answer() -> None:
            async with editor(wall) as shown:
                await typed(shown, pushes)
                await shown.stop()

        async def main() -> None:
            task = asyncio.create_task(answer())
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert wall.in_flight == 0

        run(main())


class TestStreaming:
    def test_two_hundred_pushes_make_few_edits_and_the_end_comes_soon(self) -> None:
        wall = Wall()

        async def main() -> float:
            loop = asyncio.get_running_loop()
            async with editor(wall, split) as shown:
                text = await typed(shown, [(0.031, f"word{n} ") for n in range(200)])
                ended = loop.time()
                while list(wall.messages.values()) != split(text):
                    assert loop.time() < ended + QUIET
                    await asyncio.sleep(0.01)
                return loop.time() - ended

        assert run(main()) < INTERVAL + 0.1
        assert len(wall.calls) <= 8
        assert [kind for _, kind in wall.calls].count("send") == 1

    def test_a_long_text_goes_on_in_the_next_message_and_the_first_is_left_alone(self) -> None:
        wall = Wall()

        async def main() -> None:
            async with editor(wall, split) as shown:
                text = await typed(shown, [(0.5, "All is well with the wing. " * 5) for _ in range(40)])
                await asyncio.sleep(QUIET)
                draft = await shown.stop()
            assert [message.text for message in draft.messages] == split(text)
            assert len(draft.messages) == 3

        run(main())

    def test_nothing_is_shown_before_there_is_something_worth_it(self) -> None:
        async def first(pushes: list[tuple[float, str]]) -> float:
            wall = Wall()
            async with editor(wall) as shown:
                await typed(shown, pushes)
                await asyncio.sleep(5)
            return wall.calls[0][0] if wall.calls else -1

        assert run(first([(0.1, "I"), (0.1, " see")])) == pytest.approx(0.8)
        assert run(first([(0.1, "I"), (0.1, " see that there is much to say")])) == pytest.approx(0.2)
        assert run(first([(0.1, "  \n")])) == -1

    def test_stopped_before_that_nothing_was_ever_shown(self) -> None:
        wall = Wall()

        async def main() -> None:
            async with editor(wall) as shown:
                shown.push("I")
                assert await shown.stop() == ([], [])
            assert wall.calls == []

        run(main())

    def test_a_stop_waits_for_the_call_on_its_way(self) -> None:
        wall = Wall(latencies=[2.0])

        async def main() -> None:
            async with editor(wall) as shown:
                shown.push("words that are worth showing")
                await asyncio.sleep(0.5)
                draft = await shown.stop()
            assert [message.text for message in draft.messages] == ["words that are worth showing"]

        run(main())


class TestFailures:
    def told(self, faults: list[Fault], final: str = "words that are worth showing, all") -> tuple[Wall, list[str]]:
        wall, problems = Wall(faults), list[Exception]()

        async def main() -> None:
            async with Editor(
                wall.send,
                wall.edit,
                clock=asyncio.get_running_loop().time,
                divide=DIVIDE,
                on_problem=problems.append,
            ) as shown:
                shown.push("words that are worth showing")
                await asyncio.sleep(2)
                shown.push(final)
                await asyncio.sleep(QUIET)
                draft = await shown.stop()
            assert [wall.messages[message.handle] for message in draft.messages] == DIVIDE(final)

        run(main())
        return wall, [str(problem) for problem in problems]

    def test_a_rate_limit_is_waited_out(self) -> None:
        wall, problems = self.told(["", "limited"])
        assert problems == ["429"]
        assert wall.calls[-1][0] - wall.calls[-2][0] == pytest.approx(3.05)

    @pytest.mark.parametrize(("fault", "said"), [("gone", "10008"), ("too_old", "30046")])
    def test_a_message_that_cannot_be_edited_is_followed_by_a_new_one(self, fault: Fault, said: str) -> None:
        wall, problems = self.told(["", fault])
        assert problems == [said]
        assert [kind for _, kind in wall.calls] == ["send", "edit", "send"]

    def test_a_send_whose_answer_was_lost_is_not_taken_for_its_newer_text(self) -> None:
        wall, _ = self.told(["lost"])
        assert [kind for _, kind in wall.calls] == ["send", "send", "edit"]
        assert list(wall.messages.values()) == ["words that are worth showing, all"]

    def test_a_refusal_ends_it(self) -> None:
        tried, problems = list[str](), list[Exception]()

        async def refuse(index: int, text: str) -> int:
            tried.append(text)
            raise Refusal("no_access", "missing access")

        async def main() -> None:
            clock = asyncio.get_running_loop().time
            async with Editor(refuse, Wall().edit, clock=clock, on_problem=problems.append) as shown:
                shown.push("words that are worth showing")
                await asyncio.sleep(5)
                shown.push("words that are worth showing, all")
                await asyncio.sleep(QUIET)
                assert await shown.stop() == ([], [])

        run(main())
        assert tried == ["words that are worth showing"]
        assert [str(problem) for problem in problems] == ["missing access"]

    def test_failures_never_end_it_and_the_pauses_grow_to_a_bound(self) -> None:
        async def main() -> None:
            down = Wall(["unreachable"] * 12)
            async with editor(down) as shown:
                shown.push("words that are worth showing")
                await asyncio.sleep(QUIET)
                assert len(down.messages) == 1
            pauses = [round(late - early, 6) for (early, _), (late, _) in pairwise(down.calls)]
            assert pauses == sorted(pauses)
            assert pauses[-1] == pytest.approx(BACKOFF_CAP + 0.05)

        run(main())
