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

    def add(self, heard: Heard) -> None:
        said = self._channels.setdefault(heard.place.target, {})
        self._channels.move_to_end(heard.place.target)
        said[heard.id] = msgspec.structs.replace(heard, text=_short(heard.text), attachments=[])
        if len(said) > MESSAGES:
            del said[min(said, key=order)]
        if len(self._channels) > CHANNELS:
            gone, _ = self._channels.popitem(last=False)
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

    def find(self, place: Target, message_id: str) -> Heard | None:
        return self._channels.get(place, {}).get(message_id)

    def reword(self, place: Target, message_id: str, text: str) -> None:
        if heard := self.find(place, message_id):
            self._channels[place][message_id] = msgspec.structs.replace(heard, text=_short(text))

    def remove(self, place: Target, message_id: str) -> None:
        self._channels.get(place, {}).pop(message_id, None)

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


def _short(text: str) -> str:
    return text if len(text) <= CHARS else f"{text[:CHARS]}… ({len(text) - CHARS} characters more)"


def shown_name(name: str) -> str:
    """A person's or a file's name as a line of ours may hold it: outside text, which must not look like our own."""
    plain = "".join(c if c.isprintable() and c not in "[]()" else " " for c in whole(name))
    return one_line(plain, 80) or "no name"
