"""People talk to an agent on Discord: real gateway processes against the stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.chaos.reciting import reciting, wrong_answers
from tests.gateway.channels.land import PERSON, Land, land
from tests.gateway.obeying import obedient_model, obey
from tests.standins.models.script import Reply, Script


@pytest.fixture(scope="module")
def here() -> Iterator[Land]:
    with land("webster") as made:
        made.configure("webster", home=f"discord:channel:{made.channel('webster')}")
        yield made


def test_a_mention_in_a_channel_is_seen_answered_in_reply_and_marked_done(here: Land) -> None:
    here.gateway()
    asked = here.say("what is the thermal expansion of zerodur?")
    text = here.answer(asked)
    assert text.startswith("[offline]")
    assert "materials-optical.md" in text
    view = here.discord.view
    assert [row["author"] for row in view.replies(asked)] == ["webster"]
    assert "webster" not in view.message(asked)["reactions"].get("👀", [])
    assert view.events("reacted", "webster", emoji="👀")


def test_what_mentions_nobody_is_not_answered(here: Land) -> None:
    here.gateway()
    quiet = here.discord.say(here.channel("webster"), "antoine", "just talking")
    asked = here.say("status")
    here.answer(asked)
    assert here.discord.view.replies(quiet) == []


def test_a_direct_message_of_an_operator_is_answered_there_and_sets_the_route(here: Land) -> None:
    gateway = here.gateway()
    here.discord.dm("antoine", "webster", "remember that the kiln is at 900 degrees")
    (answer,) = here.discord.wait_for(lambda v: v.dms("antoine", "webster", author="webster"))
    assert "[offline]" in answer["content"]
    assert gateway.sql("SELECT route FROM sessions WHERE key = 'agent:webster:main'") == [
        (f"discord:user:{here.person()}",)
    ]


def test_its_state_shows_and_readiness_follows(here: Land) -> None:
    gateway = here.gateway()
    (channel,) = gateway.status().channels
    assert (channel.provider, channel.state, channel.name, channel.guilds) == ("discord", "ready", "webster", 1)
    assert gateway.raw("GET", "/ready")[0] == 200


def test_an_answer_is_shown_while_it_is_written_and_split_where_it_is_long() -> None:
    lines = [f"line {n:03} of what there is to say about glass." for n in range(70)]
    with land("webster") as there, obedient_model() as server:
        server.script = Script([Reply(text="\n".join(lines), piece=60, pause=0.05, times=0)])
        obey(there.home, server, "webster")
        there.configure("webster", home=f"discord:channel:{there.channel('webster')}")
        there.gateway()
        asked = there.say("tell me of glass")
        there.answer(asked, seconds=90)
        view = there.discord.view
        rows = view.messages("webster", "webster")
        assert len(rows) == 2
        assert [row["reply_to"] for row in rows] == [asked, None]
        assert re.findall(r"line (\d\d\d)", "\n".join(row["content"] for row in rows)) == [f"{n:03}" for n in range(70)]
        shown = [e["time"] for e in view.events("sent", "webster") + view.events("edited", "webster")]
        assert len(shown) >= 4, "it was not shown while it was written"
        assert view.events("typed", "webster")


def test_of_an_answer_that_becomes_a_file_no_more_is_drafted_than_may_be_posted() -> None:
    with reciting(file_over=1) as made:
        made.gateway()
        asked = made.say("recite 1")
        made.answer(asked)
        view = made.discord.view
        (answer,) = view.messages("webster", author="webster")
        assert [file["filename"] for file in answer["attachments"]] == ["answer.md"]
        assert len(view.events("sent", "webster")) == 2  # the draft, and what took its place


def test_what_is_said_while_an_answer_is_written_is_answered_with_it_and_takes_nothing_from_it() -> None:
    with reciting(steer="collect", file_over=10) as made:
        gateway = made.gateway()
        first = made.say("recite 1")
        made.discord.wait_for(lambda v: v.replies(first), 30)
        second = made.say("recite 2")
        for message in (first, second):
            made.discord.wait_for(lambda v, m=message: "webster" in v.message(m)["reactions"].get("✅", []), 30)
        assert gateway.sql("SELECT count(*) FROM runs WHERE merged_into IS NOT NULL") == [(1,)]
        assert wrong_answers(made, range(1, 3)) == {}
        assert not any("webster" in made.discord.view.message(m)["reactions"].get("👀", []) for m in (first, second))


def test_two_people_who_write_at_once_are_each_answered_where_they_wrote() -> None:
    with reciting(steer="collect", people=(PERSON, "guest"), dm="allowed") as made:
        made.configure("webster", users=[made.person(), made.person("guest")])
        gateway = made.gateway()
        made.discord.dm(PERSON, "webster", "recite 1")
        made.discord.wait_for(lambda v: v.dms(PERSON, "webster", author="webster"), 30)
        made.discord.dm("guest", "webster", "recite 2")
        for person, number in ((PERSON, 1), ("guest", 2)):
            made.discord.wait_for(
                lambda v, p=person, n=number: f"line {n:03}-109" in str(v.dms(p, "webster", author="webster")), 30
            )
        assert gateway.sql("SELECT DISTINCT session_key FROM runs") == [("agent:webster:main",)]


def test_an_answer_that_is_ready_when_the_gateway_is_stopped_still_arrives() -> None:
    with reciting() as made:
        gateway = made.gateway()
        asked = made.say("recite 1")
        made.discord.wait_for(lambda v: v.replies(asked), 30)
        assert gateway.stop() == 0
        assert wrong_answers(made, range(1, 2)) == {}
        assert "webster" in made.discord.view.message(asked)["reactions"]["✅"]
