"""What a connection's end means, and how time passes for it: shared by both sides of the lazy import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from gateway.channels.channel import ChannelState


class Pace:
    """The clock (unix seconds), waiting, and chance."""

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        uniform: Callable[[float, float], float],
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self.uniform = uniform


class Verdict(msgspec.Struct, frozen=True):
    """`wait`: seconds to wait at least. `permanent`: until somebody changes the configuration or the token."""

    state: ChannelState
    detail: str
    permanent: bool = False
    wait: float | None = None
