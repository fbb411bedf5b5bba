"""An agent's ears on a channel in memory, over a real ledger; a test speaks and looks at the runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.agent.approvals import Approvals
from gateway.channels.channel import Attachment, Command, Heard, Place, Refusal
from gateway.channels.intake import Intake
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, NewRun
from protocols.approvals import Approval
from protocols.runs import RunState
from protocols.targets import Target
from runtime.config_discord import Ears, InstanceDiscordTable
from tests.standins.channel import BOT, MemoryChannel, Message

GUILD = "700000000000000001"
ROOM = Target("discord", "channel", "300000000000000001")
FREE = Target("discord", "channel", "300000000000000002")
OTHER = Target("discord", "channel", "300000000000000003")
DIRECT = Target("discord", "channel", "800000000000000007")
"""Ann's direct messages, as the stand-in makes them of her id."""
ANN = Target("discord", "user", "100000000000000007")
BOB = Target("discord", "user", "100000000000000008")
ROBOT = Target("discord", "user", "500000000000000001")
START = 1_800_000_000.0


def ears_of(**fields: Any) -> Ears:
    """What a test's agent listens to: one server, all of its channels, one of them without a mention."""
    plain: dict[str, Any] = {
        "guilds": frozenset({GUILD}),
        "channels": None,
        "others": frozenset(),
        "free": frozenset({FREE.id}),
        "users": frozenset(),
        "bots": frozenset(),
        "operators": frozenset(),
    }
    return Ears(**(plain | fields))


class Rooms(MemoryChannel):
    """`@me` mentions the bot, ids that begin with 5 are bots, and files are kept with their bytes."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.attached: dict[str, list[Attachment]] = {}
        self.bytes: dict[str, bytes] = {}

    def heard(self, message: Message, *, name: str = "", **values: Any) -> Heard:
        base = super().heard(message, name=name or {ANN.id: "Ann", BOB.id: "Bob"}.get(message.author.id, "somebody"))
        own = message.author.id == BOT
        author = msgspec.structs.replace(base.author, bot=message.author.id.startswith(("5", "9")))
        return msgspec.structs.replace(
            base,
            author=author,
            text=message.text.replace("@me", "").strip(),
            mentions_me=not own and "@me" in message.text,
            attachments=self.attached.get(message.id, []),
            **values,
        )

    def attach(self, message: Message, *files: tuple[str, str, bytes]) -> None:
        """(name, content type, bytes) each."""
        for number, (name, content_type, data) in enumerate(files):
            id = f"{message.id}{number}"
            self.attached.setdefault(message.id, []).append(Attachment(id, name, len(data), content_type, f"at/{id}"))
            self.bytes[id] = data

    async def fetch(self, attachment: Attachment, most: int) -> bytes:
        self._begin("fetch")
        data = self.bytes[attachment.id]
        if len(data) > most:
            raise Refusal("other", "too large")
        return data


class World:
    """One agent, `webster`, that hears `channel`."""

    def __init__(self, folder: Path, **table: Any) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir(exist_ok=True)
        self.now = START
        self.channel = Rooms(lambda: self.now)
        self.table = InstanceDiscordTable(**table)
        self.ears = ears_of()
        self.accepted: list[NewRun] = []
        self.changed: list[str] = []
        self.commands: list[Command] = []
        self.full: list[BaseException] = []
        self._new_run = asyncio.Event()
        self.asked = asyncio.Event()
        """A question to the operator is open."""
        self.open()

    def open(self) -> None:
        """The parts of a process; those of the one before are left as a kill leaves them."""
        self.ledger = Ledger(self.folder / "state.db", "webster", clock=lambda: self.now)
        self.ledger.start()
        self.reader = Reader(self.folder / "state.db", "webster")
        self.approvals = Approvals(
            self.ledger.approvals,
            self.reader,
            expires_after=lambda: 3600.0,
            on_change=self._note_question,
            clock=lambda: self.now,
        )
        self.intake = Intake(
            "webster",
            self.channel,
            self.ledger,
            self.reader,
            self.approvals,
            table=lambda: self.table,
            ears=lambda: self.ears,
            workspace=lambda: self.workspace,
            accept=self._accept,
            on_change=self.changed.append,
            on_command=self.commands.append,
            redact=lambda text: text.replace("s3cret", "***"),
            clock=lambda: self.now,
        )

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        serving = asyncio.create_task(self.intake.serve())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _accept(self, new: NewRun) -> tuple[str, RunState, bool]:
        if self.full:
            raise self.full.pop(0)
        answer = await self.ledger.accept(new)
        if answer[2]:
            self.accepted.append(new)
            self._new_run.set()
        return answer

    # -- what a test does --------------------------------------------------------------------------------------

    def say(
        self, place: Target, author: Target, text: str, *, hear: bool = True, at: Place | None = None, **values: Any
    ) -> Message:
        """Somebody writes, and the agent hears it. `at`: what sort of place it is."""
        message = self.channel.say(place, author, text, reply_to=values.pop("reply_to", None))
        values |= {"place": at} if at is not None else {}
        self.now += 1
        if hear:
            self.intake.heard(self.channel.heard(message, **values))
        return message

    async def settle(self, seconds: float = 10.0) -> None:
        """Until no lane has anything left to do."""
        async with asyncio.timeout(seconds):
            while busy := [lane.task for lane in self.intake._lanes if lane.task is not None]:
                await asyncio.wait(busy)

    def _note_question(self, approval: Approval) -> None:
        if approval.state == "pending":
            self.asked.set()
        else:
            self.asked.clear()

    async def until_accepted(self, runs: int, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while len(self.accepted) < runs:
                self._new_run.clear()
                await self._new_run.wait()

    async def claim(self) -> list[ClaimedRun]:
        return await self.ledger.claim(10, 10)

    @property
    def texts(self) -> list[str]:
        return [new.message for new in self.accepted]


async def heard_after_a_restart(world: World) -> None:
    """The process ends and another begins, which reads up on what was missed."""
    world.close()
    world.open()
    async with world.listening():
        world.intake.connected(gap=True)
        await world.settle()
