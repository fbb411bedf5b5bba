"""What was said lately in each channel, for those who are asked something there. Held in memory only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from gateway.channels.channel import Heard
from protocols.runs import one_line
from protocols.targets import Target
from protocols.text import whole

MESSAGES = 120
"""Of one channel."""
CHANNELS = 200
CHARS = 1000
"""Of one message's text."""
ROOM = 1_500_000
"""Bytes of all channels, about: beyond it the quietest is forgotten, and its history read when it is needed."""
_OVERHEAD = 1000
"""Bytes of one message beside its text, about."""


def order(message_id: str) -> tuple[int, ...]:
    """Ids of one channel grow with time: `order(a) < order(b)` where `a` is the older message."""
    return tuple(int(part) for part in message_id.split(".") if part.isdigit())


def before(message_id: str) -> str:
    """The greatest id that is older."""
    head, _, tail = message_id.rpartition(".")
    return f"{head}{'.' if head else ''}{int(tail) - 1}"


class Recent:
    """The newest messages of each channel, by id. A channel is complete once its history was read."""

    def __init__(self) -> None:
        self._channels: OrderedDict[Target, dict[str, Heard]] = OrderedDict()
        self._complete: set[Target] = set()
        self._taken = 0

    def add(self, heard: Heard) -> None:
        said = self._channels.setdefault(heard.place.target, {})
        self._channels.move_to_end(heard.place.target)
        self._put(
            said,
            msgspec.structs.replace(heard, text=_short(heard.text), forwarded=_short(heard.forwarded), attachments=[]),
        )
        if len(said) > MESSAGES:
            self._drop(said, min(said, key=order))
        while len(self._channels) > CHANNELS or (self._taken > ROOM and len(self._channels) > 1):
            gone, quiet = self._channels.popitem(last=False)
            self._taken -= sum(map(_size, quiet.values()))
            self._complete.discard(gone)

    def fill(self, place: Target, history: Iterable[Heard]) -> None:
        """Its history was read; what was heard since counts more, for it may have been edited."""
        known = self._channels.get(place, {})
        for heard in history:
            if heard.id not in known:
                self.add(msgspec.structs.replace(heard, place=msgspec.structs.replace(heard.place, target=place)))
        self._complete.add(place)

    def complete(self, place: Target) -> bool:
        return place in self._complete

    def forget(self) -> None:
        """Something was missed: histories are read again when they are needed."""
        self._channels.clear()
        self._complete.clear()
        self._taken = 0

    def find(self, place: Target, message_id: str) -> Heard | None:
        return self._channels.get(place, {}).get(message_id)

    def reword(self, place: Target, message_id: str, text: str) -> None:
        if heard := self.find(place, message_id):
            self._put(self._channels[place], msgspec.structs.replace(heard, text=_short(text)))

    def remove(self, place: Target, message_id: str) -> None:
        self._drop(self._channels.get(place, {}), message_id)

    def _put(self, said: dict[str, Heard], heard: Heard) -> None:
        self._drop(said, heard.id)
        said[heard.id] = heard
        self._taken += _size(heard)

    def _drop(self, said: dict[str, Heard], message_id: str) -> None:
        if (gone := said.pop(message_id, None)) is not None:
            self._taken -= _size(gone)

    def window(self, heard: Heard, most: int, answered: Callable[[Heard], bool]) -> list[Heard]:
        """What others said before `heard`, since the last message that was `answered`: at most so many, oldest first.

        Our own messages are left out: they stand in the session.
        """
        found: list[Heard] = []
        said = self._channels.get(heard.place.target, {})
        for message_id in sorted((i for i in said if order(i) < order(heard.id)), key=order, reverse=True):
            if len(found) >= most or answered(said[message_id]):
                break
            if not said[message_id].own:
                found.append(said[message_id])
        return found[::-1]


def _size(heard: Heard) -> int:
    return _OVERHEAD + len(heard.text) + len(heard.forwarded)


def _short(text: str) -> str:
    return text if len(text) <= CHARS else f"{text[:CHARS]}… ({len(text) - CHARS} characters more)"


def shown_name(name: str) -> str:
    """A person's or a file's name as a line of ours may hold it: outside text, which must not look like our own."""
    plain = "".join(c if c.isprintable() and c not in "[]()" else " " for c in whole(name))
    return one_line(plain, 80) or "no name"
