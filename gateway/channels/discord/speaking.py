"""What a connected bot does: each call one request or two, each failure one of the port's errors."""

from __future__ import annotations

import datetime
import io
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import discord

from gateway.channels.channel import Button, Heard, Post, Posted, Refusal
from gateway.channels.discord import reading
from gateway.channels.discord.errors import MALFORMED, Asking
from gateway.channels.discord.resolving import resolve
from protocols.targets import Target

if TYPE_CHECKING:
    from gateway.channels.discord.client import BotClient

UPLOAD_SECONDS = 90.0
ARCHIVED, NO_REPLYING, HAS_THREAD = 50083, 160002, 160004
"""Who may not read a channel's history may not answer a message in it; the words are said all the same."""
THREAD_MINUTES: Literal[1440] = 1440
"""A thread is archived after a day of silence; a message opens it again."""
NAME_LIMIT = 100
PAGE, MOST_PAGES = 100, 20
"""Messages of one request to a history, and requests of one reading."""

_STYLES = {
    "good": discord.ButtonStyle.success,
    "bad": discord.ButtonStyle.danger,
    "plain": discord.ButtonStyle.secondary,
}
T = TypeVar("T")

log = logging.getLogger(__name__)


class Speaker:
    """Of one connected client. Its calls are those of the channel port and raise ChannelError."""

    def __init__(self, client: BotClient, known: Callable[[str], Target | None]) -> None:
        """`known(id)`: what our own records say a bare id is."""
        self._client = client
        self._known = known
        self._seconds = client.limits.call

    async def resolve(self, ident: str) -> Target:
        return await resolve(self._client, ident, self._known)

    async def send(self, to: Target, post: Post) -> Posted:
        """Without a nonce of the caller's the library makes one, so its repeats after a rate limit never post twice."""
        seconds = UPLOAD_SECONDS if post.files else self._seconds
        channel = await self._channel(to)
        more: dict[str, Any] = {}
        if post.nonce is not None:
            more["nonce"] = post.nonce
        if post.reply_to is not None:
            more["reference"] = discord.MessageReference(
                message_id=int(post.reply_to), channel_id=channel.id, fail_if_not_exists=False
            )
            more["mention_author"] = False
        if post.buttons:
            more["view"] = _view(post.buttons)
        async with Asking(f"sending to {to}", seconds, once=True):
            try:
                message = await channel.send(post.text or None, files=_files(post), **more)
            except discord.HTTPException as error:
                if error.code != NO_REPLYING or "reference" not in more:
                    raise
                del more["reference"]
                message = await channel.send(post.text or None, files=_files(post), **more)
        return Posted(reading.channel_target(channel.id), str(message.id))

    async def edit(self, posted: Posted, text: str, buttons: Sequence[Button]) -> None:
        message = self._message(posted.place, posted.message_id)
        view = _view(buttons) if buttons else None
        async with Asking(f"editing a message in {posted.place}", self._seconds):
            await self._in_open_thread(posted.place, lambda: message.edit(content=text, view=view))

    async def delete(self, posted: Posted) -> None:
        message = self._message(posted.place, posted.message_id)
        try:
            async with Asking(f"deleting a message in {posted.place}", self._seconds):
                await self._in_open_thread(posted.place, message.delete)
        except Refusal as refusal:
            if refusal.reason != "unknown_message":
                raise

    async def react(self, place: Target, message_id: str, emoji: str) -> None:
        message = self._message(place, message_id)
        async with Asking(f"reacting in {place}", self._seconds):
            await self._in_open_thread(place, lambda: message.add_reaction(emoji))

    async def unreact(self, place: Target, message_id: str, emoji: str) -> None:
        message = self._message(place, message_id)
        async with Asking(f"taking back a reaction in {place}", self._seconds):
            await self._in_open_thread(place, lambda: message.remove_reaction(emoji, self._client.me))

    async def typing(self, to: Target) -> None:
        channel = await self._channel(to)
        async with Asking(f"showing that it types in {to}", self._seconds):
            await channel.typing()

    async def start_thread(self, place: Target, message_id: str | None, name: str) -> Target:
        """A thread made from a message has the message's id, so the one that is there needs no search."""
        name = " ".join(name.split())[:NAME_LIMIT] or "thread"
        self._may_write_in_threads(place)
        async with Asking(f"starting a thread in {place}", self._seconds):
            if message_id is None:
                made = await self._client.http.start_thread_without_message(
                    int(place.id), name=name, type=11, auto_archive_duration=THREAD_MINUTES
                )
                return reading.channel_target(made["id"])
            try:
                await self._client.http.start_thread_with_message(
                    int(place.id), int(message_id), name=name, auto_archive_duration=THREAD_MINUTES
                )
            except discord.HTTPException as error:
                if error.code != HAS_THREAD:
                    raise
        return reading.channel_target(message_id)

    def _may_write_in_threads(self, place: Target) -> None:
        """Raises Refusal if our own roles say no: Discord makes the thread first, and refuses what is said in it."""
        channel = self._client.get_channel(int(place.id))
        if not isinstance(channel, discord.abc.GuildChannel) or channel.guild.me is None:
            return
        if not channel.permissions_for(channel.guild.me).send_messages_in_threads:
            why = "the bot lacks the permission Send Messages in Threads"
            raise Refusal("no_access", f"starting a thread in {place}: {why}")

    async def end_thread(self, thread: Target) -> None:
        """Who made a thread may archive it, but not remove it without Manage Threads."""
        http = self._client.http
        async with Asking(f"removing {thread}", self._seconds):
            try:
                await http.delete_channel(int(thread.id))
            except discord.Forbidden:
                await http.edit_channel(int(thread.id), archived=True)

    async def history(self, place: Target, *, after: str | None, since: float | None, limit: int) -> list[Heard]:
        ident = (await self._channel(place)).id
        async with Asking(f"reading in {place}", 2 * self._seconds):
            channel: Any = self._client.get_channel(ident) or await self._client.fetch_channel(ident)
            if not isinstance(channel, discord.abc.Messageable):
                raise Refusal("unknown_target", f"{place} is a {channel.type}, in which there are no messages")
            start = int(after) if after is not None else 0
            if since is not None:
                moment = datetime.datetime.fromtimestamp(since, datetime.UTC)
                start = max(start, discord.utils.time_snowflake(moment) - 1)
            found = await self._said(channel, start, limit)
        person = next((m.author.display_name for m in found if m.author.id != self._client.me.id), "")
        where = reading.place_of(channel, person, self._client.me)
        return [reading.heard(message, self._client.me, where) for message in found]

    async def _said(self, channel: Any, start: int, limit: int) -> list[discord.Message]:
        """What was written, oldest first: the first after `start`, or with 0 the newest. Fewer than `limit` are all."""
        found: list[discord.Message] = []
        at = start
        for _ in range(MOST_PAGES):
            most = min(PAGE, limit - len(found))
            way = {"after": at} if start else {"before": at} if at else {}
            rows = sorted(await self._client.http.logs_from(channel.id, most, **way), key=lambda row: int(row["id"]))
            said = [m for row in rows if (m := self._read(channel, row)) and m.type in reading.SAID]
            found = found + said if start else said + found
            if len(rows) < most or len(found) >= limit:
                return found
            at = int(rows[-1 if start else 0]["id"])
        return found

    def _read(self, channel: Any, row: Any) -> discord.Message | None:
        """None if the library cannot read it: that must not hide the others. An own one might be looked for."""
        try:
            return self._client._connection.create_message(channel=channel, data=row)
        except MALFORMED as error:
            if str(row["author"]["id"]) == str(self._client.me.id):
                raise
            log.warning("message %s in %s cannot be read: %r", row["id"], channel.id, error)
            return None

    async def _channel(self, to: Target) -> discord.PartialMessageable | discord.DMChannel:
        """Where to write: a person is written to in their direct channel, which the library keeps once it is known."""
        if to.kind == "channel":
            return self._client.get_partial_messageable(int(to.id))
        async with Asking(f"opening direct messages with {to}", self._seconds):
            return await self._client.create_dm(discord.Object(int(to.id)))

    def _message(self, place: Target, message_id: str) -> discord.PartialMessage:
        return self._client.get_partial_messageable(int(place.id)).get_partial_message(int(message_id))

    async def _in_open_thread(self, place: Target, act: Callable[[], Awaitable[T]]) -> T:
        """An archived thread opens for a message by itself, for all else it must be opened."""
        try:
            return await act()
        except discord.HTTPException as error:
            if error.code != ARCHIVED:
                raise
        await self._client.http.edit_channel(int(place.id), archived=False)
        return await act()


def _files(post: Post) -> list[discord.File]:
    """Each request needs its own: it closes them."""
    return [discord.File(io.BytesIO(file.data), filename=file.name) for file in post.files]


def _view(buttons: Sequence[Button]) -> discord.ui.View:
    """Stopped at once, so that the library keeps nothing: presses are heard raw, and so outlive a restart."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(discord.ui.Button(custom_id=button.id, label=button.label[:80], style=_STYLES[button.style]))
    view.stop()
    return view
