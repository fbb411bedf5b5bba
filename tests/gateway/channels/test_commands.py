"""Slash commands whose options are not what Discord promises, and where there is much going on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from gateway.channels.channel import Author, Command, Place, Refusal, Uncertain, Unreachable
from gateway.channels.commands import Commands, Desk
from gateway.channels.threads import end_thread, open_thread
from gateway.desk import build_desk
from protocols.errors import ProtocolError
from protocols.targets import Target, parse_target
from runtime.secrets import Redactor
from tests.standins.channel import MemoryChannel

ANN = parse_target("discord:user:200000000000000001")
ROOM = parse_target("discord:channel:100000000000000001")


def desk(**parts: Callable[..., Any]) -> Desk:
    """Only what a test needs of it."""
    fields: dict[str, Any] = {field.name: None for field in msgspec.structs.fields(Desk)}
    return Desk(**(fields | {"agent": "manager"} | parts))


async def run(made: Desk, name: str, **arguments: str) -> str:
    said: list[str] = []

    async def reply(text: str) -> None:
        said.append(text)

    async def no_button(command: Command) -> None: ...

    commands = Commands(
        made,
        session_of=lambda command: "session",
        operators=lambda: [ANN.id],
        may_talk=lambda command: True,
        pressed=no_button,
    )
    await commands(Command(name, arguments, Author(ANN, "Ann"), Place(ROOM, "channel"), reply))
    (text,) = said
    return text


async def test_delegate_without_its_options_says_what_it_takes() -> None:
    assert await run(desk(), "delegate") == "Say who is to do it and what: /delegate agent:... task:..."
    assert "/delegate agent" in await run(desk(), "delegate", agent="webster", task="  ")


async def test_no_thread_is_made_for_an_agent_that_there_is_not() -> None:
    threads: list[str] = []

    def check(agent: str) -> None:
        raise ProtocolError(404, "unknown_agent", f"there is no agent {agent!r}")

    async def start_thread(place: Target, name: str, text: str) -> Target:
        threads.append(name)
        return place

    made = desk(check=check, start_thread=start_thread)
    assert "no agent 'webby'" in await run(made, "delegate", agent="webby", task="look", thread="yes")
    assert threads == []


class TestDelegateInAThread:
    def made(self, channel: MemoryChannel, given: list[tuple[str, Target]], *, accepts: bool = True) -> Desk:
        async def delegate(agent: str, task: str, target: Target) -> str:
            if not accepts:
                raise ProtocolError(403, "not_permitted", "manager may not delegate to webster")
            given.append((task, target))
            return "run-1"

        return desk(
            check=lambda agent: None,
            delegate=delegate,
            start_thread=lambda place, name, text: open_thread(channel, place, name, text),
            end_thread=lambda thread: end_thread(channel, thread),
        )

    async def delegated(self, channel: MemoryChannel, *, accepts: bool = True) -> tuple[str, list[tuple[str, Target]]]:
        """(what the person is told, what was delegated and where its answer goes)"""
        given: list[tuple[str, Target]] = []
        made = self.made(channel, given, accepts=accepts)
        return await run(made, "delegate", agent="webster", task="look it up", thread="yes"), given

    async def test_it_begins_with_the_task(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        told, given = await self.delegated(channel)
        (thread,) = channel.threads
        assert given == [("look it up", thread)]
        assert channel.texts(thread) == [f"For webster, from <@{ANN.id}>:\nlook it up"]
        assert told == f"webster accepted it as `run-1`; its answer comes in <#{thread.id}> from its own bot."

    async def test_one_in_which_it_may_not_write_goes_and_the_task_is_given_all_the_same(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        channel.fail("send", Refusal("no_access", "Missing Permissions"))
        told, given = await self.delegated(channel)
        assert channel.threads == []
        assert given == [("look it up", ROOM)]
        assert told.endswith(f"comes in <#{ROOM.id}> from its own bot. It has no thread: Missing Permissions.")

    async def test_one_that_cannot_be_removed_keeps_nothing_from_being_done(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        channel.fail("send", Refusal("no_access", "Missing Permissions"))
        channel.fail("end_thread", Unreachable("503"))
        _, given = await self.delegated(channel)
        assert given == [("look it up", ROOM)]

    async def test_one_that_cannot_be_made_neither(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        channel.fail("start_thread", Unreachable("503"))
        told, given = await self.delegated(channel)
        assert given == [("look it up", ROOM)]
        assert told.endswith("It has no thread: 503.")

    async def test_what_passes_leaves_the_thread_for_the_answer(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        channel.fail("send", Uncertain("no answer"))
        _, given = await self.delegated(channel)
        assert given == [("look it up", channel.threads[0])]

    async def test_none_stays_for_a_task_that_was_not_accepted(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        told, given = await self.delegated(channel, accepts=False)
        assert (told, given) == ("Not done: manager may not delegate to webster", [])
        assert channel.threads == []

    async def test_no_half_of_a_secret_is_its_name(self) -> None:
        channel = MemoryChannel(lambda: 1.0)
        names: list[str] = []

        async def start_thread(place: Target, message_id: str | None, name: str) -> Target:
            names.append(name)
            return await MemoryChannel.start_thread(channel, place, message_id, name)

        channel.start_thread = start_thread  # type: ignore[method-assign]
        secret = "s3cret-" * 6
        nothing: Any = None
        parts = [nothing] * 7
        real = build_desk(
            "manager", channel, SimpleNamespace(begin_anew=None), SimpleNamespace(open_in=None), *parts[:2],  # type: ignore[arg-type]
            SimpleNamespace(beat_now=None), SimpleNamespace(list=None), nothing,  # type: ignore[arg-type]
            status=nothing, on_model=nothing, set_heartbeat=nothing, cancel_children=nothing,
            redact=Redactor([secret]),
        )  # fmt: skip
        made = self.made(channel, [])
        made = msgspec.structs.replace(made, start_thread=real.start_thread)
        task = f"look up what the machine with the long name says to the key {secret}"
        await run(made, "delegate", agent="webster", task=task, thread="yes")
        assert names == [f"webster: {task.replace(secret, '[redacted]')}"]
