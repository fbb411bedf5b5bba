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


class Limits(msgspec.Struct, frozen=True):
    """Seconds after which something counts as gone."""

    silence: float = 60.0
    """Of the connection: Discord answers a heartbeat every 41 s."""
    ready: float = 60.0
    """From the handshake to READY or RESUMED."""
    guilds: float = 1.0
    """After the last server of which Discord told at the beginning; then it is ready."""
    call: float = 15.0
    """One call, with the library's waiting for a rate limit."""


class Verdict(msgspec.Struct, frozen=True):
    """`wait`: seconds to wait at least. `permanent`: until somebody changes the configuration or the token."""

    state: ChannelState
    detail: str
    permanent: bool = False
    wait: float | None = None
