"""When a gateway that ended is started again: a state machine without a clock, a process or a file.

- Exit 78: a local file is wrong. Never restarted until a person asks.
- Exit 75: somebody else holds the port. Retried with backoff for as long as it takes.
- Anything else: retried with full-jitter exponential backoff, until LOOP_EXITS exits fall within LOOP_SECONDS: a crash
  loop, which stays stopped and visible until a person asks.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.supervisors.supervisor import State
from runtime.home import EXIT_CONFIG, EXIT_PORT_TAKEN

BASE_SECONDS = 0.5
CAP_SECONDS = 60.0
FLOOR_SECONDS = 0.1
"""Full jitter may draw nearly nothing; the kernel should at least have time to close the sockets."""
STABLE_SECONDS = 60.0
"""A gateway that ran for so long begins again at the first backoff."""
LOOP_EXITS = 5
LOOP_SECONDS = 60.0


class Verdict(msgspec.Struct, frozen=True):
    """What comes after an exit."""

    state: State
    delay: float | None
    """Seconds until the next start; None: not before a person asks."""
    reason: str


class RestartPolicy:
    """The restarts of one gateway. `draw` answers a number in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self.attempt = 0
        self.exits: list[float] = []

    def clear(self) -> None:
        """A person asked for a start: nothing that was counts any more."""
        self.attempt = 0
        self.exits.clear()

    def exited(self, code: int | None, now: float, uptime: float) -> Verdict:
        """The gateway ended at `now` after `uptime`, in seconds, with `code` (negative: a signal; None: unknown)."""
        if uptime >= STABLE_SECONDS:
            self.clear()
        if code == EXIT_CONFIG:
            return Verdict("config-error", None, "its configuration is wrong")
        if code == EXIT_PORT_TAKEN:
            return Verdict("port-taken", self._delay(), "its port is taken")
        self.exits = [at for at in self.exits if now - at < LOOP_SECONDS] + [now]
        if len(self.exits) >= LOOP_EXITS:
            reason = f"ended {len(self.exits)} times within {LOOP_SECONDS:g} s, last {exit_words(code)}"
            return Verdict("crash-loop", None, reason)
        return Verdict("backoff", self._delay(), f"ended {exit_words(code)}")

    def _delay(self) -> float:
        ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0**self.attempt)
        self.attempt = min(self.attempt + 1, 16)
        return max(FLOOR_SECONDS, self._draw() * ceiling)


def exit_words(code: int | None) -> str:
    """`with exit code 1`, `by SIGKILL`: how a process ended."""
    if code is None:
        return "unseen"
    if code < 0:
        import signal

        try:
            return f"by {signal.Signals(-code).name}"
        except ValueError:
            return f"by signal {-code}"
    return f"with exit code {code}"
