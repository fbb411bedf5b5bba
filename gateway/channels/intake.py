"""What an agent hears: one message after the other in each channel, and what it missed while it was away.

Each channel is a lane with its own order. Nothing is lost between hearing and the ledger: a lane's mark moves past a
message only when that is settled, and whatever cannot be queued, or was said without a connection, is read again from
the channel's history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from gateway.channels.attachments import Inbox
from gateway.channels.channel import Channel, ChannelError, Command, Heard, Place, Refusal
from gateway.channels.composing import key_of
from gateway.channels.hearing import deaf
from gateway.channels.lastheard import LastHeard
from gateway.channels.pairing import Pairing, Questions
from gateway.channels.recent import Recent, before, order
from gateway.channels.reception import Accept, Reception, at_place
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from protocols.errors import StorageFull
from protocols.targets import Target
from runtime.config_discord import Ears, InstanceDiscordTable

log = logging.getLogger("hearing")

WAITING = 1000
"""Messages in all lanes that wait for their turn; more are read from the history later."""
CATCH_UP = 100
"""Messages of one channel that are read up on, the newest."""
CATCH_UP_SECONDS = 24 * 3600.0
"""What was said longer ago is not answered any more."""
THREAD_SECONDS = 30 * 24 * 3600.0
"""A thread in which nothing was said for so long is forgotten."""
_SEEN = 200
_LANES = 500
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


class _Edit(msgspec.Struct, frozen=True):
    id: str
    text: str | None
    """None: it was deleted."""


class _Lane:
    """One channel: what waits, and whether its history must be read."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.place: Place | None = None
        self.queue: deque[Heard | _Edit] = deque()
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.behind = False
        self.held: Heard | None = None
        """The newest that is settled but was heard before it was known whether something older was missed."""
        self.due = 0.0
        self.failures = 0
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()


class Intake:
    """Listens to one channel provider for one agent."""

    def __init__(
        self,
        agent: str,
        channel: Channel,
        ledger: Ledger,
        reader: Reader,
        questions: Questions,
        *,
        table: Callable[[], InstanceDiscordTable],
        ears: Callable[[], Ears],
        workspace: Callable[[], Path],
        accept: Accept,
        on_change: Callable[[str], None],
        on_command: Callable[[Command], None],
        redact: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change(run_id)`: a run that waits was reworded or withdrawn. `questions`: where pairings are put."""
        self._channel = channel
        self._ledger = ledger
        self._table = table
        self._ears = ears
        self._on_change = on_change
        self._on_command = on_command
        self._redact = redact
        self._clock = clock
        self._recent = Recent()
        self._last = LastHeard(ledger.posts, reader.posts, channel.provider, clock)
        self.pairing = Pairing(agent, channel, ledger.posts, reader.posts, questions, self._take_paired, clock=clock)
        self._reception = Reception(
            agent,
            channel,
            ledger,
            reader,
            self._recent,
            self.pairing,
            Inbox(channel, workspace),
            table=table,
            ears=ears,
            accept=accept,
            redact=redact,
        )
        self._lanes: OrderedDict[Target, _Lane] = OrderedDict()
        self._waiting = 0
        self._open = False
        self._was_connected = False
        self._reading = asyncio.Semaphore(2)

    # -- the listener ------------------------------------------------------------------------------------------

    def heard(self, message: Heard) -> None:
        place = message.place
        if place.kind != "direct" and (why := deaf(place, self._ears())):
            log.debug("message %s is not heard: %s", message.id, why)
            return
        lane = self._lane(place.target)
        lane.place = place
        if self._last.get(place.target.id) is None:
            self._last.advance(place, before(message.id))
        self._put(lane, message)

    def edited(self, place: Target, message_id: str, text: str) -> None:
        self._put(self._lane(place), _Edit(message_id, text))

    def deleted(self, place: Target, message_id: str) -> None:
        self._put(self._lane(place), _Edit(message_id, None))

    def commanded(self, command: Command) -> None:
        self._on_command(command)

    def connected(self, gap: bool) -> None:
        first, self._was_connected = not self._was_connected, True
        if not gap and not first:
            for lane in self._lanes.values():
                if lane.held is not None and not lane.behind:
                    self._last.advance(lane.held.place, lane.held.id)
            return
        self._recent.forget()
        for place in self._places():
            lane = self._lane(place.target)
            lane.place = lane.place or place
            self._fall_behind(lane)

    async def serve(self) -> None:
        """Until cancelled."""
        self._open = True
        keeping = [asyncio.create_task(part) for part in (self._last.serve(), self.pairing.serve())]
        for lane in list(self._lanes.values()):
            self._start(lane)
        try:
            await asyncio.gather(*keeping)
        finally:
            self._open = False
            tasks = [*keeping, *(lane.task for lane in self._lanes.values() if lane.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(StorageFull):
                await self._last.flush()

    # -- lanes -------------------------------------------------------------------------------------------------

    def _lane(self, target: Target) -> _Lane:
        lane = self._lanes.get(target)
        if lane is None:
            lane = self._lanes[target] = _Lane(target)
            idle = next((t for t, other in self._lanes.items() if other.task is None and not other.behind), target)
            if len(self._lanes) > _LANES and idle != target:
                del self._lanes[idle]
        self._lanes.move_to_end(target)
        return lane

    def _put(self, lane: _Lane, event: Heard | _Edit) -> None:
        if self._waiting < WAITING:
            self._waiting += 1
            lane.queue.append(event)
            lane.wake.set()
            self._start(lane)
        elif isinstance(event, Heard):
            log.warning("%s: too much at once; the rest is read from its history", lane.target)
            self._fall_behind(lane)

    def _fall_behind(self, lane: _Lane) -> None:
        lane.behind, lane.due, lane.failures = True, 0.0, 0
        lane.wake.set()
        self._start(lane)

    def _start(self, lane: _Lane) -> None:
        if self._open and lane.task is None:
            lane.task = asyncio.create_task(self._work(lane), name=f"hearing-{lane.target.id}")

    async def _work(self, lane: _Lane) -> None:
        """Everything that a lane holds, in its order; what was missed comes first, for it is older."""
        loop = asyncio.get_running_loop()
        try:
            while lane.queue or lane.behind:
                lane.wake.clear()
                if lane.behind and lane.due <= loop.time():
                    await self._catch_up(lane)
                elif lane.queue:
                    self._waiting -= 1
                    await self._settle(lane, lane.queue.popleft())
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(lane.due):
                            await lane.wake.wait()
        finally:
            lane.task = None

    async def _settle(self, lane: _Lane, event: Heard | _Edit) -> None:
        if isinstance(event, _Edit):
            await self._insist(lane, lambda: self._change(lane, event))
            return
        await self._take(lane, event)
        if not lane.behind and self._channel.ready:
            self._last.advance(event.place, event.id)
        else:
            lane.held = event

    async def _take(self, lane: _Lane, heard: Heard) -> None:
        if heard.id in lane.seen:
            return
        await self._insist(lane, lambda: self._last.written(lane.target.id))
        await self._insist(lane, lambda: self._reception.take(heard))
        lane.seen[heard.id] = None
        if len(lane.seen) > _SEEN:
            lane.seen.popitem(last=False)

    async def _insist(self, lane: _Lane, act: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do it; while the disk is full, again and again. A message that breaks us is left behind, with a word."""
        failures = 0
        while True:
            try:
                return await act()
            except StorageFull as error:
                pause = _pause(failures)
                failures += 1
                log.error("%s waits %.0f s: %s", lane.target, pause, error)
                await asyncio.sleep(pause)
            except Exception:
                log.exception("a message in %s could not be taken in", lane.target)
                return

    async def _change(self, lane: _Lane, edit: _Edit) -> None:
        """Edited or deleted: it counts while its run has not begun."""
        key = key_of(self._channel.provider, edit.id)
        if edit.text is None:
            self._recent.remove(lane.target, edit.id)
            run_id = await self._ledger.withdraw(key, "its message was deleted")
        else:
            self._recent.reword(lane.target, edit.id, edit.text)
            text = self._redact(edit.text.strip())
            run_id = await self._ledger.reword(key, text) if text else None
        await self.pairing.changed(edit.id, edit.text)
        if run_id is not None:
            log.info("%s was %s before it began", run_id, "withdrawn" if edit.text is None else "reworded")
            self._on_change(run_id)

    async def _take_paired(self, heard: Heard) -> None:
        """A message that waited until its author was approved."""
        await self._insist(self._lane(heard.place.target), lambda: self._reception.take(heard))

    # -- catching up -------------------------------------------------------------------------------------------

    def _places(self) -> list[Place]:
        """Where something may have been missed: wherever we heard anything before, and what the configuration names."""
        ears, now = self._ears(), self._clock()
        places: dict[str, Place] = {}
        for mark in self._last.all():
            stale = mark.place.kind == "thread" and now - mark.at > THREAD_SECONDS
            unknown = mark.place.kind == "channel" and mark.place.guild is None
            if not stale and (mark.place.kind == "direct" or unknown or not deaf(mark.place, ears)):
                places[mark.place.target.id] = mark.place
        for channel_id in (ears.channels or frozenset()) | ears.free:
            named = Place(Target(self._channel.provider, "channel", channel_id), "channel")
            places.setdefault(channel_id, named)
        return list(places.values())

    async def _catch_up(self, lane: _Lane) -> None:
        """Take in what was said since the lane's mark; a channel never heard before begins at its newest message."""
        mark = self._last.get(lane.target.id)
        place = lane.place or (mark.place if mark is not None else None)
        try:
            async with self._reading:
                said = await self._channel.history(lane.target, limit=CATCH_UP if mark is not None else 1)
        except Refusal as error:
            log.warning("%s cannot be read up on: %s", lane.target, error)
            lane.behind = False
            return
        except ChannelError as error:
            pause = max(getattr(error, "retry_after", None) or 0.0, _pause(lane.failures))
            lane.failures += 1
            lane.due = asyncio.get_running_loop().time() + pause
            log.debug("%s is read up on in %.0f s: %s", lane.target, pause, error)
            return
        said = [at_place(heard, place) for heard in said]
        if mark is not None:
            await self._take_missed(lane, mark.id, said)
        lane.behind, lane.held = False, None
        if said:
            self._last.advance(said[-1].place, said[-1].id)
        elif mark is None and place is not None:
            self._last.advance(place, "0")

    async def _take_missed(self, lane: _Lane, mark: str, said: list[Heard]) -> None:
        missed = [heard for heard in said if order(heard.id) > order(mark)]
        if len(missed) == CATCH_UP:
            log.warning("%s: of all that was missed, the newest %d messages are read", lane.target, CATCH_UP)
        since = self._clock() - CATCH_UP_SECONDS
        for heard in missed:
            if heard.at >= since:
                await self._take(lane, heard)


def _pause(failures: int) -> float:
    """Seconds before the next try, after so many failures before this one."""
    return _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
