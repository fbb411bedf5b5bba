"""When a gateway is started again, as a pure machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.supervisors.policy import CAP_SECONDS, FLOOR_SECONDS, LOOP_EXITS, LOOP_SECONDS, RestartPolicy, exit_words


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    policy = RestartPolicy(lambda: 1.0)
    delays = [policy.exited(75, now=float(n), uptime=0.0).delay for n in range(10)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 40))
def test_every_delay_lies_between_floor_and_cap(drawn: float, exits: int) -> None:
    policy = RestartPolicy(lambda: drawn)
    for n in range(exits + 1):
        delay = policy.exited(75, now=float(n), uptime=0.0).delay
        assert delay is not None
        assert FLOOR_SECONDS <= delay <= CAP_SECONDS


def test_exits_close_together_are_a_crash_loop() -> None:
    policy = RestartPolicy(lambda: 0.5)
    verdicts = [policy.exited(1, now=float(n), uptime=0.5) for n in range(LOOP_EXITS)]
    assert [verdict.state for verdict in verdicts] == ["backoff"] * (LOOP_EXITS - 1) + ["crash-loop"]
    assert verdicts[-1].delay is None
    assert "exit code 1" in verdicts[-1].reason


def test_exits_far_apart_are_no_crash_loop() -> None:
    policy = RestartPolicy(lambda: 0.5)
    for n in range(20):
        assert policy.exited(1, now=n * LOOP_SECONDS, uptime=30.0).state == "backoff"


def test_a_stable_time_begins_again_at_the_first_backoff() -> None:
    policy = RestartPolicy(lambda: 1.0)
    for n in range(3):
        policy.exited(1, now=float(n), uptime=0.5)
    assert policy.exited(1, now=100.0, uptime=61.0).delay == 0.5


def test_a_persons_start_forgets_what_was() -> None:
    policy = RestartPolicy(lambda: 1.0)
    for n in range(LOOP_EXITS):
        policy.exited(1, now=float(n), uptime=0.5)
    policy.clear()
    assert policy.exited(1, now=10.0, uptime=0.5).delay == 0.5


def test_a_bad_configuration_is_never_retried() -> None:
    verdict = RestartPolicy(lambda: 0.5).exited(78, now=0.0, uptime=0.1)
    assert (verdict.state, verdict.delay) == ("config-error", None)


def test_a_taken_port_is_retried_for_ever() -> None:
    policy = RestartPolicy(lambda: 0.5)
    assert {policy.exited(75, now=float(n), uptime=0.1).state for n in range(50)} == {"port-taken"}


@pytest.mark.parametrize(
    ("code", "words"), [(1, "with exit code 1"), (-9, "by SIGKILL"), (-250, "by signal 250"), (None, "unseen")]
)
def test_an_exit_in_words(code: int | None, words: str) -> None:
    assert exit_words(code) == words
