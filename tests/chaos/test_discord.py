"""Answers on Discord while the gateway is killed: in the middle of writing one, and of delivering it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator

import pytest

from protocols.deadletters import DeadLetterList
from tests.chaos.deaths import DyingGateway, die_at_each_commit
from tests.chaos.reciting import kill_while_reciting, recital, reciting, wrong_answers
from tests.gateway.channels.land import Land
from tests.gateway.process import GatewayProcess

KILLS = 8
"""`python -m bench discord` does fifty."""


@pytest.mark.slow
def test_killed_again_and_again_every_answer_arrives_once_and_whole() -> None:
    with reciting() as here:
        outcome = kill_while_reciting(here, KILLS, seed=20)
    print(outcome)
    assert outcome.wrong == {}
    assert outcome.letters == 0


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_a_drafted_answer_leaves_it_once_and_whole_and_its_question_marked(when: str) -> None:
    asked: dict[int, str] = {}
    with reciting() as here:
        gateway = DyingGateway(here.home, "webster", "gateway.channels.discord.loaded")
        here.put(gateway)

        def story(number: int) -> None:
            if number not in asked:
                asked[number] = here.say(f"recite {number}")
            gateway.until(lambda: "webster" in reactions(here, asked[number]).get("✅", []), 60)
            gateway.until(lambda: gateway.sql("SELECT count(*) FROM effects WHERE state = 'pending'") == [(0,)])

        def prepare(number: int) -> None:
            here.wait_connected("webster")
            if number == 1:  # from now on what is said in this channel is read up on
                here.answer(here.say("recite 0"))

        try:
            deaths = die_at_each_commit(gateway, when, story, prepare=prepare)
        finally:
            gateway.close()
        print(f"\na drafted answer on Discord, killed {when} each of {deaths} commits")
        assert wrong_answers(here, range(deaths + 2)) == {}
        assert [m for m in asked.values() if "webster" in reactions(here, m).get("👀", [])] == []
        assert gateway.sql("SELECT state, count(*) FROM effects GROUP BY 1") == [("done", deaths + 2)]
        assert gateway.sql("SELECT count(*) FROM posts WHERE final = 0") == [(0,)]
    assert deaths >= 12


def reactions(here: Land, message: str) -> dict[str, list[str]]:
    return dict(here.discord.view.message(message)["reactions"])


@pytest.fixture
def here() -> Iterator[Land]:
    with reciting(stream=False) as made:
        yield made


def lose_the_reply_for_an_hour(here: Land, question: str) -> tuple[GatewayProcess, str]:
    """The message stands, its answer never came, the gateway died, and the nonce is forgotten."""
    gateway = here.gateway()
    here.discord.lose_reply()
    asked = here.say(question)
    here.discord.wait_for(lambda v: v.replies(asked), 60)
    gateway.kill()
    here.discord.forget_nonces()
    with contextlib.closing(sqlite3.connect(here.home.home.state_db("webster"))) as db, db:
        db.execute("UPDATE posts SET tried_at = tried_at - 3600")
        db.execute("UPDATE effects SET created_at = created_at - 3600, next_at = next_at - 3600")
    return gateway, asked


def test_a_reply_that_was_lost_is_not_sent_again_an_hour_later(here: Land) -> None:
    gateway, asked = lose_the_reply_for_an_hour(here, "recite 7")
    gateway.start()
    here.answer(asked, seconds=60)
    assert wrong_answers(here, range(7, 8)) == {}


def test_without_a_history_its_fate_is_shown_as_unknown_and_a_person_decides(here: Land) -> None:
    gateway, asked = lose_the_reply_for_an_hour(here, "recite 8")
    here.discord.overwrite("webster", "webster", deny=["read_message_history"])
    gateway.start()
    until = time.monotonic() + 60
    while not (letters := gateway.ask.get("/dead-letters", DeadLetterList).letters):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert [letter.state for letter in letters] == ["unknown"], letters[0].detail
    assert "may stand in" in letters[0].detail
    assert recital(8) in letters[0].text
    assert len(here.discord.view.replies(asked)) == 1
    status, _, _ = gateway.post(f"/dead-letters/{letters[0].id}/replay", {})
    assert status in (200, 202)
    here.discord.wait_for(lambda v: "line 008-109" in "\n".join(v.texts("webster", author="webster")), 60)
