"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 1.0
MOST_SECONDS = 120.0
"""Discord gives a token a thousand sessions a day: with jitter, at this pace, they last."""


def backoff(failures: int, uniform: Callable[[float, float], float]) -> float:
    """Seconds after `failures` (1 or more) in a row: doubled each time up to a cap, then between half and all of it."""
    seconds = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(failures - 1, 20))
    return uniform(seconds / 2, seconds)
