"""Pairing: a stranger's direct message waits until a person of the cluster has approved its author.

The stranger is told a code, and a question with the same code is put to the operator like any other approval. The
messages that waited are taken in when it is approved. Everything is in marks, so a restart forgets nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.channels.channel import Channel, ChannelError, Heard, Post
from gateway.channels.recent import shown_name
from gateway.ledger.posts import PostReader, PostStore
from protocols.approvals import Approval
from protocols.errors import StorageFull
from protocols.runs import one_line
from protocols.targets import Target

log = logging.getLogger("pairing")

ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Nothing that looks like something else."""
CODE_SECONDS = 3600.0
"""A code holds so long, and whoever was refused is not heard for so long."""
MOST_OPEN = 3
MOST_WAITING = 5
"""Messages of one stranger that are kept, the first ones."""
TELL_SECONDS = 600.0
"""One person is told something at most so often."""
TOOL = "pairing"
_RETRY_SECONDS = 5.0


class Questions(Protocol):
    """Questions to a person that no run asks."""

    async def put(self, key: str, tool: str, question: str, detail: str, seconds: float) -> Approval:
        """Put it once for `key`; it is open for so many seconds."""
        ...

    async def wait(self, approval_id: str) -> Approval:
        """The question once it is answered or has expired."""
        ...


class Stranger(msgspec.Struct, frozen=True):
    """Somebody who wrote and is not known: what waits, or until when nothing of theirs is heard."""

    person: Target
    name: str
    code: str
    until: float
    """When the code ends; of one who was refused, from when they may ask again."""
    told_at: float = 0.0
    told: bool = False
    refused: bool = False
    waiting: list[Heard] = []


class Paired(msgspec.Struct, frozen=True):
    """Somebody whose direct messages are answered."""

    name: str
    by: str
    """Who approved: `operator`, or a person's target."""
    at: float


_stranger = msgspec.json.Decoder(Stranger).decode
_paired = msgspec.json.Decoder(Paired).decode
_encode = msgspec.json.Encoder().encode


class Pairing:
    """The pairings of one agent on one provider."""

    def __init__(
        self,
        agent: str,
        channel: Channel,
        posts: PostStore,
        reader: PostReader,
        questions: Questions,
        take: Callable[[Heard], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.time,
        choice: Callable[[str], str] = secrets.choice,
    ) -> None:
        """`take(heard)`: a message that waited is taken in; repeating it does no harm."""
        self._agent = agent
        self._channel = channel
        self._posts = posts
        self._reader = reader
        self._questions = questions
        self._take = take
        self._clock = clock
        self._choice = choice
        self._prefix = f"pairing/{channel.provider}/"
        self._watches: dict[Target, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()

    def paired(self, person: Target) -> bool:
        return self._reader.mark(paired_mark(person)) is not None

    async def asked(self, heard: Heard) -> None:
        """A stranger wrote: once, this puts the question and tells them the code. Raises StorageFull."""
        person, now = heard.author.target, self._clock()
        async with self._lock:
            known = self._find(person)
            if known is not None and now >= known.until and not known.waiting:
                known = None
            if known is None:
                known = await self._begin(heard, now)
            elif not known.refused and _has_room(known, heard):
                known = await self._save(known, waiting=[*known.waiting, heard])
        if known is not None and not known.refused:
            if known.person in self._watches:
                await self._tell_code(known)  # where the first try failed
            self._watch(known)

    async def changed(self, message_id: str, text: str | None) -> None:
        """A message that may be waiting was edited, or deleted (None)."""
        async with self._lock:
            for known in self._all():
                if any(heard.id == message_id for heard in known.waiting):
                    kept = [
                        msgspec.structs.replace(heard, text=text or heard.text) if heard.id == message_id else heard
                        for heard in known.waiting
                        if heard.id != message_id or text is not None
                    ]
                    await self._save(known, waiting=kept)

    async def serve(self) -> None:
        """Go on with the questions that were open when the process ended; until cancelled."""
        for known in self._all():
            if not known.refused:
                self._watch(known)
        try:
            await asyncio.Event().wait()
        finally:
            watches = list(self._watches.values())
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def forget(self) -> None:
        """Who was refused and may ask again; raises StorageFull."""
        async with self._lock:
            for known in self._all():
                if known.refused and known.until <= self._clock():
                    await self._posts.unmark(self._prefix + known.person.id)

    # -- one stranger ------------------------------------------------------------------------------------------

    async def _begin(self, heard: Heard, now: float) -> Stranger | None:
        still_open = [known for known in self._all() if not known.refused]
        person = heard.author.target
        if len(still_open) >= MOST_OPEN:
            log.warning("%s is not heard: %d pairings wait for an answer", person, len(still_open))
            return None
        letters = "".join(self._choice(ALPHABET) for _ in range(8))
        code = f"{letters[:4]}-{letters[4:]}"
        name = shown_name(heard.author.name)
        return await self._save(Stranger(person, name, code, now + CODE_SECONDS, waiting=[heard]))

    def _watch(self, known: Stranger) -> None:
        if known.person not in self._watches:
            task = asyncio.create_task(self._see_through(known), name=f"pairing-{known.person.id}")
            self._watches[known.person] = task
            task.add_done_callback(lambda _: self._watches.pop(known.person, None))

    async def _see_through(self, known: Stranger) -> None:
        """From the question to its answer; each part may be repeated after a crash."""
        while True:
            try:
                asked = await self._question(known)
                await self._tell_code(known)
                answer = await self._questions.wait(asked.id)
                await (self._approved(known, answer) if answer.state == "approved" else self._turned_down(known))
                return
            except StorageFull as error:
                log.error("the pairing with %s waits: %s", known.person, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                log.exception("the pairing with %s goes on after a restart", known.person)
                return

    async def _question(self, known: Stranger) -> Approval:
        first = known.waiting[0].text if known.waiting else ""
        return await self._questions.put(
            f"{self._prefix}{known.person.id}/{known.code}",
            TOOL,
            f"{TOOL}: code {known.code}: may {known.name} ({known.person}) talk to {self._agent}?",
            f"wrote: {one_line(first, 300) or '(no words)'}\n"
            "Approve only if this person told you the code; the name is whatever they chose.",
            max(1.0, known.until - self._clock()),
        )

    async def _tell_code(self, known: Stranger) -> None:
        """Once. One who cannot be told can still be approved."""
        now = self._clock()
        if known.told or now - known.told_at < TELL_SECONDS or not known.waiting:
            return
        text = (
            f"I do not know you yet. Give this code to the person who runs {self._agent}: `{known.code}`. "
            "It holds for one hour. Your message is kept and answered once they have approved."
        )
        told = await self._say(known, text, f"pair-{known.code}")
        await self._update(known.person, told_at=now, told=told)

    async def _approved(self, known: Stranger, answer: Approval) -> None:
        paired = Paired(known.name, answer.answered_by or "operator", self._clock())
        await self._posts.mark(paired_mark(known.person), _encode(paired).decode())
        log.info("%s is paired, approved by %s", known.person, paired.by)
        latest = self._find(known.person) or known
        await self._say(latest, f"You are approved: {self._agent} answers you from now on.", f"paired-{known.code}")
        for heard in latest.waiting:
            await self._take(heard)
        await self._posts.unmark(self._prefix + known.person.id)

    async def _turned_down(self, known: Stranger) -> None:
        """Nothing more is said, and nothing heard for an hour."""
        until = self._clock() + CODE_SECONDS
        await self._update(known.person, refused=True, until=until, waiting=[])
        log.info("%s is not paired and not heard for an hour", known.person)

    async def _say(self, known: Stranger, text: str, nonce: str) -> bool:
        to = known.waiting[0].place.target if known.waiting else known.person
        try:
            await self._channel.send(to, Post(text, nonce=nonce))
        except ChannelError as error:
            log.warning("%s could not be told: %s", known.person, error)
            return False
        return True

    # -- what is kept ------------------------------------------------------------------------------------------

    def _all(self) -> list[Stranger]:
        return [_stranger(value) for value in self._reader.marks(self._prefix).values()]

    def _find(self, person: Target) -> Stranger | None:
        value = self._reader.mark(self._prefix + person.id)
        return None if value is None else _stranger(value)

    async def _save(self, known: Stranger, **changes: object) -> Stranger:
        known = msgspec.structs.replace(known, **changes)
        await self._posts.mark(self._prefix + known.person.id, _encode(known).decode())
        return known

    async def _update(self, person: Target, **changes: object) -> None:
        async with self._lock:
            if known := self._find(person):
                await self._save(known, **changes)


def _has_room(known: Stranger, heard: Heard) -> bool:
    return len(known.waiting) < MOST_WAITING and all(heard.id != other.id for other in known.waiting)


def paired_mark(person: Target) -> str:
    """The mark that somebody is paired."""
    return f"paired/{person.provider}/{person.id}"


def paired_people(reader: PostReader) -> list[tuple[Target, Paired]]:
    """All who are paired, on any provider; those who were first come first."""
    found = []
    for name, value in reader.marks("paired/").items():
        provider, _, id = name.partition("/")
        found.append((Target(provider, "user", id), _paired(value)))
    return sorted(found, key=lambda pair: pair[1].at)
