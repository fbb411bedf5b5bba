"""Slash commands whose options are not what Discord promises, and where there is much going on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.channels.channel import Author, Command, Place
from gateway.channels.commands import Commands, Desk
from protocols.errors import ProtocolError
from protocols.targets import Target, parse_target

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

    async def start_thread(place: Target, name: str) -> Target:
        threads.append(name)
        return place

    made = desk(check=check, start_thread=start_thread)
    assert "no agent 'webby'" in await run(made, "delegate", agent="webby", task="look", thread="yes")
    assert threads == []
