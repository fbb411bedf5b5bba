"""Eight agents as eight bots, and what they do of their own accord: beats, mirrors, threads, files."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.gateway.channels.land import PERSON, Land, land
from tests.gateway.obeying import obedient_model, obey
from tests.gateway.process import GatewayProcess
from tests.standins.models.script import Reply, Script, Seen, _last_words
from tests.standins.models.server import ModelServer

TEAM = ("manager", "tech-lead", "secretary", "auditor", "optimizer", "study-builder", "nx-expert", "webster")


class TestTheTeam:
    @pytest.mark.slow
    def test_each_answers_in_its_channel_and_in_direct_messages_and_only_for_itself(self) -> None:
        with land(*TEAM) as here:
            for agent in TEAM:
                here.configure(agent, home=f"discord:channel:{here.channel(agent)}")
            for agent in TEAM:
                here.gateway(agent)
            asked = {agent: here.say("status", to=agent) for agent in TEAM}
            for agent, message in asked.items():
                assert here.answer(message, by=agent, seconds=60).startswith("[offline]")
            for agent in TEAM:
                here.discord.dm(PERSON, agent, "status")
            for agent in TEAM:
                (answer,) = here.discord.wait_for(lambda v, a=agent: v.dms(PERSON, a, author=a), 60)
                assert "[offline]" in answer["content"]
            view = here.discord.view
            assert {a: [row["author"] for row in view.replies(m)] for a, m in asked.items()} == {a: [a] for a in TEAM}
            assert all(view.bot(agent)["identifies"] == 1 for agent in TEAM)


class _Beats(Script):
    """A beat finds something else to say each time; everything else is acknowledged."""

    def __init__(self) -> None:
        super().__init__([])
        self._count = itertools.count(1)

    def take(self, seen: Seen) -> Reply | None:
        text, _ = _last_words(seen)
        if "heartbeat" in str(seen.body).lower() and "hello there" not in text:
            return Reply(text=f"alert number {next(self._count)}: the queue is long")
        return Reply(text="hello yourself")


def test_a_direct_message_then_two_beats_all_reach_the_person() -> None:
    """The regression of an earlier system: a numeric allow-list let the second beat lose the typed route."""
    with land("webster") as here, obedient_model() as server:
        server.script = _Beats()
        obey(here.home, server, "webster")
        path = here.home.home.instance_toml("webster")
        beat = '[heartbeat]\ntarget = "last"\nonly_if_changed = false\nquiet = "00:00-00:01"\n'
        path.write_text(re.sub(r"(?s)\[heartbeat\].*?(?=\n\[)", beat, path.read_text()))
        here.configure("webster", users=[here.person()], dm="allowed")
        here.home.home.workspace("webster").joinpath("HEARTBEAT.md").write_text("- look at the queue\n")
        gateway = here.gateway()
        here.discord.dm(PERSON, "webster", "hello there")
        here.discord.wait_for(lambda v: len(v.dms(PERSON, "webster", author="webster")) == 1, 60)
        for number in (1, 2):
            gateway.post("/control/heartbeat/now", {})
            here.discord.wait_for(
                lambda v, n=number: any(
                    f"alert number {n}" in r["content"] for r in v.dms(PERSON, "webster", "webster")
                ),
                60,
            )
        expected = [(f"discord:user:{here.person()}", "done")] * 3
        until = time.monotonic() + 10
        while gateway.sql("SELECT target, state FROM effects WHERE kind = 'deliver' ORDER BY id") != expected:
            assert time.monotonic() < until, gateway.sql("SELECT target, state, detail FROM effects")
            time.sleep(0.05)
        assert gateway.sql("SELECT route FROM sessions WHERE key = 'agent:webster:main'") == [
            (f"discord:user:{here.person()}",)
        ]


@pytest.fixture(scope="module")
def here() -> Iterator[Land]:
    with land("manager", "webster") as made:
        path = made.home.home.cluster_toml
        both = 'log_channel = "agent-logs"\ndelegation_channel = "inter-agent"\n'
        path.write_text(path.read_text().replace("[discord]\n", f"[discord]\n{both}"))
        made.configure("webster", threads=True, home=f"discord:channel:{made.channel('webster')}")
        made.configure("manager", file_over=1, home=f"discord:channel:{made.channel('manager')}")
        made.gateway("manager")
        made.gateway("webster")
        yield made


def test_runs_and_delegations_are_told_in_their_channels(here: Land) -> None:
    run_id = here.gateway("manager").delegate("delegate to webster: status")
    here.gateway("manager").result(run_id)
    text = here.discord.wait_for(
        lambda v: (t := "\n".join(v.texts("inter-agent"))).count("webster → manager") == 1 and t, 40
    )
    assert "**manager → webster**: status" in text
    logs = here.discord.wait_for(lambda v: (t := "\n".join(v.texts("agent-logs"))).count("succeeded") >= 2 and t, 40)
    assert "**manager** succeeded" in logs
    assert "**webster** succeeded" in logs
    here.answer(here.say("status", to="manager"), by="manager")  # an answer that was delivered
    text = here.discord.wait_for(lambda v: (t := "\n".join(v.texts("agent-logs"))).count("<@") and t, 40)
    assert len(re.findall(r"\*\*manager\*\* succeeded.*<@", text)) == 1


def test_a_mention_is_answered_in_a_thread_of_its_own_which_goes_on(here: Land) -> None:
    asked = here.say("status")
    thread = here.discord.wait_for(lambda v: v.channels(parent=here.channel("webster")), 30)[0]
    here.discord.wait_for(lambda v: v.texts(thread["id"], author="webster"), 30)
    here.discord.wait_for(lambda v: "webster" in v.message(asked)["reactions"].get("✅", []), 30)
    assert here.discord.view.texts("webster", author="webster") == []
    more = here.say("what is the thermal expansion of zerodur?", channel=thread["id"])
    assert "[offline]" in here.answer(more)
    plain = here.discord.say(thread["id"], PERSON, "status")  # in its own thread it needs no mention
    here.answer(plain)
    aside = here.discord.say(thread["id"], PERSON, "what do you think?", mentions=["manager"])
    here.answer(aside, by="manager")
    assert {row["author"] for row in here.discord.view.replies(aside)} == {"manager"}
    sessions = [key for (key,) in here.gateway("webster").sql("SELECT key FROM sessions")]
    assert f"agent:webster:discord:channel:{thread['id']}" in sessions


def test_a_long_answer_comes_as_a_file_with_its_beginning(here: Land) -> None:
    words = " ".join(f"word{n:04}" for n in range(600))
    gateway = here.gateway("manager")
    assert gateway.raw("PUT", "/control/model", b'{"model": "offline/echo"}', gateway.headers())[0] == 200
    message = here.discord.say(here.channel("manager"), PERSON, words[:1900], mentions=["manager"])
    here.answer(message, by="manager")
    run_id = gateway.delegate(words, to=f"discord:channel:{here.channel('manager')}")
    gateway.result(run_id)
    row = here.discord.wait_for(lambda v: [r for r in v.messages("manager", "manager") if r["attachments"]], 30)[0]
    assert row["attachments"][0]["filename"] == "answer.md"
    assert "answer.md" in row["content"]
    assert gateway.raw("PUT", "/control/model", b'{"model": null}', gateway.headers())[0] == 200


@contextlib.contextmanager
def obeying(here: Land, server: ModelServer, agent: str, *, allow: tuple[str, ...]) -> Iterator[GatewayProcess]:
    """The agent does as it is told, until the end."""
    paths = (here.home.home.instance_toml(agent), here.home.home.cluster_toml)
    before = [path.read_text() for path in paths]
    gateway = here.gateway(agent)
    obey(here.home, server, agent, allow=allow)
    gateway.post("/control/reload", {})
    try:
        yield gateway
    finally:
        for path, text in zip(paths, before, strict=True):
            path.write_text(text)
        gateway.post("/control/reload", {})


def test_files_go_out_with_a_message(here: Land) -> None:
    with obedient_model() as server, obeying(here, server, "webster", allow=("message",)) as gateway:
        workspace = here.home.home.workspace("webster")
        (workspace / "notes").mkdir(exist_ok=True)
        (workspace / "notes" / "mesh.inp").write_text("*NODE\n1, 0, 0, 0\n")
        to = f"discord:channel:{here.channel('research')}"
        arguments = {"to": to, "text": "the mesh", "files": ["notes/mesh.inp"]}
        run = gateway.result(gateway.delegate(json.dumps([["message", arguments]])), 90)
        assert f"delivered to {to}" in str(run.steps), run
        (row,) = here.discord.view.messages("research", "webster")
        assert [a["filename"] for a in row["attachments"]] == ["mesh.inp"]
        escaping = {"to": to, "text": "x", "files": ["../../secrets/operator"]}
        run = gateway.result(gateway.delegate(json.dumps([["message", escaping]])), 60)
        assert "outside your workspace" in str(run.steps)


def test_presence_shows_how_much_there_is_to_do(here: Land) -> None:
    here.say("status", to="manager")
    here.discord.wait_for(lambda v: v.bot("manager")["presence"], 40)
