"""SIGKILL at each commit of a run that people speak to: what they say is heard once, and never lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocols.runs import RunState
from tests.chaos.deaths import (
    DyingGateway,
    answer,
    ask_about,
    cancel,
    die_at_each_commit,
    is_answered_whole,
    question,
    said,
)
from tests.conftest import ClusterHome

MakeHome = Callable[..., ClusterHome]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_neither_loses_nor_repeats_what_was_collected(make_home: MakeHome, when: str) -> None:
    home = make_home("webster")
    ask_about(home, "read_file")
    gateway = DyingGateway(home)

    def story(number: int) -> None:
        session = f"desk-{number}"
        first = gateway.delegate("read SOUL.md", idempotency_key=f"first-{number}", session_key=session)
        question(gateway, first)
        words = f"remember meanwhile {number}."
        second = gateway.delegate(words, idempotency_key=f"second-{number}", session_key=session)
        answer(gateway, first, "approve")
        runs = [gateway.end_of(first), gateway.end_of(second)]
        assert [run.state for run in runs] == [RunState.SUCCEEDED, RunState.SUCCEEDED], runs
        assert runs[1].reason == f"answered with {first}"
        assert runs[0].text == runs[1].text
        assert "Remembered" in runs[0].text
        assert gateway.notes().count(f"meanwhile {number}.") == 1
        assert said(gateway, session) == ["read SOUL.md", words]
        assert is_answered_whole(gateway, session)
        log = home.home.project_log.read_text()
        assert [log.count(f"| {run.run_id}\n") for run in runs] == [1, 1]

    try:
        deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    print(f"\ncollected, killed {when} each of {deaths} commits")
    assert deaths >= 15


def test_a_kill_at_any_commit_lets_all_that_was_collected_go_on_when_its_run_is_cancelled(make_home: MakeHome) -> None:
    home = make_home("webster")
    ask_about(home, "read_file", "list_files")
    gateway = DyingGateway(home)

    def story(number: int) -> None:
        session = f"desk-{number}"
        first = gateway.delegate("read SOUL.md", idempotency_key=f"first-{number}", session_key=session)
        question(gateway, first, "SOUL.md")
        words = [f"What is the density of number {number}?", f"remember meanwhile {number}.", "read AGENTS.md"]
        others = [
            gateway.delegate(word, idempotency_key=f"{n}-{number}", session_key=session) for n, word in enumerate(words)
        ]
        answer(gateway, first, "approve", "SOUL.md")
        question(gateway, first, "AGENTS.md")
        cancel(gateway, first)
        assert gateway.end_of(first).state is RunState.CANCELLED
        ended = [gateway.end_of(run_id) for run_id in others]
        assert [run.state for run in ended] == [RunState.SUCCEEDED] * 3, ended
        assert said(gateway, session) == ["read SOUL.md", *words]
        log = home.home.project_log.read_text()
        assert [log.count(f"| {run.run_id}\n") for run in ended] == [1, 1, 1]

    try:
        deaths = die_at_each_commit(gateway, "before", story)
    finally:
        gateway.close()
    print(f"\ncollected and cancelled, killed before each of {deaths} commits")
    assert deaths >= 15


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_commit_of_an_interruption_ends_the_old_and_carries_out_the_new(
    make_home: MakeHome, when: str
) -> None:
    home = make_home("webster")
    ask_about(home, "read_file", limits='steer = "interrupt"')
    gateway = DyingGateway(home)

    def story(number: int) -> None:
        session = f"desk-{number}"
        first = gateway.delegate("read SOUL.md", idempotency_key=f"first-{number}", session_key=session)
        question(gateway, first)
        words = f"remember instead {number}."
        second = gateway.delegate(words, idempotency_key=f"second-{number}", session_key=session)
        old, new = gateway.end_of(first), gateway.end_of(second)
        assert (old.state, old.reason) == (RunState.CANCELLED, f"interrupted by {second}, a newer message")
        assert new.state is RunState.SUCCEEDED, new
        assert gateway.notes().count(f"instead {number}.") == 1
        assert said(gateway, session) == ["read SOUL.md", words]
        assert gateway.sql("SELECT state FROM approvals WHERE run_id = ?", first) == [("expired",)]
        log = home.home.project_log.read_text()
        assert [log.count(f"| {run.run_id}\n") for run in (old, new)] == [1, 1]

    try:
        deaths = die_at_each_commit(gateway, when, story)
    finally:
        gateway.close()
    print(f"\ninterrupted, killed {when} each of {deaths} commits")
    assert deaths >= 13
