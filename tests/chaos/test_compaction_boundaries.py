"""SIGKILL at each commit of a run that summarises its session first: once at most, and nothing of the past is lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from gateway.agent.compaction import END_MARK
from protocols.runs import RunState
from tests.chaos.deaths import GEMINI, DyingGateway, die_at_each_commit, is_answered_whole, said
from tests.conftest import ClusterHome
from tests.gateway.obeying import obedient_model, obey
from tests.standins.models.script import Call, Reply, Script, Seen, _last_words

WINDOW = 15_500
"""Tokens: the first two messages fit with the prompt, the third does not; summarised, the first makes room for it."""
FILL = {"Part": 8_000, "More": 12_000, "Now": 6_000}
"""Characters of the messages of a session."""


class _Chronicler(Script):
    """Calls a tool for each message, keeps what must be kept, and summarises as `summary` says."""

    def __init__(self, summary: str) -> None:
        super().__init__([])
        self._summary = summary

    def take(self, seen: Seen) -> Reply:
        text, has_result = _last_words(seen)
        if has_result:
            return Reply(text="done")
        number = re.findall(r"Part (\d+)", str(seen.body))
        if "about to be summarised" in text:
            return Reply(calls=[Call("memory_write", {"text": f"kept {number[-1]}.", "pin": True})])
        if "Summarise the transcript" in text:
            return Reply(text=self._summary.format(number=number[-1]) or " ")
        return Reply(calls=[Call("sessions_list", {"contains": "no such key"})])


def words(kind: str, number: int) -> str:
    return f"{kind} {number}. ".ljust(FILL[kind], "x")


@pytest.mark.parametrize(("summary", "when"), [("good", "before"), ("good", "after"), ("empty", "before")])
def test_a_kill_at_any_commit_of_a_compaction_loses_nothing_and_summarises_once(
    make_home: Callable[..., ClusterHome], summary: str, when: str
) -> None:
    home = make_home("webster")
    gateway = DyingGateway(home, "webster", *GEMINI)
    good = summary == "good"
    text = "Goal: choose blank {number}. Decided: Zerodur Class 0, by CTE. Open: the supplier."

    def speak(kind: str, number: int) -> None:
        session = f"desk-{number}"
        key = f"{kind}-{number}"
        run = gateway.end_of(gateway.delegate(words(kind, number), idempotency_key=key, session_key=session))
        assert (run.state, run.text) == (RunState.SUCCEEDED, "done"), run.reason

    def prepare(number: int) -> None:
        speak("Part", number)
        speak("More", number)

    def story(number: int) -> None:
        speak("Now", number)
        session = f"desk-{number}"
        made = gateway.sql("SELECT summary, checkpoint FROM compactions WHERE session_key = ?", session)
        assert [row[0] for row in made] == [text.format(number=number)] * good
        assert said(gateway, session) == [words(kind, number) for kind in FILL]
        assert is_answered_whole(gateway, session)
        assert gateway.notes().count(f"kept {number}.") == 1
        asked = [str(body) for body in server.bodies if f"Now {number}. " in str(body["contents"][-3:])][-1]
        assert ("were summarised" in asked, f"Part {number}. " in asked) == (good, not good)
        assert f"More {number}. " in asked
        if good:
            assert made[0][0] in asked
            assert f"- pinned: kept {number}." in asked

    with obedient_model() as server:
        server.script = _Chronicler(f"{text}\n{END_MARK}" if good else "")
        obey(home, server, "webster")
        path = home.home.instance_toml("webster")
        path.write_text(path.read_text().replace("[model]", f"[model]\ncontext_tokens = {WINDOW}", 1))
        try:
            deaths = die_at_each_commit(gateway, when, story, prepare=prepare)
        finally:
            gateway.close()
    print(f"\n{summary} summary, killed {when} each of {deaths} commits")
    assert deaths >= 11
