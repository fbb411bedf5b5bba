"""Long answers on Discord while the gateway is killed again and again: shared by the test and the bench."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator

import msgspec

from protocols.deadletters import DeadLetterList
from tests.gateway.channels.land import PERSON, Land, land
from tests.gateway.obeying import obedient_model, obey
from tests.standins.models.script import Reply, Script, Seen, _last_words

LINES = 110
"""Of one answer: some 3,000 characters, so two messages or more."""


class _Recital(Script):
    """Answers "recite K" with K's lines, as slowly as a model writes; every line says whose it is and which."""

    def take(self, seen: Seen) -> Reply | None:
        found = re.findall(r"recite (\d+)", _last_words(seen)[0])
        return Reply(text=recital(int(found[-1]) if found else -1), piece=80, pause=0.02)


def recital(number: int) -> str:
    return "\n".join(f"line {number:03}-{line:03} of the answer." for line in range(LINES))


@contextlib.contextmanager
def reciting(steer: str = "queue", people: tuple[str, ...] = (PERSON,), **discord: object) -> Iterator[Land]:
    """Webster, who recites; with `queue` each message has a run of its own."""
    with land("webster", people=people) as here, obedient_model() as server:
        server.script = _Recital([])
        obey(here.home, server, "webster", f'[limits]\nsteer = "{steer}"')
        here.configure("webster", home=f"discord:channel:{here.channel('webster')}", **discord)
        yield here


class Outcome(msgspec.Struct):
    kills: int
    while_writing: int
    """Kills before the answer was whole in the ledger; the others came while it was delivered, or after."""
    wrong: dict[int, str]
    """Answers that do not stand once and whole, and what stands there."""
    letters: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kills} answers under {self.kills} kills, {self.while_writing} of them while it was written:"
            f" {self.kills - len(self.wrong)} stand once and whole ({self.seconds:.0f} s) {self.wrong or ''}"
        )


def kill_while_reciting(here: Land, kills: int, seed: int) -> Outcome:
    """Ask, wait until something of the answer shows, kill at some moment after it; so `kills` times."""
    rng = random.Random(seed)
    begun = time.monotonic()
    gateway = here.gateway()
    asked: list[str] = []
    writing = 0
    for number in range(kills):
        asked.append(here.say(f"recite {number}"))
        here.discord.wait_for(lambda v, id=asked[-1]: v.replies(id), 120)
        time.sleep(rng.uniform(0.0, 1.3))
        ((state,),) = gateway.sql("SELECT state FROM runs WHERE message LIKE ?", f"%recite {number}")
        writing += state != "succeeded"
        gateway.kill()
        gateway.start()
    for message in asked:
        here.answer(message, seconds=180)
    letters = gateway.ask.get("/dead-letters", DeadLetterList).letters
    return Outcome(kills, writing, wrong_answers(here, range(kills)), len(letters), time.monotonic() - begun)


def wrong_answers(here: Land, numbers: range) -> dict[int, str]:
    """Those of which not every line stands once and in its order."""
    text = "\n".join(here.discord.view.texts("webster", author="webster"))
    wrong = {}
    for number in numbers:
        lines = re.findall(rf"line {number:03}-(\d\d\d) of the answer\.", text)
        if lines != [f"{line:03}" for line in range(LINES)]:
            wrong[number] = f"{len(lines)} lines, {len(set(lines))} different"
    return wrong
