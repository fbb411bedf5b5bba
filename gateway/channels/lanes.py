"""Lanes: what is heard in one channel is settled one after the other, in its order; the channels beside each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from gateway.channels.channel import Heard, Place
from protocols.targets import Target

log = logging.getLogger("hearing")

WAITING = 1000
"""Messages in all lanes that wait for their turn; more are read from the history later."""
_LANES = 500


class Change(msgspec.Struct, frozen=True):
    """A message was edited, or deleted."""

    id: str
    text: str | None
    """None: it was deleted."""


class Lane:
    """One channel: what waits, and whether its history must be read."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.place: Place | None = None
        self.queue: deque[Heard | Change] = deque()
        self.seen: OrderedDict[str, None] = OrderedDict()
        """Ids that are settled; the newest."""
        self.behind = False
        """Something was said that we did not hear: the history comes first, for it is older."""
        self.gaps = 0
        """How often it fell behind: once more while its history is read, and that must be read again."""
        self.overflowed = False
        """Something did not fit: newer than all that waits, so the history comes after it."""
        self.due = 0.0
        """When the history is read, as the loop's time."""
        self.failures = 0
        self.held: Heard | None = None
        """The newest that is settled but was heard before it was known whether something older was missed."""
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        waits = self.queue or self.behind or self.overflowed
        return self.task is None and not waits and self.held is None


class Lanes:
    """All lanes; each has a task while there is something to do in it."""

    def __init__(
        self,
        settle: Callable[[Lane, Heard | Change], Awaitable[None]],
        catch_up: Callable[[Lane], Awaitable[None]],
    ) -> None:
        """`catch_up(lane)` reads its history, and leaves it behind with another `due` if that must wait."""
        self._settle = settle
        self._catch_up = catch_up
        self._lanes: OrderedDict[Target, Lane] = OrderedDict()
        self._waiting = 0
        self._open = False

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def of(self, target: Target) -> Lane:
        lane = self._lanes.get(target)
        if lane is None:
            if len(self._lanes) >= _LANES and (
                idle := next((t for t, other in self._lanes.items() if other.idle), None)
            ):
                del self._lanes[idle]
            lane = self._lanes[target] = Lane(target)
        self._lanes.move_to_end(target)
        return lane

    def idle(self, target: Target) -> bool:
        """Is nothing to be done there?"""
        lane = self._lanes.get(target)
        return lane is None or lane.idle

    def put(self, lane: Lane, event: Heard | Change) -> None:
        """Behind all that waits there; what does not fit is read from the history later."""
        if self._waiting < WAITING and not (lane.overflowed and isinstance(event, Heard)):
            self._waiting += 1
            lane.queue.append(event)
            lane.wake.set()
            self._start(lane)
        elif isinstance(event, Heard) and not lane.overflowed:
            log.warning("%s: too much at once; the rest is read from its history", lane.target)
            lane.overflowed = True
            lane.wake.set()
            self._start(lane)

    def put_back(self, lane: Lane, event: Heard | Change) -> None:
        """It is not its turn yet."""
        self._waiting += 1
        lane.queue.appendleft(event)

    def fall_behind(self, lane: Lane) -> None:
        lane.behind, lane.due, lane.failures = True, 0.0, 0
        lane.gaps += 1
        lane.wake.set()
        self._start(lane)

    def open(self) -> None:
        """From now on the lanes are worked on."""
        self._open = True
        for lane in self:
            if lane.queue or lane.behind or lane.overflowed:
                self._start(lane)

    async def close(self) -> None:
        """Break off, between or in the middle of messages; those are heard again after the next start."""
        self._open = False
        tasks = [lane.task for lane in self if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, lane: Lane) -> None:
        if self._open and lane.task is None:
            lane.task = asyncio.create_task(self._work(lane), name=f"hearing-{lane.target.id}")

    async def _work(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        try:
            while lane.queue or lane.behind or lane.overflowed:
                lane.wake.clear()
                if lane.behind and lane.due <= loop.time():
                    await self._catch_up(lane)
                elif lane.queue:
                    self._waiting -= 1
                    await self._settle(lane, lane.queue.popleft())
                elif lane.overflowed:
                    lane.overflowed = False
                    if not lane.behind:
                        self.fall_behind(lane)
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(lane.due):
                            await lane.wake.wait()
        except Exception:
            log.exception("hearing %s broke off; it goes on with the next message", lane.target)
        finally:
            lane.task = None
