"""What a connection's end means, and how time passes for it: shared by both sides of the lazy import."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from gateway.channels.channel import ChannelState, Unreachable

REFUSED_STATUSES = frozenset({401, 403, 429})
MOST_REFUSED = 500
"""Such answers in ten minutes. At ten thousand Discord bans the host's address, which thirteen agents share."""
REFUSED_SECONDS = 600.0


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


class Brake:
    """Counts what Discord refuses, over all connections of this bot, and stops asking in time."""

    def __init__(self, clock: Callable[[], float], on_hold: Callable[[str], None]) -> None:
        """`on_hold(why)`: from now on nothing is asked for a while; with no reason, it is over."""
        self._clock = clock
        self._on_hold = on_hold
        self._held = False
        self._refused: deque[float] = deque(maxlen=MOST_REFUSED)

    def answered(self, status: int) -> None:
        if status in REFUSED_STATUSES:
            self._refused.append(self._clock())

    def check(self) -> None:
        """Before a request; raises Unreachable if none may be made now."""
        wait = 0.0
        if len(self._refused) == self._refused.maxlen:
            wait = self._refused[0] + REFUSED_SECONDS - self._clock()
        if wait > 0:
            why = (
                f"Discord refused {MOST_REFUSED} requests within ten minutes, so nothing is asked for {wait:.0f} s, or "
                "it would ban this host; look for a channel or a permission that is gone: atomizer discord check"
            )
            if not self._held:
                self._on_hold(why)
            self._held = True
            raise Unreachable(why, retry_after=wait)
        if self._held:
            self._held = False
            self._on_hold("")


class Verdict(msgspec.Struct, frozen=True):
    """`wait`: seconds to wait at least. `permanent`: until somebody changes the configuration or the token."""

    state: ChannelState
    detail: str
    permanent: bool = False
    wait: float | None = None
