"""Retries, cooldowns and the chain, with the clock and the dice in the test's hand."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models.failover import (
    ATTEMPTS,
    BACKOFF_CAP_SECONDS,
    COOLDOWN_SECONDS,
    MONEY_COOLDOWN_SECONDS,
    Candidate,
    Failover,
    Marks,
    backoff,
)
from gateway.models.provider import (
    Answer,
    ErrorKind,
    Message,
    Provider,
    ProviderError,
    Request,
    Text,
    TextDelta,
)
from protocols.runs import Usage
from tests.gateway.models.conftest import ask, collect


class Scripted:
    """A provider whose calls end as scripted: an error, or None for an answer; deltas come before either."""

    name = "scripted"

    def __init__(self, *endings: ProviderError | None, deltas: int = 0) -> None:
        self.endings = list(endings)
        self.deltas = deltas
        self.calls = 0
        self.closed = 0

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        self.calls += 1
        ending = self.endings.pop(0) if self.endings else None
        try:
            for _ in range(self.deltas):
                yield TextDelta("x")
            if ending is not None:
                raise ending
            yield Answer(Message("assistant", [Text("ok")]), Usage(), "end", request.model)
        finally:
            self.closed += 1

    async def close(self) -> None:
        return None


class World:
    """A failover over scripted providers, and what it did."""

    def __init__(self, **providers: Scripted) -> None:
        self.providers = providers
        self.now = 1000.0
        self.slept: list[float] = []
        self.marks = Marks()
        self.failover = Failover(
            self._open,
            lambda model, request: ask(model=model),
            self.marks,
            clock=lambda: self.now,
            sleep=self._sleep,
            random=lambda: 0.5,
        )

    def _open(self, model: str) -> Provider:
        return self.providers[model]

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def run(self, *chain: str | Candidate) -> tuple[list[str], Answer]:
        candidates = [c if isinstance(c, Candidate) else Candidate(c) for c in chain]
        return await collect(self.failover.stream(candidates, ask()))


def fails(kind: ErrorKind, retry_after: float | None = None) -> ProviderError:
    return ProviderError(kind, f"{kind.value} happened", retry_after=retry_after)


class TestTransientErrors:
    @pytest.mark.parametrize("kind", [ErrorKind.RATE, ErrorKind.OVERLOAD, ErrorKind.NETWORK])
    async def test_the_same_model_is_asked_again_with_growing_jittered_waits(self, kind: ErrorKind) -> None:
        world = World(a=Scripted(fails(kind), fails(kind), fails(kind)), b=Scripted())
        _, answer = await world.run("a", "b")
        assert answer.model == "a"
        assert world.slept == [0.5, 1.0, 2.0]
        assert world.providers["b"].calls == 0

    async def test_then_the_next_model_is(self) -> None:
        world = World(a=Scripted(*[fails(ErrorKind.OVERLOAD)] * ATTEMPTS), b=Scripted())
        _, answer = await world.run("a", "b")
        assert answer.model == "b"
        assert world.providers["a"].calls == ATTEMPTS

    async def test_retry_after_is_honoured(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.RATE, 42)))
        await world.run("a")
        assert world.slept == [42.5]

    async def test_a_wait_over_the_cap_is_not_waited_for(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.RATE, 3600)), b=Scripted())
        _, answer = await world.run("a", "b")
        assert (answer.model, world.slept) == ("b", [])

    async def test_a_model_that_was_unreachable_is_asked_last_but_still_asked(self) -> None:
        failing = [fails(ErrorKind.NETWORK)] * ATTEMPTS
        world = World(a=Scripted(*failing), b=Scripted())
        await world.run("a", "b")
        await world.run("a", "b")
        assert world.providers["a"].calls == ATTEMPTS, "the second run goes to b at once"
        _, answer = await world.run("a")
        assert answer.model == "a", "with nobody else to ask it is asked"


class TestTextAlreadyDelivered:
    async def test_a_cut_resets_and_begins_again(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.NETWORK), deltas=2))
        deltas, answer = await world.run("a")
        assert deltas == ["x", "x", "<reset>", "x", "x"]
        assert answer.model == "a"

    async def test_so_does_another_model(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.QUOTA), deltas=1), b=Scripted(deltas=1))
        deltas, answer = await world.run("a", "b")
        assert (deltas, answer.model) == (["x", "<reset>", "x"], "b")

    async def test_nothing_is_reset_where_nothing_was_delivered(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.NETWORK)))
        deltas, _ = await world.run("a")
        assert deltas == []


class TestLastingErrors:
    @pytest.mark.parametrize("kind", [ErrorKind.QUOTA, ErrorKind.AUTH, ErrorKind.CONFIG])
    async def test_the_next_model_is_asked_at_once_and_the_first_one_passed_over(self, kind: ErrorKind) -> None:
        world = World(a=Scripted(fails(kind)), b=Scripted())
        _, first = await world.run("a", "b")
        _, second = await world.run("a", "b")
        assert (first.model, second.model) == ("b", "b")
        assert world.providers["a"].calls == 1
        assert world.slept == []

    @pytest.mark.parametrize(
        ("kind", "spans"),
        [(ErrorKind.AUTH, [*COOLDOWN_SECONDS, COOLDOWN_SECONDS[-1]]), (ErrorKind.QUOTA, [MONEY_COOLDOWN_SECONDS] * 2)],
    )
    async def test_the_cooldown_grows_and_ends(self, kind: ErrorKind, spans: list[float]) -> None:
        world = World(a=Scripted(*[fails(kind)] * len(spans)))
        for calls, span in enumerate(spans, start=1):
            with pytest.raises(ProviderError):
                await world.run("a")
            assert world.providers["a"].calls == calls
            world.now += span - 1
            with pytest.raises(ProviderError, match="asked again in 1 s"):
                await world.run("a")
            assert world.providers["a"].calls == calls
            world.now += 1
        await world.run("a")
        assert world.marks.get("a", world.now) is None

    async def test_a_configuration_error_lasts_until_it_is_forgotten(self) -> None:
        world = World(a=Scripted(fails(ErrorKind.CONFIG)))
        with pytest.raises(ProviderError):
            await world.run("a")
        world.now = 1e12
        with pytest.raises(ProviderError, match="until the configuration is reloaded"):
            await world.run("a")
        world.marks.forget()
        await world.run("a")

    @pytest.mark.parametrize("kind", [ErrorKind.OVERFLOW, ErrorKind.INVALID, ErrorKind.REFUSED])
    async def test_what_no_other_try_would_mend_is_raised_at_once(self, kind: ErrorKind) -> None:
        world = World(a=Scripted(fails(kind)), b=Scripted())
        with pytest.raises(ProviderError) as caught:
            await world.run("a", "b")
        assert (caught.value.kind, caught.value.model) == (kind, "a")
        assert world.providers["b"].calls == 0
        assert world.marks.get("a", world.now) is None

    async def test_when_all_fail_each_is_named_and_the_most_telling_kind_wins(self) -> None:
        world = World(a=Scripted(*[fails(ErrorKind.NETWORK)] * ATTEMPTS), b=Scripted(fails(ErrorKind.QUOTA)))
        with pytest.raises(ProviderError) as caught:
            await world.run("a", "b", Candidate("c", "no key"))
        assert caught.value.kind is ErrorKind.QUOTA
        assert caught.value.model == "b"
        for part in ("a: network happened", "b: quota happened", "c: no key"):
            assert part in str(caught.value)

    async def test_a_model_with_a_problem_is_never_opened(self) -> None:
        world = World(b=Scripted())
        _, answer = await world.run(Candidate("a", "no key"), "b")
        assert answer.model == "b"


async def test_a_reader_that_stops_closes_the_providers_stream() -> None:
    provider = Scripted(deltas=5)
    stream = World(a=provider).failover.stream([Candidate("a")], ask())
    assert isinstance(await anext(stream), TextDelta)
    await stream.aclose()
    assert provider.closed == 1


@given(attempt=st.integers(0, 10_000), dice=st.floats(0, 1, exclude_max=True))
def test_backoff_is_never_negative_and_never_over_its_cap(attempt: int, dice: float) -> None:
    wait = backoff(attempt, lambda: dice)
    assert 0 <= wait <= min(BACKOFF_CAP_SECONDS, 2.0 ** min(attempt, 10))


@given(kinds=st.lists(st.sampled_from(ErrorKind), min_size=1, max_size=30), wait=st.none() | st.floats(0, 1e9))
def test_a_mark_ends_by_itself_unless_it_is_a_configuration_error(kinds: list[ErrorKind], wait: float | None) -> None:
    marks = Marks()
    for kind in kinds:
        marks.note("a", fails(kind, wait), 0.0)
    mark = marks.get("a", 0.0)
    assert mark is not None
    assert math.isinf(mark.until) == (kinds[-1] is ErrorKind.CONFIG)
    assert mark.until >= COOLDOWN_SECONDS[0]
