"""What an agent does, told in two channels for people to follow: its runs, and what agents give each other.

A courtesy, not a record: lines are gathered and posted together, a flood is cut with its count, and what a process had
not yet posted when it ended is not told. The record is the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection

from gateway.channels.channel import Channel, ChannelError, Post, Refusal, Unreachable
from protocols.runs import RunSource, RunState, RunSummary, one_line
from protocols.targets import Target

log = logging.getLogger("mirror")

PAUSE = 5.0
"""Seconds between two posts to one channel."""
KEPT = 200
"""Lines that wait; of more, the oldest are dropped and counted."""
_ROOM = 200
"""Characters of a post kept free for the line that says how many were dropped."""
_GLYPHS = {
    RunState.SUCCEEDED: "\N{WHITE HEAVY CHECK MARK}",
    RunState.FAILED: "\N{CROSS MARK}",
    RunState.LOST: "\N{CROSS MARK}",
    RunState.CANCELLED: "\N{BLACK SQUARE FOR STOP}",
    RunState.WAITING: "\N{HOURGLASS}",
}


class Mirror:
    """Hears of each change of a run, and tells of it; never waits for the channel."""

    def __init__(
        self,
        agent: str,
        channel: Channel,
        *,
        runs_to: Callable[[], Target | None],
        delegations_to: Callable[[], Target | None],
        agents: Callable[[], Collection[str]],
        redact: Callable[[str], str],
        pause: float = PAUSE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`agents()`: the names from which a run is a delegation."""
        self._agent = agent
        self._channel = channel
        self._runs_to = runs_to
        self._delegations_to = delegations_to
        self._agents = agents
        self._redact = redact
        self._pause = pause
        self._clock = clock
        self._told: dict[str, RunState] = {}
        self._lines: dict[str, _Lines] = {}
        self._wake = asyncio.Event()

    def changed(self, run: RunSummary) -> None:
        """A run was accepted, or its state is another."""
        before = self._told.get(run.run_id)
        if run.state is before:
            return
        delegated = run.caller in self._agents() and run.caller != self._agent
        if delegated and before is None and run.state is RunState.QUEUED:
            self._add(self._delegations_to(), f"**{run.caller} \N{RIGHTWARDS ARROW} {self._agent}**: {self._task(run)}")
        if run.state.ended:
            self._told.pop(run.run_id, None)
            outcome = f"{_GLYPHS.get(run.state, '')} **{self._agent}** {run.state.value}{self._figures(run)}"
            if delegated:
                arrow = "\N{RIGHTWARDS ARROW}"
                self._add(
                    self._delegations_to(),
                    f"**{self._agent} {arrow} {run.caller}**: {run.state.value}: {self._task(run)}",
                )
            if run.source is not RunSource.HEARTBEAT or run.state is not RunState.SUCCEEDED:
                self._add(self._runs_to(), f"{outcome}: {self._task(run)} (from {_person(run.caller)})")
        else:
            self._told[run.run_id] = run.state
            if run.state is RunState.WAITING:
                why = "" if _private(run) else one_line(self._redact(run.reason), 150)
                waits = f"waits ({why})" if why else "waits"
                self._add(self._runs_to(), f"{_GLYPHS[run.state]} **{self._agent}** {waits}: {self._task(run)}")

    async def serve(self) -> None:
        """Post what has gathered, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for lines in list(self._lines.values()):
                await self._flush(lines)
            await asyncio.sleep(self._pause)
            if any(lines.waiting for lines in self._lines.values()):
                self._wake.set()

    async def _flush(self, lines: _Lines) -> None:
        if not lines.waiting or not self._channel.ready:
            return
        text, count = lines.page(self._channel.limit)
        try:
            await self._channel.send(lines.target, Post(text))
        except Refusal as error:
            lines.drop(len(lines.waiting))
            log.warning("runs are not told in %s: %s", lines.target, error)
        except Unreachable as error:
            log.info("runs are told in %s later: %s", lines.target, error)
        except ChannelError as error:
            lines.drop(count)
            log.info("nobody knows whether runs were told in %s: %s", lines.target, error)
        else:
            lines.drop(count)

    def _add(self, target: Target | None, line: str) -> None:
        if target is None:
            return
        self._lines.setdefault(str(target), _Lines(target)).add(line)
        self._wake.set()

    def _task(self, run: RunSummary) -> str:
        """What it is about; not what somebody wrote to the agent alone."""
        if _private(run):
            return "a direct message"
        return one_line(self._redact(run.task), 200)

    def _figures(self, run: RunSummary) -> str:
        """Time, tokens and money, as far as they are known."""
        figures = []
        if run.started_at is not None and run.finished_at is not None:
            figures.append(f"{run.finished_at - run.started_at:.0f} s")
        if tokens := run.usage.input_tokens + run.usage.output_tokens:
            figures.append(f"{tokens} tokens")
        if run.cost_usd:
            figures.append(f"${run.cost_usd:.3f}")
        return f" ({', '.join(figures)})" if figures else ""


def _private(run: RunSummary) -> bool:
    """Was it written to the agent alone? Then neither that nor what is asked about it is for others to read."""
    return run.source is RunSource.CHAT and ":channel:" not in run.session_key


def _person(caller: str) -> str:
    """A name, or a person as Discord shows one (nobody is called by it: mentions are off)."""
    return f"<@{caller.rpartition(':')[2]}>" if ":user:" in caller else caller


class _Lines:
    """What waits for one channel."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.waiting: deque[str] = deque()
        self.dropped = 0

    def add(self, line: str) -> None:
        self.waiting.append(line)
        while len(self.waiting) > KEPT:
            self.waiting.popleft()
            self.dropped += 1

    def page(self, limit: int) -> tuple[str, int]:
        """(one post, how many of the lines are in it)."""
        chosen: list[str] = [f"... {self.dropped} earlier lines left out"] if self.dropped else []
        count, used = 0, sum(len(line) + 1 for line in chosen)
        for line in self.waiting:
            if count and used + len(line) + 1 > limit - _ROOM:
                break
            chosen.append(line[: limit - _ROOM])
            used += len(line) + 1
            count += 1
        return "\n".join(chosen), count

    def drop(self, count: int) -> None:
        """They were told, or never will be."""
        for _ in range(count):
            self.waiting.popleft()
        self.dropped = 0
