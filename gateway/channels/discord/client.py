"""The library's client, lean, with a loop of our own around its gateway connection.

The library's loop crashes if the first connection fails, ends on one malformed event, waits up to a quarter of an hour
between tries and says nothing meanwhile. Here, a lost session is resumed by the same client; what cannot be mended so
is raised for `connection.py`, which makes a new client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
import discord
from discord.errors import ConnectionClosed
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from gateway.channels.channel import ChannelState, Listener
from gateway.channels.discord import reading
from gateway.channels.discord.backoff import backoff
from gateway.channels.discord.errors import Asking, say, trace
from gateway.channels.discord.presence import Shown
from gateway.channels.discord.settings import Settings
from gateway.channels.discord.supervision import Brake, Limits, Pace

log = logging.getLogger(__name__)

LOGIN_SECONDS = 30.0
HANDSHAKE_SECONDS = 30.0
STEADY_SECONDS = 30.0
"""A connection that held for so long counts as a good one: what comes after it is a new fault."""
RESUMES = 5
"""Reconnects in a row with one client; then a new one."""
POISONED = 3
"""Malformed events in a minute that are passed over; at one more the client is replaced, unless it is a message:
those change nothing that is kept, and anybody can write them."""

_STATUS = {
    "idle": discord.Status.online,
    "working": discord.Status.online,
    "waiting": discord.Status.idle,
    "paused": discord.Status.dnd,
}


class ContentRefused(Exception):
    """The portal does not let this bot read what people write."""


class Poisoned(Exception):
    """Discord sent what the library cannot read."""

    def __init__(self, event: str | None) -> None:
        super().__init__(f"Discord sent a malformed {event or 'frame'}")


class Hung(Exception):
    """The connection stands, and nothing comes."""


def point_at(settings: Settings) -> None:
    """Set where the library finds Discord, for the whole process."""
    import yarl

    discord.http.Route.BASE = settings.api_base.rstrip("/")
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(settings.gateway_url)
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    logging.getLogger("discord").setLevel(logging.ERROR)


def intents() -> discord.Intents:
    wanted = discord.Intents.none()
    wanted.guilds = wanted.guild_messages = wanted.dm_messages = wanted.message_content = True
    return wanted


def activity_of(shown: Shown) -> discord.CustomActivity | None:
    return discord.CustomActivity(name=shown.text) if shown.text else None


class BotClient(discord.Client):
    """One connection's life. `report(state, detail, next_at)` hears of each change."""

    def __init__(
        self,
        listener: Listener,
        shown: Shown,
        pace: Pace,
        limits: Limits,
        brake: Brake,
        *,
        report: Callable[[ChannelState, str, float | None], None],
        interacted: Callable[[discord.Interaction[Any]], None],
    ) -> None:
        super().__init__(
            intents=intents(),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            allowed_mentions=discord.AllowedMentions.none(),
            activity=activity_of(shown),
            status=_STATUS[shown.activity],
            http_trace=trace(brake),
            max_ratelimit_timeout=30.0,
            heartbeat_timeout=limits.silence,
            guild_ready_timeout=limits.guilds,
        )
        self._listener = listener
        self._pace = pace
        self._report = report
        self.limits = limits
        self._event: str | None = None
        self._poisoned: deque[float] = deque(maxlen=POISONED)
        self._up_since: float | None = None
        self._complete = False
        """All servers of this session have come."""
        self.was_ready = False
        self._on: dict[str, Callable[..., None]] = {
            "socket_event_type": self._note_event,
            "connect": self._connected,
            "ready": self._is_ready,
            "resumed": self._is_resumed,
            "guild_join": self._sees,
            "guild_available": self._sees,
            "message": self._hear,
            "raw_message_edit": self._hear_edit,
            "raw_message_delete": self._hear_deletion,
            "raw_bulk_message_delete": self._hear_deletions,
            "interaction": interacted,
        }

    @property
    def me(self) -> discord.ClientUser:
        assert self.user is not None, "before the login"
        return self.user

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """The library makes a task of every event; ours are plain calls, in the order they came."""
        if (handler := self._on.get(event)) is not None:
            handler(*args)

    # -- the connection --------------------------------------------------------------------------------------------

    async def setup_hook(self) -> None:
        """Known after the login, before the gateway: whether connecting would be refused."""
        flags = self.application_flags
        if not (flags.gateway_message_content or flags.gateway_message_content_limited):
            raise ContentRefused

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Discord asks for one to five seconds before a new session replaces an invalid one."""
        if not initial:
            await self._pace.sleep(self._pace.uniform(1.0, 5.0))

    async def start(self, token: str, *, reconnect: bool = True) -> None:
        """Log in and stay connected. Returns never; raises what ended it."""
        async with asyncio.timeout(LOGIN_SECONDS):
            await self.login(token)
        await self.connect()

    async def connect(self, *, reconnect: bool = True) -> None:
        way: dict[str, Any] = {"initial": True}
        failures = 0
        while True:
            self._up_since = None
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    self.ws = await DiscordWebSocket.from_client(self, **way)
                await self._listen()
            except ReconnectWebSocket as error:
                fault, resume = self._end_of_connection(), error.resume
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                fault, resume = f"the connection to Discord was lost ({say(error)})", True
                if not self.was_ready:
                    raise
            failures = failures + 1 if not self._was_steady() else 0
            if failures > RESUMES:
                raise Hung(f"{fault}, {failures} times in a row")
            way = self._way_back() if resume and self.ws is not None else {}
            await self._pause(failures, fault)

    async def _listen(self) -> None:
        """Read what comes, until the connection ends."""
        until = self.loop.time() + self.limits.ready
        while self._up_since is None:
            try:
                async with asyncio.timeout_at(until) as limit:
                    await self._poll()
            except TimeoutError:
                if limit.expired():
                    raise Hung(f"Discord did not get ready in {self.limits.ready:.0f} s") from None
                raise
        while True:
            await self._poll()

    async def _poll(self) -> None:
        """One event. One that the library cannot read is passed over: its place in the stream is already counted."""
        self._event = None
        try:
            await self.ws.poll_event()
        except (ReconnectWebSocket, ConnectionClosed, OSError, aiohttp.ClientError, TimeoutError):
            raise
        except Exception as error:  # whatever a parser chokes on: the edge between Discord's data and us
            self._pass_over(error, self._event)

    def _pass_over(self, error: Exception, event: str | None) -> None:
        """Raises Poisoned if it cannot be: it was no event at all, or one that a session begins with, or one more."""
        now = self._pace.clock()
        log.warning("Discord sent a malformed %s: %r", event or "frame", error, exc_info=error)
        often = len(self._poisoned) == POISONED and now - self._poisoned[0] < 60.0
        self._poisoned.append(now)
        message = event in ("MESSAGE_CREATE", "MESSAGE_UPDATE")
        if event in (None, "READY", "RESUMED") or self._up_since is None or (often and not message):
            raise Poisoned(event) from error
        if event == "MESSAGE_CREATE" and not often:
            self._listener.connected(gap=True)

    def _end_of_connection(self) -> str:
        code = self.ws.socket.close_code if self.ws is not None else None
        return f"the connection to Discord was lost ({code or 'asked to connect again'})"

    def _was_steady(self) -> bool:
        return self._up_since is not None and self._pace.clock() - self._up_since >= STEADY_SECONDS

    def _way_back(self) -> dict[str, Any]:
        if self.ws.session_id is None:
            return {}
        return {
            "resume": True,
            "gateway": self.ws.gateway,
            "session": self.ws.session_id,
            "sequence": self.ws.sequence,
        }

    async def _pause(self, failures: int, fault: str) -> None:
        if failures == 0:
            self._report("resuming", fault, None)
            return
        delay = backoff(failures, self._pace.uniform)
        log.info("%s; again in %.1f s", fault, delay)
        self._report("resuming", fault, self._pace.clock() + delay)
        await self._pace.sleep(delay)
        self._report("resuming", fault, None)

    # -- events ----------------------------------------------------------------------------------------------------

    def _note_event(self, event: str) -> None:
        self._event = event

    def _connected(self) -> None:
        """READY; the guilds are still to come."""
        self._complete = False
        self._up_since = self._pace.clock()

    def _is_ready(self) -> None:
        self._complete = self.was_ready = True
        self._report("ready", "", None)
        self._listener.connected(gap=True)

    def _is_resumed(self) -> None:
        self._up_since = self._pace.clock()
        self._report("ready", "", None)
        self._listener.connected(gap=False)

    def _sees(self, guild: discord.Guild) -> None:
        """A server more than when it got ready, such as one that it was invited into: it may lack the commands."""
        if self._complete:
            self._report("ready", "", None)

    def _hear(self, message: discord.Message) -> None:
        if message.type in reading.SAID and message.author.id != self.me.id:
            self._listener.heard(reading.heard(message, self.me))

    def _hear_edit(self, change: discord.RawMessageUpdateEvent) -> None:
        """Only what a person did: Discord's own changes, such as a link's preview, have no time of editing."""
        message = change.message
        if change.data.get("edited_timestamp") and message.author.id != self.me.id:
            place = reading.channel_target(change.channel_id)
            self._listener.edited(place, str(change.message_id), reading.text_of(message, self.me))

    def _hear_deletion(self, gone: discord.RawMessageDeleteEvent) -> None:
        self._listener.deleted(reading.channel_target(gone.channel_id), str(gone.message_id))

    def _hear_deletions(self, gone: discord.RawBulkMessageDeleteEvent) -> None:
        for ident in sorted(gone.message_ids):
            self._listener.deleted(reading.channel_target(gone.channel_id), str(ident))

    # -- presence --------------------------------------------------------------------------------------------------

    async def show(self, shown: Shown) -> None:
        """Raises ChannelError."""
        async with Asking("changing the presence", self.limits.call):
            self.activity, self.status = activity_of(shown), _STATUS[shown.activity]
            await self.ws.change_presence(activity=activity_of(shown), status=str(_STATUS[shown.activity]))
