"""One message, from the decision to its run. Taking the same message in twice gives one run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.channels.channel import Channel, ChannelError, Heard, Place
from gateway.channels.composing import Around, File, compose, key_of, line_of, session_of
from gateway.channels.hearing import Known, Verdict, deaf, judge, listens_to
from gateway.channels.recent import Recent, before, order
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewRun
from gateway.ledger.transcript import message_lines
from protocols.runs import RunState, one_line
from protocols.targets import Target
from protocols.text import whole
from runtime.config_discord import Ears, InstanceDiscordTable

log = logging.getLogger("hearing")

Accept = Callable[[NewRun], Awaitable[tuple[str, RunState, bool]]]

PARENT_MESSAGES = 8
PARENT_CHARS = 4000
"""Of a channel's conversation, for the first run of a thread in it."""
MOST_OPEN = 150
"""Requests of one person that have not ended; more are not heard until some have."""
MOST_IN_SESSION = 300
"""The same of all people in one conversation."""
_THREAD_NAME = 80
_BOTS = "bots/"


class Strangers(Protocol):
    """Those who are not known yet."""

    def paired(self, person: Target) -> bool: ...

    async def asked(self, heard: Heard) -> None: ...


class Files(Protocol):
    """Where attachments go."""

    async def receive(self, heard: Heard, most: int) -> list[File]: ...


class Reception:
    """Takes messages in for one agent."""

    def __init__(
        self,
        agent: str,
        channel: Channel,
        ledger: Ledger,
        reader: Reader,
        recent: Recent,
        strangers: Strangers,
        files: Files,
        *,
        table: Callable[[], InstanceDiscordTable],
        ears: Callable[[], Ears],
        accept: Accept,
        redact: Callable[[str], str],
    ) -> None:
        self._agent = agent
        self._channel = channel
        self._ledger = ledger
        self._reader = reader
        self._recent = recent
        self._strangers = strangers
        self._files = files
        self._table = table
        self._ears = ears
        self._accept = accept
        self._redact = redact
        self._too_many: set[Target] = set()
        """Of whom it was said that they ask for too much."""

    async def take(self, heard: Heard) -> None:
        """Decide, and make the run. Raises StorageFull; then nothing is lost by taking it in again."""
        verdict = await self._decide(heard)
        if verdict.outcome == "accept":
            if not self._known(heard) and self._has_room(heard):
                await self._make_run(heard)
        elif verdict.outcome == "pair":
            await self._strangers.asked(heard)
        else:
            log.debug("message %s of %s is not answered: %s", heard.id, heard.author.target, verdict.reason)
        if heard.place.kind != "direct" and (heard.own or listens_to(heard.author, self._ears())):
            self._recent.add(heard)

    async def _decide(self, heard: Heard) -> Verdict:
        answers = self._bot_answers(heard.place)
        by_person = not heard.own and not heard.author.bot
        if answers and by_person and not deaf(heard.place, self._ears()):
            await self._count_bots(heard.place, 0)
        known = Known(paired=self._strangers.paired(heard.author.target), bot_answers=answers)
        return judge(heard, self._ears(), self._table(), known)

    def _known(self, heard: Heard) -> bool:
        """Is it a run already?"""
        return self._reader.has_key(str(heard.author.target), key_of(self._channel.provider, heard.id))

    def _has_room(self, heard: Heard) -> bool:
        """Is there not too much of theirs, or in that conversation, already? Operators always have room."""
        person = heard.author.target
        if person.id in self._ears().operators:
            return True
        session = session_of(self._agent, heard.place, heard.author, self._table().dm_session)
        if self._reader.open_runs_of(str(person)) < MOST_OPEN and self._reader.open_runs_in(session) < MOST_IN_SESSION:
            self._too_many.discard(person)
            return True
        if person not in self._too_many:
            self._too_many.add(person)
            log.warning("%s asks for too much at once: %s and what follows is not heard for now", person, heard.id)
        return False

    async def _make_run(self, heard: Heard) -> None:
        table = self._table()
        files = await self._files.receive(heard, int(table.attachment_mb * 1_000_000))
        place = await self._thread(heard) if table.threads else heard.place
        session = session_of(self._agent, place, heard.author, table.dm_session)
        around = Around(
            answers=await self._answered(heard),
            before=await self._before(heard, table.history),
            parent=await self._inherited(place, session, began_here=place is heard.place),
            files=files,
        )
        run_id, _, fresh = await self._accept(compose(heard, place, session, around, self._redact))
        if fresh:
            log.info("%s: %s wrote %s", run_id, heard.author.target, one_line(self._redact(heard.text), 120))
            if heard.author.bot:
                await self._count_bots(heard.place, self._bot_answers(heard.place) + 1)

    # -- where it is answered ----------------------------------------------------------------------------------

    async def _thread(self, heard: Heard) -> Place:
        """A thread made from a mention in a channel; where that cannot be, the channel."""
        if heard.place.kind != "channel" or not heard.mentions_me:
            return heard.place
        name = one_line(heard.text, _THREAD_NAME) or f"{heard.author.name} and {self._agent}"
        try:
            made = await self._channel.start_thread(heard.place.target, heard.id, name)
        except ChannelError as error:
            log.warning("message %s is answered in the channel, for no thread could be made: %s", heard.id, error)
            return heard.place
        parent = heard.place.target
        return Place(made, "thread", name, heard.place.guild, parent=parent, started_from=heard.id)

    # -- what is around it -------------------------------------------------------------------------------------

    async def _before(self, heard: Heard, most: int) -> list[Heard]:
        """The history window; a direct message needs none, for its session holds it all."""
        if heard.place.kind == "direct" or most == 0:
            return []
        place = heard.place.target
        if not self._recent.complete(place):
            self._recent.fill(place, [h for h in await self._history(place, limit=most + 1) if self._may_show(h)])
        return self._recent.window(heard, most, self._known)

    async def _answered(self, heard: Heard) -> Heard | None:
        if heard.reply_to is None:
            return None
        found = self._recent.find(heard.place.target, heard.reply_to)
        if found is None:
            read = await self._history(heard.place.target, after=before(heard.reply_to), limit=1)
            found = next((h for h in read if h.id == heard.reply_to), None)
        return found

    async def _inherited(self, place: Place, session: str, *, began_here: bool) -> str:
        """What a thread's first run is told of its channel: the agent's own conversation there, else what was said."""
        if place.kind != "thread" or place.parent is None or self._reader.conversations.begun(session):
            return ""
        parent = Place(place.parent, "channel")
        key = f"agent:{self._agent}:{parent.target.provider}:channel:{parent.target.id}"
        lines = [
            "\n".join(message_lines(message, 500))
            for message in self._reader.conversations.transcript(key, PARENT_MESSAGES)
        ]
        if not lines and began_here:
            said = await self._history(parent.target, limit=PARENT_MESSAGES)
            upto = place.started_from
            lines = [line_of(h) for h in said if self._may_show(h) and (upto is None or order(h.id) <= order(upto))]
        return "\n\n".join(lines)[-PARENT_CHARS:]

    async def _history(self, place: Target, *, after: str | None = None, limit: int) -> list[Heard]:
        """What can be read of it: an answer without its surroundings is better than none."""
        try:
            return [at_place(h, None) for h in await self._channel.history(place, after=after, limit=limit)]
        except ChannelError as error:
            log.warning("what was said in %s before is not shown: %s", place, error)
            return []

    def _may_show(self, heard: Heard) -> bool:
        return heard.own or listens_to(heard.author, self._ears())

    # -- bots in a row -----------------------------------------------------------------------------------------

    def _bot_answers(self, place: Place) -> int:
        return int(self._reader.posts.mark(_bots(place)) or 0)

    async def forget(self, gone: Callable[[str], bool]) -> None:
        """Who spoke last in channels that are `gone(channel id)`; raises StorageFull."""
        prefix = f"{_BOTS}{self._channel.provider}/"
        for channel_id in self._reader.posts.marks(prefix):
            if gone(channel_id):
                await self._ledger.posts.unmark(prefix + channel_id)

    async def _count_bots(self, place: Place, answers: int) -> None:
        if answers:
            await self._ledger.posts.mark(_bots(place), str(answers))
        else:
            await self._ledger.posts.unmark(_bots(place))


def _bots(place: Place) -> str:
    return f"{_BOTS}{place.target.provider}/{place.target.id}"


def at_place(heard: Heard, place: Place | None) -> Heard:
    """A message of a history, at its channel as that was heard live, for it may say more than a history can."""
    heard = msgspec.structs.replace(heard, text=whole(heard.text), forwarded=whole(heard.forwarded))
    if place is None or (place.kind == "channel" and place.guild is None):
        return heard
    return msgspec.structs.replace(heard, place=place)
