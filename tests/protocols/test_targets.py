"""Targets are always `provider:kind:id`; nothing else ever becomes one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.targets import KINDS, Target, TargetError, parse_target

snowflakes = st.from_regex(r"[0-9]{15,21}", fullmatch=True)
slack_ids = st.from_regex(r"[A-Z][A-Z0-9]{5,20}(/[0-9]{1,10}\.[0-9]{1,6})?", fullmatch=True)
run_ids = st.from_regex(r"[a-z][a-z0-9-]{0,10}/run-[0-9a-z]{4,20}", fullmatch=True)
targets = (
    st.builds(Target, st.just("discord"), st.sampled_from(KINDS["discord"]), snowflakes)
    | st.builds(Target, st.just("slack"), st.sampled_from(KINDS["slack"]), slack_ids)
    | st.builds(Target, st.just("agent"), st.just("run"), run_ids)
)


@given(targets)
def test_a_target_survives_the_wire(target: Target) -> None:
    assert parse_target(str(target)) == target


@given(targets)
def test_its_bare_id_is_never_a_target(target: Target) -> None:
    for part in (
        target.id,
        f"{target.kind}:{target.id}",
        f"{target.provider}:{target.id}",
        f":{target.kind}:{target.id}",
    ):
        with pytest.raises(TargetError):
            parse_target(part)


@given(targets, st.sampled_from([" ", "\n", "\t", ":", "x!", "\u200b", "/"]))
def test_something_more_at_either_end_is_refused(target: Target, more: str) -> None:
    for text in (f"{target}{more}", f"{more}{target}"):
        with pytest.raises(TargetError):
            parse_target(text)


@given(st.text(max_size=40))
def test_what_parses_prints_as_it_was(text: str) -> None:
    with contextlib.suppress(TargetError):
        assert str(parse_target(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("123456789012345678", "write provider:kind:id"),
        ("channel:123456789012345678", "write provider:kind:id"),
        ("telegram:user:1", "known: discord, slack, agent"),
        ("discord:room:123456789012345678", "known: user, channel"),
        ("discord:channel:general", "is not a discord channel id"),
        ("discord:channel:123456789012345678\n", "is not a discord channel id"),
        ("discord:channel:\u0661\u0662\u0663456789012345678", "is not a discord channel id"),
        ("slack:channel:c0123456", "is not a slack channel id"),
        ("agent:run:manager", "is not a agent run id"),
    ],
)
def test_a_refusal_shows_the_form(text: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        parse_target(text)
