"""The agent's presence: at most one change in so many seconds, the newest wins, the same is not sent twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from gateway.channels.channel import Activity, ChannelError

log = logging.getLogger(__name__)

APART_SECONDS = 15.0
"""Discord takes about five changes in twenty seconds, and closes the connection of who sends more."""
MOST = 128
"""Characters of a custom status."""


class Shown(msgspec.Struct, frozen=True):
    activity: Activity = "idle"
    text: str = ""


class Presence:
    """`send` carries one presence to Discord."""

    def __init__(
        self,
        send: Callable[[Shown], Awaitable[None]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._send = send
        self._clock = clock
        self._sleep = sleep
        self._wanted = Shown()
        self._sent = Shown()
        self._last = float("-inf")
        self._changed = asyncio.Event()

    def show(self, activity: Activity, text: str) -> None:
        self._wanted = Shown(activity, " ".join(text.split())[:MOST])
        if self._wanted != self._sent:
            self._changed.set()

    def for_identify(self) -> Shown:
        """What a new connection begins with; it travels with it and needs no change."""
        self._sent = self._wanted
        self._last = self._clock()
        return self._sent

    async def serve(self) -> None:
        """Send what is shown, for the connection's life."""
        while True:
            await self._changed.wait()
            await self._sleep(max(0.0, self._last + APART_SECONDS - self._clock()))
            self._changed.clear()
            wanted = self._wanted
            if wanted == self._sent:
                continue
            self._last = self._clock()
            try:
                await self._send(wanted)
                self._sent = wanted
            except ChannelError as error:
                log.debug("the presence was not changed: %s", error)
