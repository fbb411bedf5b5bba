"""What is shown of an answer before it is there never outlives it, and holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.channels.channel import Post, Posted, Refusal, Unreachable
from gateway.channels.delivery import DONE, SEEN, Delivery, Part
from gateway.channels.live import TYPING_AT_MOST, TYPING_SECONDS, Live
from gateway.channels.posting import Poster
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import ClaimedRun, Effect, Origin, RunOptions
from protocols.runs import RunSource
from protocols.targets import Target, parse_target
from runtime.config_discord import InstanceDiscordTable
from tests.standins.channel import MemoryChannel, Message

ROOM = parse_target("discord:channel:100000000000000001")
ANN = parse_target("discord:user:200000000000000001")
WORDS = "here are more words than anybody waits for "


class SlowChannel(MemoryChannel):
    """Calls hang until they may go on."""

    def __init__(self) -> None:
        super().__init__(lambda: 1.0)
        self.may_go_on = asyncio.Event()

    async def send(self, to: Target, post: Post) -> Posted:
        self.calls.append("sending")
        self._changed.set()
        await self.may_go_on.wait()
        return await super().send(to, post)

    async def react(self, place: Target, message_id: str, emoji: str) -> None:
        if emoji == SEEN:
            await self.may_go_on.wait()
        await super().react(place, message_id, emoji)


class Scene:
    """One question, and the run that answers it."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path, "manager")
        self.ledger.start()
        self.reader = Reader(path, "manager")
        self.channel = SlowChannel()
        self.now = 0.0
        self.passes = False
        """Whether pauses are over at once, and the clock as much later; else they last."""
        self.asked: Message = self.channel.say(ROOM, ANN, "what is one?")
        self.origin = Origin(str(ROOM), self.asked.id, str(ANN))
        poster = Poster(self.channel, self.ledger.posts, self.reader.posts.known)
        self.live = Live(
            self.channel,
            poster,
            divide=lambda text: [text] if text.strip() else [],
            table=InstanceDiscordTable,
            preview=lambda text: text,
            waiting=lambda run_id: False,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

        async def nothing(*_: object) -> None: ...

        self.delivery = Delivery(
            self.channel,
            poster,
            parts_of=lambda text: [Part(text)] if text else [],
            uploads=lambda names: asyncio.sleep(0, []),
            close_draft=self.live.close,
            marked=self.live.marked,
            retarget=nothing,
            add=nothing,
            home=lambda: None,
            reactions=lambda: True,
        )
        self.run = ClaimedRun(
            "run-1", RunSource.CHAT, "chat", str(ANN), True, "s", "what is one?",
            RunOptions(to=str(ROOM), origin=self.origin), None, 0, None, 1, 1.0,
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        if not self.passes:
            await asyncio.sleep(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def typed(self) -> tuple[int, float]:
        """(so often it was tried to show that somebody types, the time when that ended), of a run that goes on."""
        self.passes = True
        self.live.began(self.run)
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while tasks := [t for t in asyncio.all_tasks() if t.get_name() == "typing-run-1"]:
                await asyncio.wait(tasks)
        return self.channel.calls.count("typing"), self.now

    async def deliver(self, text: str, mark: str) -> None:
        payload = {"text": text, "to": str(ROOM), "mark": mark, "origin": msgspec.to_builtins(self.origin)}
        await self.delivery(Effect(1, "run-1/deliver", "run-1", "deliver", str(ROOM), payload, 0, 1.0))

    async def draft(self) -> None:
        """Its first message is on its way."""
        self.live.began(self.run)
        self.live.delta("run-1", WORDS, False)
        await self.channel.until(lambda: "sending" in self.channel.calls)

    async def close(self) -> None:
        self.channel.may_go_on.set()
        await self.live.stop()
        self.reader.close()
        self.ledger.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path / "state.db")
    yield made
    await made.close()


async def test_a_draft_that_is_on_its_way_when_its_run_is_stopped_goes_away_whoever_waited_for_it(scene: Scene) -> None:
    await scene.draft()
    impatient = asyncio.create_task(scene.live.close("run-1"))
    await asyncio.sleep(0)
    impatient.cancel()
    delivering = asyncio.create_task(scene.deliver("", "stopped"))
    await asyncio.sleep(0.05)
    assert not delivering.done()
    scene.channel.may_go_on.set()
    await delivering
    assert scene.channel.texts(ROOM) == []


async def test_the_end_of_a_run_waits_for_no_channel(scene: Scene) -> None:
    await scene.draft()
    scene.live.end("run-1")
    delivering = asyncio.create_task(scene.deliver("one is one", "done"))
    scene.channel.may_go_on.set()
    await delivering
    assert scene.channel.texts(ROOM) == ["one is one"]
    assert scene.live._answers == {}


async def test_a_mark_that_comes_late_is_taken_away_all_the_same(scene: Scene) -> None:
    scene.live.seen("run-1", scene.origin)
    delivering = asyncio.create_task(scene.deliver("", "done"))
    await asyncio.sleep(0.05)
    scene.channel.may_go_on.set()
    await delivering
    assert scene.asked.reactions == [DONE]
    assert scene.live._marking == {}


class TestTyping:
    async def test_it_ends_for_an_answer_once_the_channel_has_refused_it(self, scene: Scene) -> None:
        scene.channel.fail("typing", Unreachable("503"))
        scene.channel.fail("typing", Refusal("no_access", "may not write there"))
        assert await scene.typed() == (2, TYPING_SECONDS)

    async def test_what_passes_does_not_end_it_and_a_limit_is_waited_out(self, scene: Scene) -> None:
        scene.channel.fail("typing", Unreachable("503"))
        scene.channel.fail("typing", Unreachable("429", retry_after=TYPING_AT_MOST - 2 * TYPING_SECONDS))
        assert await scene.typed() == (3, TYPING_AT_MOST)

    async def test_it_ends_in_any_case_when_nobody_believes_it_any_more(self, scene: Scene) -> None:
        calls, ended = await scene.typed()
        assert calls == TYPING_AT_MOST / TYPING_SECONDS
        assert ended == TYPING_AT_MOST
