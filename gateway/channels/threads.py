"""A thread for a task: opened with what the task is, so that nobody ever finds an empty one."""

from __future__ import annotations

import logging

from gateway.channels.channel import Channel, ChannelError, Post, Refusal
from gateway.channels.measure import reach
from protocols.runs import one_line
from protocols.targets import Target

log = logging.getLogger("threads")

_NAME = 90
_UNITS = 1900


async def open_thread(channel: Channel, place: Target, name: str, text: str) -> Target:
    """A new thread in `place` that begins with `text`. Raises ChannelError; one that refuses `text` does not stay.

    Both come redacted and whole, and are cut here: half a secret would not be known as one.
    """
    thread = await channel.start_thread(place, None, one_line(name, _NAME))
    try:
        await channel.send(thread, Post(text[: reach(text, 0, _UNITS)]))
    except Refusal:
        await end_thread(channel, thread)
        raise
    except ChannelError as error:  # what comes later is written all the same
        log.info("%s begins without its task: %s", thread, error)
    return thread


async def end_thread(channel: Channel, thread: Target) -> None:
    """Nobody is to write in it any more. One that cannot be removed is named in the log."""
    try:
        await channel.end_thread(thread)
    except ChannelError as error:
        log.warning("%s stays, though nothing will be written in it: %s", thread, error)
