"""Who is heard: what becomes of one message, decided from the configuration alone. Nothing here waits or writes."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.channels.channel import Author, Heard, Place
from runtime.config_discord import Ears, InstanceDiscordTable


class Verdict(msgspec.Struct, frozen=True):
    """`accept`: it becomes a run; `pair`: a stranger's direct message; `refuse`: it stays without an answer."""

    outcome: Literal["accept", "pair", "refuse"]
    reason: str = ""
    """Why it is refused."""


class Known(msgspec.Struct, frozen=True):
    """What the ledger knows that a decision hangs on."""

    paired: bool = False
    """The author was approved by a person."""
    bot_answers: int = 0
    """Answers to bots in this channel since a person wrote there."""


ACCEPT = Verdict("accept")
PAIR = Verdict("pair")


def judge(heard: Heard, ears: Ears, table: InstanceDiscordTable, known: Known) -> Verdict:
    """What becomes of a message."""
    if heard.own:
        return _refuse("it is our own")
    if not (heard.text.strip() or heard.forwarded.strip() or heard.attachments or heard.mentions_me):
        return _refuse("there is nothing in it")
    if heard.place.kind == "direct":
        return _direct(heard, ears, table, known)
    if problem := deaf(heard.place, ears):
        return _refuse(problem)
    if heard.author.bot:
        return _bot(heard, ears, table, known)
    if not listens_to(heard.author, ears):
        return _refuse(f"{heard.author.target} is not among [discord] users")
    if not heard.mentions_me:
        if heard.to_others:
            return _refuse("it is said to somebody else")
        if ears.needs_mention(*_ids(heard.place)) and not heard.place.ours:
            return _refuse("it does not mention this agent")
    return ACCEPT


def deaf(place: Place, ears: Ears) -> str:
    """Why nothing said in a channel or thread is heard; empty if it is."""
    if ears.guilds and place.guild not in ears.guilds:
        return f"the server {place.guild} is not among [discord] guilds"
    if not ears.guilds and ears.channels is None:
        return "neither a server nor a channel is named in [discord]"
    if not ears.hears(*_ids(place)):
        return f"{place.target} is not among the channels of this agent"
    return ""


def listens_to(author: Author, ears: Ears) -> bool:
    """May what this person or bot says in a channel reach the agent at all?"""
    if author.bot:
        return author.target.id in ears.bots
    return not ears.users or author.target.id in ears.users | ears.operators


def _direct(heard: Heard, ears: Ears, table: InstanceDiscordTable, known: Known) -> Verdict:
    if heard.author.bot:
        return _refuse("direct messages of bots are not heard")
    if table.dm == "off":
        return _refuse('direct messages are off ([discord] dm = "off")')
    if heard.author.target.id in ears.users | ears.operators:
        return ACCEPT
    if table.dm == "allowed":
        return _refuse(f"{heard.author.target} is not among [discord] users")
    return ACCEPT if known.paired else PAIR


def _bot(heard: Heard, ears: Ears, table: InstanceDiscordTable, known: Known) -> Verdict:
    if not listens_to(heard.author, ears):
        return _refuse(f"the bot {heard.author.target} is not among [discord] bots")
    if not heard.mentions_me:
        return _refuse("a bot is heard only when it mentions this agent")
    if known.bot_answers >= table.bot_turns:
        return _refuse(f"{known.bot_answers} answers to bots in a row; it goes on when a person writes")
    return ACCEPT


def _ids(place: Place) -> tuple[str, str | None]:
    return place.target.id, place.parent.id if place.parent is not None else None


def _refuse(reason: str) -> Verdict:
    return Verdict("refuse", reason)
