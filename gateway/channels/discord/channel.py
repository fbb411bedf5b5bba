"""Discord as the gateway sees it: the channel port over one bot.

Nothing here imports the library; what does is loaded with the first connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.channels.channel import (
    Activity,
    Attachment,
    Button,
    CommandSpec,
    Heard,
    Listener,
    NotConnected,
    Post,
    Posted,
    Refusal,
)
from gateway.channels.discord.connection import Connection
from gateway.channels.discord.fetching import fetch
from gateway.channels.discord.settings import Settings
from gateway.channels.discord.supervision import Limits, Pace
from protocols.errors import AtomizerError
from protocols.status import ChannelStatus
from protocols.targets import Target, TargetError, parse_target

if TYPE_CHECKING:
    from gateway.channels.discord.interactions import Interactions
    from gateway.channels.discord.speaking import Speaker

log = logging.getLogger(__name__)


class DiscordChannel:
    """One agent's bot. Off until `configure` gives it a token; `serve` keeps it connected."""

    provider = "discord"
    limit = 2000

    def __init__(
        self,
        listener: Listener,
        *,
        known: Callable[[str], Target | None] = lambda _: None,
        recall: Callable[[str], str | None],
        remember: Callable[[str, str], Awaitable[None]],
        on_change: Callable[[], None] = lambda: None,
        pace: Pace | None = None,
        lock_folder: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`known(id)`: what our own records say a bare id is. `recall(name)`, `remember(name, value)`: small facts that
        outlive the process. `on_change()`: the status is another."""
        self._listener = listener
        self._known = known
        self._recall = recall
        self._remember = remember
        self._interactions: Interactions | None = None
        self._commands: Sequence[CommandSpec] | None = None
        self._sync_wanted = False
        self._syncing: asyncio.Task[None] | None = None
        self._connection = Connection(
            listener,
            interacted=self._interacted,
            on_ready=self._sync_soon,
            known=known,
            on_change=on_change,
            pace=pace,
            lock_folder=lock_folder,
            limits=limits,
        )

    # -- the connection --------------------------------------------------------------------------------------------

    def configure(self, token: str | None, settings: Settings) -> None:
        """Connect with this from now on; without a token, off. Nothing happens if it is what there is already, unless
        the connection waits for a person: then it tries again."""
        self._connection.configure(token, settings)

    @property
    def ready(self) -> bool:
        return self._connection.speaker is not None

    def status(self) -> ChannelStatus:
        return self._connection.status()

    async def serve(self) -> None:
        try:
            await self._connection.serve()
        finally:
            if self._syncing is not None:
                self._syncing.cancel()
                await asyncio.gather(self._syncing, return_exceptions=True)
            if self._interactions is not None:
                await self._interactions.close()

    def _speaker(self) -> Speaker:
        if (speaker := self._connection.speaker) is None:
            status = self._connection.status()
            raise NotConnected(f"Discord is not connected ({status.state}{status.detail and ': '}{status.detail})")
        return speaker

    # -- speaking --------------------------------------------------------------------------------------------------

    async def resolve(self, text: str) -> Target:
        """A typed target is taken as it is, without a request."""
        text = text.strip()
        try:
            target = parse_target(text if ":" in text else f"discord:channel:{text}")
        except TargetError as error:
            raise Refusal("unknown_target", str(error)) from None
        if target.provider != self.provider:
            raise Refusal("unknown_target", f"{text!r} is no Discord target")
        return target if ":" in text else self._known(text) or await self._speaker().resolve(text)

    async def send(self, to: Target, post: Post) -> Posted:
        return await self._speaker().send(to, post)

    async def edit(self, posted: Posted, text: str, buttons: Sequence[Button] = ()) -> None:
        await self._speaker().edit(posted, text, buttons)

    async def delete(self, posted: Posted) -> None:
        await self._speaker().delete(posted)

    async def react(self, place: Target, message_id: str, emoji: str) -> None:
        await self._speaker().react(place, message_id, emoji)

    async def unreact(self, place: Target, message_id: str, emoji: str) -> None:
        await self._speaker().unreact(place, message_id, emoji)

    async def typing(self, to: Target) -> None:
        await self._speaker().typing(to)

    async def start_thread(self, place: Target, message_id: str | None, name: str) -> Target:
        return await self._speaker().start_thread(place, message_id, name)

    async def end_thread(self, thread: Target) -> None:
        await self._speaker().end_thread(thread)

    async def history(
        self, place: Target, *, after: str | None = None, since: float | None = None, limit: int = 100
    ) -> list[Heard]:
        return await self._speaker().history(place, after=after, since=since, limit=limit)

    async def fetch(self, attachment: Attachment, most: int) -> bytes:
        return await fetch(attachment, most)

    async def show(self, activity: Activity, text: str) -> None:
        self._connection.presence.show(activity, text)

    # -- commands --------------------------------------------------------------------------------------------------

    async def sync(self, commands: Sequence[CommandSpec]) -> None:
        """Register these with each connection from now on, where they are not registered yet."""
        self._commands = commands
        if self.ready:
            self._sync_soon()

    def _sync_soon(self) -> None:
        self._sync_wanted = True
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync(), name="the Discord commands")

    async def _sync(self) -> None:
        while self._sync_wanted:  # also what was wanted while it was under way
            self._sync_wanted = False
            await self._sync_once()

    async def _sync_once(self) -> None:
        from gateway.channels.discord.interactions import sync

        client, settings, commands = self._connection.client, self._connection.settings, self._commands
        if client is None or settings is None or commands is None:
            return
        try:
            failed = await sync(client, commands, settings.guilds, self._recall, self._remember)
        except AtomizerError as error:  # what was registered could not be written down
            failed = [str(error)]
        if failed:
            log.warning("some slash commands are not registered: %s", "; ".join(failed))
            self._connection.note(f"some slash commands are not registered: {failed[0]}")

    def _interacted(self, interaction: Any) -> None:
        if self._interactions is None:
            from gateway.channels.discord.interactions import Interactions

            self._interactions = Interactions(self._listener, self._our_guilds)
        self._interactions.interacted(interaction)

    def _our_guilds(self) -> frozenset[str]:
        settings = self._connection.settings
        return settings.guilds if settings is not None else frozenset()
