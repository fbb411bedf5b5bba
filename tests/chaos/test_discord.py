"""Answers on Discord while the gateway is killed: in the middle of writing one, and of delivering it."""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
import time
from collections.abc import Iterator

import pytest

from protocols.deadletters import DeadLetterList
from tests.gateway.channels.land import Land, land
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess
from tests.standins.models.script import Reply, Script, Seen, _last_words

LINES = 110
"""Of one answer: some 3,300 characters, so two messages."""
KILLS = 50


class _Recital(Script):
    """Answers "recite K" with K's lines, as slowly as a model writes; every line says whose it is and which."""

    def take(self, seen: Seen) -> Reply | None:
        found = re.findall(r"recite (\d+)", _last_words(seen)[0])
        number = int(found[-1]) if found else -1
        return Reply(text=recital(number), piece=80, pause=0.02)


def recital(number: int) -> str:
    return "\n".join(f"line {number:03}-{line:03} of the answer." for line in range(LINES))


@pytest.fixture
def here() -> Iterator[Land]:
    with land("webster") as made, obedient_model() as server:
        server.script = _Recital([])
        obey(made.home, server, "webster")
        made.configure("webster", home=f"discord:channel:{made.channel('webster')}")
        yield made


def said(here: Land) -> str:
    """All that webster's messages say now, oldest first."""
    return "\n".join(here.discord.view.texts("webster", author="webster"))


def check_each_stands_once(here: Land, numbers: range) -> None:
    text = said(here)
    wrong = {}
    for number in numbers:
        lines = re.findall(rf"line {number:03}-(\d\d\d) of the answer\.", text)
        if lines != [f"{line:03}" for line in range(LINES)]:
            wrong[number] = f"{len(lines)} lines, {len(set(lines))} different"
    assert wrong == {}


@pytest.mark.slow
def test_killed_fifty_times_every_answer_arrives_once_and_whole(here: Land) -> None:
    rng = random.Random(20)
    gateway = here.gateway()
    asked: list[str] = []
    moments = {"writing": 0, "written": 0}
    for number in range(KILLS):
        asked.append(here.say(f"recite {number}"))
        # until something of it is shown, and then into its writing, its end or its delivery
        here.discord.wait_for(lambda v, id=asked[-1]: v.replies(id), 60)
        time.sleep(rng.uniform(0.0, 1.3))
        (state,) = gateway.sql("SELECT state FROM runs WHERE message LIKE ?", f"%recite {number}%")[0]
        moments["written" if state == "succeeded" else "writing"] += 1
        gateway.kill()
        gateway.start()
    for message in asked:
        here.answer(message, seconds=120)
    check_each_stands_once(here, range(KILLS))
    print(moments)
    assert min(moments.values()) >= 5, moments
    assert gateway.ask.get("/dead-letters", DeadLetterList).letters == []


def test_a_reply_that_was_lost_is_not_sent_again_an_hour_later(here: Land) -> None:
    """The message stands, its answer never came, the nonce is forgotten: the history tells."""
    here.configure("webster", stream=False)
    gateway = here.gateway()
    here.discord.lose_reply()
    asked = here.say("recite 7")
    here.discord.wait_for(lambda v: v.replies(asked))
    gateway.kill()
    here.discord.forget_nonces()
    _an_hour_ago(gateway)
    gateway.start()
    here.answer(asked)
    check_each_stands_once(here, range(7, 8))


def test_without_a_history_its_fate_is_shown_as_unknown_and_a_person_decides(here: Land) -> None:
    here.configure("webster", stream=False)
    gateway = here.gateway()
    here.discord.lose_reply()
    asked = here.say("recite 8")
    here.discord.wait_for(lambda v: v.replies(asked))
    gateway.kill()
    here.discord.forget_nonces()
    _an_hour_ago(gateway)
    here.discord.overwrite("webster", "webster", deny=["read_message_history"])
    gateway.start()
    until = time.monotonic() + 30
    while not (letters := gateway.ask.get("/dead-letters", DeadLetterList).letters):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert [letter.state for letter in letters] == ["unknown"], letters[0].detail
    assert "may stand in" in letters[0].detail
    assert len(here.discord.view.replies(asked)) == 1
    assert recital(8) in letters[0].text


def _an_hour_ago(gateway: GatewayProcess) -> None:
    """Everything that was tried was tried an hour ago: what the clock would say after an hour's outage."""
    with contextlib.closing(sqlite3.connect(gateway.home.home.state_db(gateway.agent))) as db, db:
        db.execute("UPDATE posts SET tried_at = tried_at - 3600")
        db.execute("UPDATE effects SET created_at = created_at - 3600, next_at = next_at - 3600")
