"""The merged log of all agents: a ring of bounded size, in order of time. Pure."""

from __future__ import annotations

from bisect import insort

import msgspec

CAPACITY = 5000
"""Lines kept."""
TEXT_LIMIT = 2000
"""Characters kept of one line."""
TOLERANCE = 0.5
"""Seconds by which a line may be older than the last one and still be appended: agents' clocks tick apart a little."""


class LogLine(msgspec.Struct, frozen=True, gc=False):
    at: float
    agent: str
    level: str
    text: str
    run_id: str | None = None


def _moment(line: LogLine) -> float:
    return line.at


class LogRing:
    """Lines in order of time, at most `capacity` of them.

    A view remembers `end` and `generation`: while the generation is the same, what is new is `since(end)`, and
    every line whose number is below `start` is gone. Another generation: older lines were put in between; read
    everything again.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.generation = 0
        self.start = 0
        """Number of the oldest line kept; numbers only grow."""
        self._lines: list[LogLine] = []
        self._pending: list[LogLine] = []
        self._past = False
        """Are there lines among them from before we listened?"""

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def end(self) -> int:
        """Number after the newest line."""
        return self.start + len(self._lines)

    @property
    def lines(self) -> list[LogLine]:
        """All lines, oldest first. Not to be changed."""
        return self._lines

    def add(self, line: LogLine, past: bool = False) -> None:
        """Put `line` aside for the next `merge`; beyond capacity the oldest such line is forgotten. `past`: it is from
        before we listened, and so are others' that are there already: all are put in order without tolerance."""
        self._pending.append(line)
        self._past |= past
        if len(self._pending) >= 2 * self.capacity:
            del self._pending[: -self.capacity]

    def merge(self) -> bool:
        """Take in the lines put aside; true if there were any."""
        if not self._pending:
            return False
        batch = sorted(self._pending, key=_moment)[-self.capacity :]
        self._pending.clear()
        newest = self._lines[-1].at if self._lines else 0.0
        past, self._past = self._past, False
        split = len(batch) if past else 0
        while split < len(batch) and batch[split].at < newest - TOLERANCE:
            split += 1
        if split:
            self.generation += 1
            if past or split > 50:
                self._lines = sorted([*self._lines, *batch[:split]], key=_moment)
            else:
                for line in batch[:split]:
                    insort(self._lines, line, key=_moment)
        self._lines.extend(batch[split:])
        excess = len(self._lines) - self.capacity
        if excess > 0:
            del self._lines[:excess]
            self.start += excess
        return True

    def since(self, number: int) -> list[LogLine]:
        """Lines from `number` on."""
        return self._lines[max(0, number - self.start) :]
