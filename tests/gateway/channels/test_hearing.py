"""Who is heard: every decision, from the configuration alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.channels.channel import Attachment, Author, Heard, Place
from gateway.channels.hearing import Known, judge
from protocols.targets import Target
from runtime.config_discord import InstanceDiscordTable
from tests.gateway.channels.listening import ANN, BOB, DIRECT, FREE, GUILD, OTHER, ROBOT, ROOM, ears_of

THREAD = Target("discord", "channel", "300000000000000009")
FILE = Attachment("1", "a.txt", 3, "text/plain", "at/1")
CHANNEL = Place(ROOM, "channel", guild=GUILD)
DM = Place(DIRECT, "direct")


def message(
    place: Place = CHANNEL, author: Target = ANN, text: str = "hello", *, bot: bool = False, **fields: Any
) -> Heard:
    return Heard("1400000000000000001", place, Author(author, "Ann", bot), text, 0.0, **fields)


def mention(place: Place = CHANNEL, author: Target = ANN, **fields: Any) -> Heard:
    return message(place, author, mentions_me=True, **fields)


def thread(parent: Target) -> Place:
    return Place(THREAD, "thread", guild=GUILD, parent=parent)


def decide(heard: Heard, *, known: Known | None = None, table: dict[str, Any] | None = None, **ears: Any) -> str:
    verdict = judge(heard, ears_of(**ears), InstanceDiscordTable(**(table or {})), known or Known())
    return verdict.reason or verdict.outcome


@pytest.mark.parametrize(
    ("heard", "options", "decision"),
    [
        # in channels
        (mention(), {}, "accept"),
        (message(), {}, "it does not mention this agent"),
        (message(Place(FREE, "channel", guild=GUILD)), {}, "accept"),
        (mention(text=""), {}, "accept"),
        (message(Place(FREE, "channel", guild=GUILD), text=" "), {}, "there is nothing in it"),
        (message(Place(FREE, "channel", guild=GUILD), text="", attachments=[FILE]), {}, "accept"),
        (mention(own=True), {}, "it is our own"),
        # servers
        (mention(Place(ROOM, "channel", guild="1")), {}, "the server 1 is not among [discord] guilds"),
        (mention(), {"guilds": frozenset()}, "neither a server nor a channel is named in [discord]"),
        (mention(), {"guilds": frozenset(), "channels": frozenset({ROOM.id})}, "accept"),
        # channels
        (mention(), {"channels": frozenset({ROOM.id})}, "accept"),
        (mention(), {"channels": frozenset({OTHER.id})}, f"{ROOM} is not among the channels of this agent"),
        (mention(), {"others": frozenset({ROOM.id})}, f"{ROOM} is not among the channels of this agent"),
        # threads go with their channel
        (mention(thread(ROOM)), {"channels": frozenset({ROOM.id})}, "accept"),
        (
            mention(thread(OTHER)),
            {"others": frozenset({OTHER.id})},
            f"{THREAD} is not among the channels of this agent",
        ),
        (message(thread(FREE)), {}, "accept"),
        (message(thread(ROOM)), {}, "it does not mention this agent"),
        # in a thread that it made, and where it needs no mention, what is said to nobody else is said to it
        (message(msgspec.structs.replace(thread(ROOM), ours=True)), {}, "accept"),
        (message(msgspec.structs.replace(thread(ROOM), ours=True), to_others=True), {}, "it is said to somebody else"),
        (message(Place(FREE, "channel", guild=GUILD), to_others=True), {}, "it is said to somebody else"),
        # people
        (mention(), {"users": frozenset({ANN.id})}, "accept"),
        (mention(author=BOB), {"users": frozenset({ANN.id})}, f"{BOB} is not among [discord] users"),
        (mention(author=BOB), {"users": frozenset({ANN.id}), "operators": frozenset({BOB.id})}, "accept"),
        # bots
        (mention(author=ROBOT, bot=True), {}, f"the bot {ROBOT} is not among [discord] bots"),
        (mention(author=ROBOT, bot=True), {"bots": frozenset({ROBOT.id})}, "accept"),
        (
            mention(author=ROBOT, bot=True),
            {"bots": frozenset({ROBOT.id}), "users": frozenset({ANN.id})},
            "accept",
        ),
        (
            message(Place(FREE, "channel", guild=GUILD), ROBOT, bot=True),
            {"bots": frozenset({ROBOT.id})},
            "a bot is heard only when it mentions this agent",
        ),
        (message(DM, ROBOT, bot=True), {"bots": frozenset({ROBOT.id})}, "direct messages of bots are not heard"),
        # a name on the list of users opens nothing to a bot
        (
            mention(author=ROBOT, bot=True),
            {"users": frozenset({ROBOT.id})},
            f"the bot {ROBOT} is not among [discord] bots",
        ),
    ],
)
def test_a_channel(heard: Heard, options: dict[str, Any], decision: str) -> None:
    assert decide(heard, **options) == decision


@pytest.mark.parametrize(
    ("answers", "most", "decision"),
    [
        (2, 3, "accept"),
        (3, 3, "3 answers to bots in a row; it goes on when a person writes"),
        (0, 0, "0 answers to bots in a row; it goes on when a person writes"),
    ],
)
def test_bots_are_answered_so_often_in_a_row(answers: int, most: int, decision: str) -> None:
    heard = mention(author=ROBOT, bot=True)
    known = Known(bot_answers=answers)
    assert decide(heard, known=known, table={"bot_turns": most}, bots=frozenset({ROBOT.id})) == decision


def test_a_person_is_answered_however_many_bots_were() -> None:
    assert decide(mention(), known=Known(bot_answers=50)) == "accept"


@pytest.mark.parametrize(
    ("dm", "paired", "ears", "decision"),
    [
        ("pairing", False, {}, "pair"),
        ("pairing", True, {}, "accept"),
        ("pairing", False, {"users": frozenset({ANN.id})}, "accept"),
        ("pairing", False, {"operators": frozenset({ANN.id})}, "accept"),
        ("allowed", False, {"users": frozenset({ANN.id})}, "accept"),
        ("allowed", False, {}, f"{ANN} is not among [discord] users"),
        ("allowed", True, {}, f"{ANN} is not among [discord] users"),
        ("off", True, {"users": frozenset({ANN.id})}, 'direct messages are off ([discord] dm = "off")'),
        # servers and channels say nothing about direct messages
        ("pairing", True, {"guilds": frozenset(), "channels": frozenset()}, "accept"),
    ],
)
def test_a_direct_message(dm: str, paired: bool, ears: dict[str, Any], decision: str) -> None:
    assert decide(message(DM), known=Known(paired=paired), table={"dm": dm}, **ears) == decision


def test_an_empty_direct_message_asks_for_no_pairing() -> None:
    assert decide(message(DM, text=""), table={"dm": "pairing"}) == "there is nothing in it"
