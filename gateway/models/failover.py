"""The one place where a failed model call is tried again: on the same model, then on the next of its chain."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from gateway.models.provider import Answer, ErrorKind, Provider, ProviderError, Request, Reset, TextDelta
from protocols.runs import Usage

ATTEMPTS = 4
"""Calls to one model, the first included, before the next model is asked."""
BACKOFF_SECONDS = 1.0
BACKOFF_CAP_SECONDS = 20.0
RETRY_AFTER_CAP_SECONDS = 60.0
"""A provider that asks for a longer wait is not waited for: the next model is asked."""
COOLDOWN_SECONDS = (30.0, 60.0, 300.0)
"""How long a model that failed is passed over, by how often it failed in a row."""
MONEY_COOLDOWN_SECONDS = 600.0

_FINAL = (ErrorKind.OVERFLOW, ErrorKind.INVALID, ErrorKind.REFUSED)
"""Another try, or another model, would not mend these."""
_TELLING = (
    ErrorKind.QUOTA,
    ErrorKind.AUTH,
    ErrorKind.CONFIG,
    ErrorKind.RATE,
    ErrorKind.OVERLOAD,
    ErrorKind.NETWORK,
)
"""Of several failures the one that a person can do most about, first."""


class Mark(msgspec.Struct, frozen=True):
    """Why a model is passed over, and until when (Unix seconds; infinite: until the configuration is reloaded)."""

    kind: ErrorKind
    reason: str
    until: float
    failures: int


class Marks:
    """The models that failed lately; one for all runs of a gateway, so that one run's failure spares the others."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    def get(self, model: str, now: float) -> Mark | None:
        mark = self._marks.get(model)
        return mark if mark is not None and mark.until > now else None

    def note(self, model: str, error: ProviderError, now: float) -> None:
        """Pass `model` over for a while."""
        before = self._marks.get(model)
        failures = before.failures + 1 if before is not None else 1
        match error.kind:
            case ErrorKind.CONFIG:
                span = math.inf
            case ErrorKind.QUOTA:
                span = MONEY_COOLDOWN_SECONDS
            case _:
                span = COOLDOWN_SECONDS[min(failures, len(COOLDOWN_SECONDS)) - 1]
        if error.retry_after is not None:
            span = max(span, min(error.retry_after, MONEY_COOLDOWN_SECONDS))
        self._marks[model] = Mark(error.kind, str(error), now + span, failures)

    def clear(self, model: str) -> None:
        self._marks.pop(model, None)

    def forget(self, provider: str | None = None) -> None:
        """Forget all marks, or those of one provider: its key or its address has changed."""
        if provider is None:
            self._marks.clear()
        for model in [m for m in self._marks if m.partition("/")[0] == provider]:
            del self._marks[model]


class Candidate(msgspec.Struct, frozen=True):
    """A model of the chain, as `provider/model`; `problem` says why it cannot be asked at all."""

    model: str
    problem: str | None = None
    kind: ErrorKind = ErrorKind.CONFIG
    """What kind of failure the problem is."""


class Failover:
    """Asks a chain of models for one answer."""

    def __init__(
        self,
        open_provider: Callable[[str], Provider],
        prepare: Callable[[str, Request], Request],
        marks: Marks,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        """`open_provider(model)` and `prepare(model, request)` take `provider/model`; `random()` is in [0, 1)."""
        self._open = open_provider
        self._prepare = prepare
        self._marks = marks
        self._clock = clock
        self._sleep = sleep
        self._random = random

    async def stream(
        self, chain: Sequence[Candidate], request: Request
    ) -> AsyncGenerator[TextDelta | Reset | Answer, None]:
        """Deltas, a Reset wherever the answer begins anew, and one Answer; raises ProviderError if no model gave one.

        The error is of the most telling kind, and names each model with its reason.
        """
        failures: list[ProviderError] = []
        delivered = False
        lost: list[tuple[str, Usage]] = []
        for model in self._in_order(chain, failures):
            for attempt in range(ATTEMPTS):
                if delivered:
                    yield Reset(f"{failures[-1]}; asking {model}")
                    delivered = False
                try:
                    answering = self._open(model).stream(self._prepare(model, request))
                    async with contextlib.aclosing(_closing(answering)) as items:
                        async for item in items:
                            delivered = True
                            if isinstance(item, Answer):
                                self._marks.clear(model)
                                item = msgspec.structs.replace(item, lost=tuple(lost))
                            yield item
                    return
                except ProviderError as error:
                    error.model = model
                    if error.usage is not None:
                        lost.append((model, error.usage))
                    if error.kind in _FINAL:
                        error.lost = tuple(lost)
                        raise
                    failures.append(error)
                delay = self._delay(failures[-1], attempt)
                if delay is None:
                    break
                await self._sleep(delay)
            self._marks.note(model, failures[-1], self._clock())
        told = _most_telling(failures)
        told.lost = tuple(lost)
        raise told

    def _in_order(self, chain: Sequence[Candidate], failures: list[ProviderError]) -> list[str]:
        """The models to ask: in their order, but those that were merely unreachable a moment ago last.

        Those that cannot answer before somebody mends something are left out, as failures.
        """
        now = self._clock()
        ready, doubtful = [], []
        for candidate in chain:
            if candidate.problem is not None:
                failures.append(ProviderError(candidate.kind, candidate.problem, model=candidate.model))
                continue
            mark = self._marks.get(candidate.model, now)
            if mark is None:
                ready.append(candidate.model)
            elif mark.kind.transient:
                doubtful.append(candidate.model)
            else:
                failures.append(_passed_over(candidate.model, mark, now))
        return ready + doubtful

    def _delay(self, error: ProviderError, attempt: int) -> float | None:
        """Seconds until the same model is asked again; None: ask the next one."""
        if not error.kind.transient or attempt + 1 >= ATTEMPTS:
            return None
        wait = backoff(attempt, self._random)
        if error.retry_after is None:
            return wait
        if error.retry_after > RETRY_AFTER_CAP_SECONDS:
            return None
        return error.retry_after + min(wait, 1.0)


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Full jitter: anything from nothing to the cap, which doubles with each attempt (from 0) up to its own cap."""
    return random() * min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempt, 30))


def _passed_over(model: str, mark: Mark, now: float) -> ProviderError:
    left = mark.until - now
    again = f"asked again in {left:.0f} s" if math.isfinite(left) else "not asked until the configuration is reloaded"
    wait = left if math.isfinite(left) else None
    return ProviderError(mark.kind, f"{mark.reason} ({again})", retry_after=wait, model=model)


def _most_telling(failures: list[ProviderError]) -> ProviderError:
    latest = {failure.model: failure for failure in failures}
    if not latest:
        return ProviderError(ErrorKind.CONFIG, "no model is configured")
    told = min(latest.values(), key=lambda failure: _TELLING.index(failure.kind))
    waits = [failure.retry_after for failure in latest.values() if failure.retry_after is not None]
    reasons = "; ".join(f"{model}: {failure}" for model, failure in latest.items())
    return ProviderError(told.kind, reasons, retry_after=min(waits, default=None), model=told.model)


async def _closing(items: AsyncIterator[TextDelta | Answer]) -> AsyncGenerator[TextDelta | Answer, None]:
    """The same items; the provider's stream is closed at once, however its reader ends."""
    try:
        async for item in items:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
