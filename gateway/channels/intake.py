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
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from gateway.channels.attachments import Inbox
from gateway.channels.channel import Author, Channel, ChannelError, Command, Heard, Place, Refusal
from gateway.channels.composing import key_of, own_words
from gateway.channels.hearing import deaf
from gateway.channels.lanes import Change, Lane, Lanes
from gateway.channels.lastheard import LastHeard, Mark
from gateway.channels.pairing import Pairing, Questions
from gateway.channels.recent import Recent, before, order
from gateway.channels.reception import Accept, Reception, at_place
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from protocols.errors import StorageFull
from protocols.targets import Target
from protocols.text import whole
from runtime.config_discord import Ears, InstanceDiscordTable

log = logging.getLogger("hearing")

CATCH_UP = 100
"""Messages of one channel that are read up on, the newest."""
CATCH_UP_SECONDS = 24 * 3600.0
"""What was said longer ago is not answered any more."""
SILENT_SECONDS = 30 * 24 * 3600.0
"""A place in which nothing was said for so long is forgotten, unless it is one of those that are always listened to."""
PATIENCE = 5.0
"""Seconds a message waits for the connection to stand; then it is taken in without its surroundings."""
_SEEN = 200
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


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
        self._lanes = Lanes(self._settle, self._catch_up)
        self._was_connected = False
        self._stands = asyncio.Event()
        self._reading = asyncio.Semaphore(2)

    # -- the listener ------------------------------------------------------------------------------------------

    def heard(self, message: Heard) -> None:
        place = message.place
        if place.kind != "direct" and (why := deaf(place, self._ears())):
            log.debug("message %s is not heard: %s", message.id, why)
            return
        lane = self._lanes.of(place.target)
        message = msgspec.structs.replace(message, text=whole(message.text), forwarded=whole(message.forwarded))
        lane.place = place
        if self._last.get(place.target.id) is None:
            self._last.advance(place, before(message.id), _person(message))
        self._lanes.put(lane, message)

    def edited(self, place: Target, message_id: str, text: str) -> None:
        self._changed(place, Change(message_id, whole(text)))

    def deleted(self, place: Target, message_id: str) -> None:
        self._changed(place, Change(message_id, None))

    def _changed(self, place: Target, change: Change) -> None:
        """Where nothing was ever heard, such as in servers that are not ours, nothing can change for us."""
        if self._last.get(place.id) is not None:
            self._lanes.put(self._lanes.of(place), change)

    def commanded(self, command: Command) -> None:
        self._on_command(command)

    def connected(self, gap: bool) -> None:
        self._stands.set()
        first, self._was_connected = not self._was_connected, True
        if not gap and not first:
            for lane in self._lanes:
                if lane.held is not None and not lane.behind:
                    self._last.advance(lane.held.place, lane.held.id)
            return
        self._recent.forget()
        for place in self._places():
            lane = self._lanes.of(place.target)
            lane.place = lane.place or place
            self._lanes.fall_behind(lane)

    async def serve(self) -> None:
        """Until cancelled."""
        self._lanes.open()
        keeping = [asyncio.create_task(part) for part in (self._last.serve(), self.pairing.serve())]
        try:
            await asyncio.gather(*keeping)
        finally:
            await self._lanes.close()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            with contextlib.suppress(StorageFull):
                await self._last.flush()

    async def forget(self) -> None:
        """What is remembered of people and places that can matter no longer; raises StorageFull."""
        await self.pairing.forget()
        for mark in self._last.all():
            if self._silent(mark) and self._lanes.idle(mark.place.target) and not self._listened_to(mark):
                await self._last.forget(mark.place.target.id)
        await self._reception.forget(lambda channel_id: self._last.get(channel_id) is None)

    def _silent(self, mark: Mark) -> bool:
        return self._clock() - mark.at > SILENT_SECONDS

    def _listened_to(self, mark: Mark) -> bool:
        """Is it missed what is said there while there is no connection, however long nothing was?"""
        if mark.place.kind == "thread":
            return False
        ears = self._ears()
        if mark.place.kind == "channel":
            return mark.place.guild is None or not deaf(mark.place, ears)
        person = mark.person
        return person is None or person.id in ears.users | ears.operators or self.pairing.paired(person)

    # -- one event --------------------------------------------------------------------------------------------

    async def _settle(self, lane: Lane, event: Heard | Change) -> None:
        if isinstance(event, Change):
            await self._insist(lane, lambda: self._change(lane, event))
            return
        if not self._channel.ready:
            await self._wait_for_connection()
            if lane.behind:  # what was missed is older
                self._lanes.put_back(lane, event)
                return
        await self._take(lane, event)
        if not lane.behind and self._channel.ready:
            self._last.advance(event.place, event.id, _person(event))
        else:
            lane.held = event

    async def _wait_for_connection(self) -> None:
        """A connection brings messages before it stands; then nothing can be asked yet of what is around them."""
        self._stands.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._stands.wait()

    async def _take(self, lane: Lane, heard: Heard) -> None:
        if heard.id in lane.seen:
            return
        await self._insist(lane, lambda: self._last.written(lane.target.id))
        await self._insist(lane, lambda: self._reception.take(heard))
        lane.seen[heard.id] = None
        if len(lane.seen) > _SEEN:
            lane.seen.popitem(last=False)

    async def _insist(self, lane: Lane, act: Callable[[], Coroutine[None, None, None]]) -> None:
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

    async def _change(self, lane: Lane, edit: Change) -> None:
        """Edited or deleted: it counts while its run has not begun."""
        key = key_of(self._channel.provider, edit.id)
        if edit.text is None:
            self._recent.remove(lane.target, edit.id)
            run_id = await self._ledger.withdraw(key, "its message was deleted")
        else:
            self._recent.reword(lane.target, edit.id, edit.text)
            text = self._redact(own_words(edit.text))
            run_id = await self._ledger.reword(key, text) if text else None
        await self.pairing.changed(edit.id, edit.text)
        if run_id is not None:
            log.info("%s was %s before it began", run_id, "withdrawn" if edit.text is None else "reworded")
            self._on_change(run_id)

    async def _take_paired(self, heard: Heard) -> None:
        """A message that waited until its author was approved."""
        await self._insist(self._lanes.of(heard.place.target), lambda: self._reception.take(heard))

    # -- catching up -------------------------------------------------------------------------------------------

    def _places(self) -> list[Place]:
        """Where something may have been missed: wherever we heard anything before, and what the configuration names."""
        ears, direct = self._ears(), self._table().dm != "off"
        places: dict[str, Place] = {}
        for place in (mark.place for mark in self._last.all()):
            unknown = place.kind == "channel" and place.guild is None
            if direct if place.kind == "direct" else unknown or not deaf(place, ears):
                places[place.target.id] = place
        for channel_id in (ears.channels or frozenset()) | ears.free:
            named = Place(Target(self._channel.provider, "channel", channel_id), "channel")
            places.setdefault(channel_id, named)
        return list(places.values())

    async def _catch_up(self, lane: Lane) -> None:
        """Take in what was said since the lane's mark; a channel never heard before begins at its newest message."""
        mark = self._last.get(lane.target.id)
        place = lane.place or (mark.place if mark is not None else None)
        gaps = lane.gaps
        try:
            async with self._reading:
                said = await self._channel.history(lane.target, limit=CATCH_UP if mark is not None else 1)
        except Refusal as error:
            log.warning("%s cannot be read up on: %s", lane.target, error)
            lane.behind = lane.gaps != gaps
            if error.reason == "unknown_target" and mark is not None and self._silent(mark):
                with contextlib.suppress(StorageFull):
                    await self._last.forget(lane.target.id)
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
        lane.behind, lane.held = lane.gaps != gaps, None
        if said:
            if not any(isinstance(event, Heard) for event in lane.queue):  # what waits may be older
                self._last.advance(said[-1].place, said[-1].id)
        elif mark is None and place is not None:
            self._last.advance(place, "0")

    async def _take_missed(self, lane: Lane, mark: str, said: list[Heard]) -> None:
        missed = [heard for heard in said if order(heard.id) > order(mark)]
        if len(missed) == CATCH_UP:
            log.warning("%s: of all that was missed, the newest %d messages are read", lane.target, CATCH_UP)
        since = self._clock() - CATCH_UP_SECONDS
        if too_old := sum(heard.at < since for heard in missed):
            log.info("%s: %d message(s) older than a day by this host's clock are not answered", lane.target, too_old)
        for heard in missed:
            if heard.at >= since:
                await self._take(lane, heard)


def _person(heard: Heard) -> Author | None:
    return None if heard.own else heard.author


def _pause(failures: int) -> float:
    """Seconds before the next try, after so many failures before this one."""
    return _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
