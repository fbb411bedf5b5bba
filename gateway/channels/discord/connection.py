"""Keeping one bot connected: a fresh client for each attempt, and the state that is shown.

Imports nothing of the library: that is done in a thread, once there is a token (`gateway/models/sdk.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.channels.channel import ChannelState, Listener, NotConnected
from gateway.channels.discord.backoff import backoff
from gateway.channels.discord.presence import Presence, Shown
from gateway.channels.discord.settings import Settings, TokenError, clean_token, looks_usual
from gateway.channels.discord.supervision import Brake, Limits, Pace, Verdict
from gateway.channels.discord.tidying import tidy
from gateway.channels.discord.token_lock import TokenLock, TokenTaken
from gateway.models.sdk import load_sdk
from protocols.status import ChannelStatus
from protocols.targets import Target

if TYPE_CHECKING:
    from gateway.channels.discord.client import BotClient
    from gateway.channels.discord.speaking import Speaker

log = logging.getLogger(__name__)

TAKEN_SECONDS = 30.0
"""Another agent has the token: it may stop, so this looks again, without asking Discord."""
GOOD_SECONDS = 30.0
"""A connection that held for so long was a good one: what ended it is a new fault."""
CLOSE_SECONDS = 2.0
"""A polite goodbye may take so long."""


class Standing(msgspec.Struct, frozen=True):
    state: ChannelState = "off"
    detail: str = "no Discord token"
    since: float = 0.0
    next_at: float | None = None


class Connection:
    """One bot's connection. `interacted` gets the library's interactions; `on_change` is told of each new state."""

    def __init__(
        self,
        listener: Listener,
        *,
        interacted: Callable[[Any], None],
        on_ready: Callable[[], None],
        on_change: Callable[[], None],
        known: Callable[[str], Target | None],
        pace: Pace | None = None,
        lock_folder: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._listener = listener
        self._interacted = interacted
        self._on_ready = on_ready
        self._on_change = on_change
        self._known = known
        self._pace = pace or Pace(time.time, asyncio.sleep, random.uniform)
        self._lock_folder = lock_folder
        self._limits = limits or Limits()
        self._brake = Brake(self._pace.clock, self._held_back)
        self._token: str | None = None
        self._settings: Settings | None = None
        self._configured = asyncio.Event()
        self._standing = Standing(since=self._pace.clock())
        self._name = ""
        self._was_up = False
        self._client: BotClient | None = None
        self._speaker: Speaker | None = None
        self.presence = Presence(self._show, clock=self._pace.clock, sleep=self._pace.sleep)

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def client(self) -> BotClient | None:
        """The client that has been ready and is not closed: it can speak, also while the connection is resumed."""
        client = self._client
        return client if client is not None and client.was_ready and not client.is_closed() else None

    @property
    def speaker(self) -> Speaker | None:
        return self._speaker if self.client is not None else None

    @property
    def settings(self) -> Settings | None:
        return self._settings

    def status(self) -> ChannelStatus:
        client = self.client
        return ChannelStatus(
            provider="discord",
            state=self._standing.state,
            detail=self._standing.detail,
            since=self._standing.since,
            name=client.me.name if client is not None else self._name,
            guilds=len(client.guilds) if client is not None else 0,
            next_at=self._standing.next_at,
        )

    def note(self, detail: str) -> None:
        """Something to tell beside the state, while it is ready."""
        if self._standing.state == "ready":
            self._report("ready", detail)

    def _held_back(self, why: str) -> None:
        if why:
            log.warning("%s", why)
        self.note(why)

    def _report(self, state: ChannelState, detail: str, next_at: float | None = None) -> None:
        before = self._standing
        since = before.since if before.state == state else self._pace.clock()
        self._standing = Standing(state, detail, since, next_at)
        if self._standing == before:
            return
        if before.state != state:
            level = logging.INFO if state in ("off", "connecting", "ready", "resuming") else logging.WARNING
            log.log(level, "Discord: %s%s", state, f": {detail}" if detail else "")
        self._on_change()

    # -- configuration ---------------------------------------------------------------------------------------------

    def configure(self, token: str | None, settings: Settings) -> None:
        """Connect with this from now on. What waits for a person tries again, though nothing is new."""
        stuck = self._standing.state in ("auth_failed", "intents_refused")
        if (token, settings) != (self._token, self._settings) or stuck:
            self._token, self._settings = token, settings
            self._configured.set()

    async def serve(self) -> None:
        """Until cancelled."""
        presence = asyncio.create_task(self.presence.serve(), name="the Discord presence")
        try:
            while True:
                self._configured.clear()
                keeping = asyncio.create_task(self._keep(), name="the Discord connection")
                try:
                    await self._until_configured(keeping)
                finally:
                    keeping.cancel()
                    await asyncio.gather(keeping, return_exceptions=True)
        finally:
            presence.cancel()
            await asyncio.gather(presence, return_exceptions=True)
            self._report("off", "stopped")

    async def _until_configured(self, keeping: asyncio.Task[None]) -> None:
        """Until there is a new configuration. A fault of ours in `keeping` is shown and waits for that too."""
        change = asyncio.create_task(self._configured.wait())
        try:
            done, _ = await asyncio.wait({keeping, change}, return_when=asyncio.FIRST_COMPLETED)
            if keeping in done and (error := keeping.exception()) is not None:
                log.error("the Discord connection has stopped", exc_info=error)
                self._report("auth_failed", f"a fault of Atomizer's own ({error}); see the log, then: atomizer restart")
            await change
        finally:
            change.cancel()

    # -- attempts --------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Attempt after attempt. Ends only when nothing but a person can help."""
        settings = self._settings
        if self._token is None or settings is None:
            self._report("off", "no Discord token")
            return
        try:
            token = clean_token(self._token)
        except TokenError as error:
            self._report("auth_failed", f"{error}; then: atomizer secrets set {settings.agent} discord")
            return
        if not looks_usual(token):
            log.warning("the Discord token has an unusual shape; if Discord refuses it, copy it again from the portal")
        failures = 0
        self._report("connecting", "")
        while True:
            began = self._pace.clock()
            verdict = await self._attempt(token, settings)
            if verdict.permanent:
                self._report(verdict.state, verdict.detail)
                return
            failures = 1 if self._held(began) else failures + 1
            delay = max(backoff(failures, self._pace.uniform), verdict.wait or 0.0)
            self._report(verdict.state, verdict.detail, self._pace.clock() + delay)
            await self._pace.sleep(delay)
            self._report(verdict.state, verdict.detail)

    def _held(self, began: float) -> bool:
        """Was the last connection a good one? Then this is a new fault, and its first."""
        return self._was_up and self._pace.clock() - began >= GOOD_SECONDS

    async def _attempt(self, token: str, settings: Settings) -> Verdict:
        """One client's life, and why it ended."""
        self._was_up = False
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(TokenLock(token, settings.agent, settings.home, self._lock_folder))
            except TokenTaken as error:
                return Verdict("auth_failed", str(error), wait=TAKEN_SECONDS)
            except OSError as error:
                log.warning("whether another agent uses the same Discord token cannot be seen: %s", error)
            return await self._connect(token, settings)

    async def _connect(self, token: str, settings: Settings) -> Verdict:
        await load_sdk("gateway.channels.discord.loaded", tidy)
        from gateway.channels.discord.client import BotClient, point_at
        from gateway.channels.discord.speaking import Speaker
        from gateway.channels.discord.verdicts import verdict

        point_at(settings)
        client = BotClient(
            self._listener,
            self.presence.for_identify(),
            self._pace,
            self._limits,
            self._brake,
            report=self._client_reports,
            interacted=self._interacted,
        )
        self._client, self._speaker = client, Speaker(client, self._known)
        try:
            await client.start(token)
        except Exception as error:  # the outermost edge of one connection
            log.debug("the Discord connection ended", exc_info=error)
            return verdict(error, settings.agent)
        finally:
            self._was_up = client.was_ready
            await self._close(client)
        raise AssertionError("a client's start does not return")

    def _client_reports(self, state: ChannelState, detail: str, next_at: float | None) -> None:
        client = self._client
        if state == "ready" and client is not None:
            self._name = client.me.name
        self._report(state, detail, next_at)
        if state == "ready":
            self._on_ready()

    async def _close(self, client: BotClient) -> None:
        """Say goodbye, but not for long: a peer that is gone would keep us for half a minute."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close()
        except TimeoutError:
            with contextlib.suppress(Exception):  # the sockets are closed one way or the other
                await client.http.close()
        finally:
            self._client = self._speaker = None

    async def _show(self, shown: Shown) -> None:
        if (client := self.client) is None:
            raise NotConnected("Discord is not connected")
        await client.show(shown)
