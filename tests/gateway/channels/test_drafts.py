"""What an answer's draft comes to, in virtual time: the delivery makes the whole text of it, once, whatever went wrong.

The parts are those that work in a gateway, over a channel whose calls take time and fail as Discord's do.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Literal, TypeVar

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.channels.channel import Button, Post, Posted, Refusal, Uncertain, Unreachable
from gateway.channels.delivery import Delivery, Part
from gateway.channels.editor import INTERVAL
from gateway.channels.live import Live
from gateway.channels.posting import Poster
from gateway.channels.splitting import split
from gateway.ledger import schema
from gateway.ledger.posts import PostReader, PostStore
from gateway.ledger.records import ClaimedRun, Effect, Origin, RunOptions
from protocols.runs import RunSource
from protocols.targets import Target, parse_target
from runtime.config_discord import InstanceDiscordTable
from tests.gateway.channels.virtual import run
from tests.properties import use_small_examples
from tests.standins.channel import MemoryChannel

use_small_examples()

T = TypeVar("T")
Fault = Literal["", "limited", "unreachable", "lost", "vanished", "broken", "gone", "too_old"]

ROOM = parse_target("discord:channel:100000000000000001")
ANN = parse_target("discord:user:200000000000000001")
DIVIDE = partial(split, limit=64)
BEGAN = 1_800_000_000.0
TRIES = 40
"""More than there are faults: after so many the outbox would have carried it out."""


class UnsteadyChannel(MemoryChannel):
    """`faults` are the fates of its first calls that write. Each begins when no other is under way."""

    def __init__(self, faults: list[Fault], latencies: list[float]) -> None:
        super().__init__(lambda: BEGAN + asyncio.get_running_loop().time())
        self.written: list[tuple[float, str]] = []
        """(when it began, what) of each call."""
        self.in_flight = 0
        self.single = set(faults) <= {"", "limited", "unreachable"}
        """A step of the draft is one call: nothing has to be looked for or posted anew."""
        self.disordered = False
        """A message had to be posted anew, after those that follow it."""
        self._fates = list(faults)
        self._latencies = list(latencies)

    async def send(self, to: Target, post: Post) -> Posted:
        return await self._write("send", partial(super().send, to, post))

    async def edit(self, posted: Posted, text: str, buttons: tuple[Button, ...] = ()) -> None:
        await self._write("edit", partial(super().edit, posted, text, buttons), posted.message_id)

    async def delete(self, posted: Posted) -> None:
        await self._write("delete", partial(super().delete, posted))

    async def _write(self, kind: str, work: Callable[[], Awaitable[T]], message_id: str | None = None) -> T:
        assert self.in_flight == 0, "two calls at once"
        self.in_flight += 1
        self.written.append((asyncio.get_running_loop().time(), kind))
        latency = self._latencies.pop() if self._latencies else 0.05
        try:
            await asyncio.sleep(latency / 2)
            match self._fates.pop(0) if self._fates else "":
                case "limited":
                    raise Unreachable("429", retry_after=3.0)
                case "unreachable":
                    raise Unreachable("503")
                case "vanished" if kind == "send":
                    raise Uncertain("no answer")
                case "lost":
                    await work()
                    await asyncio.sleep(latency / 2)
                    raise Uncertain("no answer") if kind == "send" else Unreachable("no answer")
                case "broken":
                    raise OSError("reset")
                case "gone" if message_id is not None:
                    self.disordered = True
                    self.deleted += [m for m in self.messages if m.id == message_id]
                    self.messages = [m for m in self.messages if m.id != message_id]
                case "too_old" if message_id is not None:
                    self.disordered = True
                    raise Refusal("too_old", "30046")
            done = await work()
            await asyncio.sleep(latency / 2)
            return done
        finally:
            self.in_flight -= 1


class AtOnce:
    """The ledger's writer without its thread, for which virtual time would not wait."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:")
        schema.migrate(self.db)

    async def submit(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return operation(self.db)


class Answering:
    """One question on a channel, and the gateway's parts that answer it; `restart` forgets all but what is written."""

    def __init__(self, faults: list[Fault], latencies: list[float]) -> None:
        self.channel = UnsteadyChannel(faults, latencies)
        self.origin = Origin(str(ROOM), self.channel.say(ROOM, ANN, "what is one?").id, str(ANN))
        self._writer = AtOnce()
        self.restart()

    def restart(self) -> None:
        clock = self.channel.clock
        store = PostStore(self._writer, clock)  # type: ignore[arg-type]
        poster = Poster(self.channel, store, PostReader(self._writer.db).known, clock=clock)
        self.live = Live(
            self.channel,
            poster,
            divide=DIVIDE,
            table=InstanceDiscordTable,
            preview=lambda text: text,
            waiting=lambda run_id: False,
            clock=asyncio.get_running_loop().time,
        )

        async def nothing(*_: object) -> None: ...

        self._delivery = Delivery(
            self.channel,
            poster,
            parts_of=lambda text: [Part(part) for part in DIVIDE(text)],
            uploads=lambda names: asyncio.sleep(0, []),
            close_draft=self.live.close,
            marked=self.live.marked,
            retarget=nothing,
            add=nothing,
            home=lambda: None,
            reactions=lambda: True,
        )

    async def write(self, pushes: list[tuple[float, str]]) -> str:
        """The model writes its answer; the text."""
        self.live.began(
            ClaimedRun(
                "run-1", RunSource.CHAT, "chat", str(ANN), True, "s", "what is one?",
                RunOptions(to=str(ROOM), origin=self.origin), None, 0, None, 1, 1.0,
            )
        )  # fmt: skip
        text = ""
        for pause, more in pushes:
            await asyncio.sleep(pause)
            text += more
            self.live.delta("run-1", more, False)
        return text

    async def deliver(self, text: str) -> None:
        """As the outbox does: again after what passes."""
        payload = {"text": text, "to": str(ROOM), "mark": "done", "origin": msgspec.to_builtins(self.origin)}
        for attempt in range(TRIES):
            try:
                await self._delivery(Effect(1, "run-1/deliver", "run-1", "deliver", str(ROOM), payload, attempt, BEGAN))
                return
            except (Unreachable, Uncertain, OSError):
                await asyncio.sleep(1.0 + 2 * attempt)
        raise AssertionError("it was not delivered")

    def stands(self, text: str) -> bool:
        """The text stands there once and whole, and nothing else: in order, unless a message had to be replaced."""
        said, parts = self.channel.texts(ROOM), DIVIDE(text)
        return sorted(said) == sorted(parts) if self.channel.disordered else said == parts


PUSHES = st.lists(
    st.tuples(st.floats(0, 3), st.text(alphabet="ab \n`*", max_size=60).map(lambda text: f"{text} word")), max_size=15
)
FAULTS = st.lists(
    st.sampled_from(["", "", "", "limited", "unreachable", "lost", "vanished", "broken", "gone", "too_old"]),
    max_size=12,
)
LATENCIES = st.lists(st.floats(0, 4), max_size=25)
WORDS = [(0.0, "words that are worth showing"), (0.4, " and more")]
"""The first message is on its way when they end."""
END = st.text(alphabet="xyz \n", max_size=100)


class TestWhateverTheTiming:
    @given(PUSHES, FAULTS, LATENCIES, END, st.booleans())
    @example(WORDS, ["lost"], [], "xyz", False)
    @example(WORDS, ["vanished"], [], "xyz", True)
    def test_the_whole_text_stands_there_once_and_nothing_else(
        self, pushes: list[tuple[float, str]], faults: list[Fault], latencies: list[float], end: str, shorter: bool
    ) -> None:
        async def main() -> None:
            answering = Answering(faults, latencies)
            text = await answering.write(pushes)
            final = end if shorter else text + end
            await answering.live.close("run-1")
            if answering.channel.single:
                drafted = [at for at, _ in answering.channel.written]
                assert all(late - early >= INTERVAL - 1e-6 for early, late in pairwise(drafted))
            await answering.deliver(final)
            assert answering.stands(final), (answering.channel.texts(ROOM), DIVIDE(final))

        run(main())

    @example(WORDS, ["lost"], [], "xyz", 0.5, 60.0)
    @example(WORDS, ["lost"], [], "xyz", 0.5, 4000.0)
    @example(WORDS, [], [4.0], "xyz", 3.0, 4000.0)
    @given(PUSHES, FAULTS, LATENCIES, END, st.floats(0, 40), st.sampled_from([0.0, 60.0, 4000.0]))
    def test_so_it_does_when_the_process_died_over_the_draft(
        self,
        pushes: list[tuple[float, str]],
        faults: list[Fault],
        latencies: list[float],
        end: str,
        died: float,
        away: float,
    ) -> None:
        async def main() -> None:
            answering = Answering(faults, latencies)
            writing = asyncio.create_task(answering.write(pushes))
            await asyncio.sleep(died)
            for task in (others := asyncio.all_tasks() - {asyncio.current_task()}):
                task.cancel()
            await asyncio.gather(writing, *others, return_exceptions=True)
            await asyncio.sleep(away)
            answering.restart()
            final = "".join(more for _, more in pushes) + end
            await answering.deliver(final)
            assert answering.stands(final), (answering.channel.texts(ROOM), DIVIDE(final))

        run(main())


def test_the_end_of_an_answer_comes_soon_and_what_was_too_much_goes() -> None:
    async def main() -> None:
        answering = Answering([], [])
        await answering.write([(0.031, f"word{n} ") for n in range(60)])
        await asyncio.sleep(10)
        assert len(answering.channel.texts(ROOM)) > 2
        began = asyncio.get_running_loop().time()
        await answering.deliver("Done.")
        assert answering.stands("Done.")
        assert asyncio.get_running_loop().time() - began < INTERVAL

    run(main())
