"""A bot of ours in the test's own loop, against the stand-in over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.channels.channel import Command, Heard
from gateway.channels.discord.channel import DiscordChannel
from gateway.channels.discord.settings import Settings
from gateway.channels.discord.supervision import Limits, Pace
from protocols.targets import Target
from tests.standins.discord import DiscordServer

T = TypeVar("T")


class Ear:
    """A Listener that keeps what it hears; `until` waits for it."""

    def __init__(self) -> None:
        self.messages: list[Heard] = []
        self.edits: list[tuple[str, str, str]] = []
        self.deletions: list[tuple[str, str]] = []
        self.commands: list[Command] = []
        self.connections: list[bool] = []
        """`gap` of each."""
        self._changed = asyncio.Event()

    def heard(self, message: Heard) -> None:
        self.messages.append(message)
        self.changed()

    def edited(self, place: Target, message_id: str, text: str) -> None:
        self.edits.append((str(place), message_id, text))
        self.changed()

    def deleted(self, place: Target, message_id: str) -> None:
        self.deletions.append((str(place), message_id))
        self.changed()

    def commanded(self, command: Command) -> None:
        self.commands.append(command)
        self.changed()

    def connected(self, gap: bool) -> None:
        self.connections.append(gap)
        self.changed()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, holds: Callable[[], T], seconds: float = 10.0) -> T:
        """The first true value of `holds`, asked after each change."""
        async with asyncio.timeout(seconds):
            while not (found := holds()):
                self._changed.clear()
                await self._changed.wait()
            return found


class Time:
    """A clock that a test moves, and waits that end when it does: nothing here takes real seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.waits: list[float] = []
        """Every wait that was asked for, in seconds."""
        self.patient = False
        """True: a wait ends only by `advance`. False: at once, as if it were over."""
        self._moved = asyncio.Event()

    def now(self) -> float:
        return time.time() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        until = self.now() + seconds
        while self.patient and self.now() < until:
            self._moved.clear()
            await self._moved.wait()
        await asyncio.sleep(0.01)

    def advance(self, seconds: float) -> None:
        self.ahead += seconds
        self._moved.set()


class Bot:
    """Our bot `webster`, and what is around it."""

    def __init__(self, discord: DiscordServer, folder: Path) -> None:
        self.discord = discord
        self.world = discord.furnish(["webster"])
        self.ear = Ear()
        self.time = Time()
        self.facts: dict[str, str] = {}
        self.known: dict[str, Target] = {}
        self.states: list[tuple[str, str]] = []
        """Each state that was shown: its name, and its first detail."""
        self.folder = folder
        self.limits = Limits(silence=10.0, ready=5.0, guilds=0.1, call=2.0)
        self._serving: asyncio.Task[None] | None = None
        self.channel = self.new_channel()

    def new_channel(self) -> DiscordChannel:
        return DiscordChannel(
            self.ear,
            known=self.known.get,
            recall=self.facts.get,
            remember=self._remember,
            on_change=self._on_change,
            pace=Pace(self.time.now, self.time.sleep, lambda low, high: high),
            lock_folder=self.folder,
            limits=self.limits,
        )

    async def _remember(self, name: str, value: str) -> None:
        self.facts[name] = value

    def _on_change(self) -> None:
        status = self.channel.status()
        if not self.states or self.states[-1][0] != status.state:
            self.states.append((status.state, status.detail))
        self.ear.changed()

    @property
    def token(self) -> str:
        return str(self.world["bots"]["webster"]["token"])

    def settings(self, **more: Any) -> Settings:
        return Settings(
            agent="webster",
            home="/clusters/one",
            **{
                "guilds": frozenset({self.world["guild"]}),
                "api_base": self.discord.api_base,
                "gateway_url": self.discord.gateway_url,
                **more,
            },
        )

    def place(self, name: str) -> Target:
        return Target("discord", "channel", self.world["channels"][name])

    def person(self, name: str = "antoine") -> Target:
        return Target("discord", "user", self.world["people"][name])

    def begin(self, token: str | None = None, **settings: Any) -> None:
        """Serve, in a task of the test's."""
        self.channel.configure(token or self.token, self.settings(**settings))
        self._serving = asyncio.create_task(self.channel.serve())

    async def connect(self) -> None:
        """Serve, until it is ready."""
        self.begin()
        await self.state("ready")

    async def state(self, state: str, seconds: float = 10.0) -> str:
        """Wait until it shows this state; its detail."""
        try:
            await self.ear.until(lambda: self.channel.status().state == state, seconds)
        except TimeoutError:
            raise AssertionError(f"not {state}: {self.states}\n{self.discord.view.tail()}") from None
        return self.channel.status().detail

    async def end(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    @property
    def identifies(self) -> int:
        return int(self.discord.view.bot("webster")["identifies"])


@pytest.fixture
async def discord() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        server.no_limits()
        yield server


@pytest.fixture
async def bot(discord: DiscordServer, tmp_path: Path) -> AsyncIterator[Bot]:
    made = Bot(discord, tmp_path)
    try:
        yield made
    finally:
        await made.end()
