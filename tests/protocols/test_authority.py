"""Who may give work to whom: the shipped rules in full, and what a rule may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.authority import DEFAULT_AUTHORITY, OPERATOR, VIEWER, Authority, AuthorityError
from protocols.registry import AGENTS

NAMES = [str(entry.name) for entry in AGENTS]
SHIPPED = Authority(DEFAULT_AUTHORITY, NAMES)

# Rows give, columns receive, both in the registry's order; `x` may.
TRUTH = """
manager         . x x x x x x x x x x x x
tech-lead       . . x x x x x x x x x x x
secretary       . . . . . . . . . . . . .
auditor         . . . . . . . . . . . . .
optimizer       . . . . . x x . x . . . .
study-builder   . . . . . . . . . . . . .
nx-expert       . . . . . . . . . . . . .
webster         . . . . . . . . . . . . .
post-processor  . . . . . . . . . . . . .
reporter        . . . . . . . . . . . . .
developer       . . . . . . . . . . . . .
knowledge-base  . . . . . . . . . . . . .
it              . . . . . . . . . . . . .
"""
ROWS = {line.split()[0]: line.split()[1:] for line in TRUTH.strip().splitlines()}


def test_the_table_is_of_the_thirteen_agents() -> None:
    assert list(ROWS) == NAMES
    assert all(len(row) == len(NAMES) for row in ROWS.values())


@pytest.mark.parametrize("giver", NAMES)
def test_the_shipped_rules_in_full(giver: str) -> None:
    shown = ["x" if SHIPPED.verdict(giver, receiver).allowed else "." for receiver in NAMES]
    assert shown == ROWS[giver]
    assert SHIPPED.reachable(giver, NAMES) == [n for n, mark in zip(NAMES, ROWS[giver], strict=True) if mark == "x"]


@pytest.mark.parametrize("receiver", NAMES)
def test_the_operator_may_always_and_a_viewer_never(receiver: str) -> None:
    assert SHIPPED.verdict(OPERATOR, receiver).allowed
    assert not SHIPPED.verdict(VIEWER, receiver).allowed


def test_somebody_unknown_may_nothing() -> None:
    assert SHIPPED.reachable("mallory", NAMES) == []
    assert SHIPPED.reachable("", NAMES) == []
    assert SHIPPED.reachable("*", NAMES) == []


def test_a_refusal_tells_the_rule_and_whom_to_ask() -> None:
    assert SHIPPED.verdict("optimizer", "webster").rule == (
        "authority of optimizer: study-builder, nx-expert, post-processor; webster is not among them. "
        "Ask the manager or the tech-lead to delegate"
    )
    assert "`!manager` forbids manager" in SHIPPED.verdict("tech-lead", "manager").rule
    assert SHIPPED.verdict("webster", "manager").rule.startswith("authority of webster: nobody")


entries = st.lists(st.sampled_from(["*", *NAMES, *(f"!{name}" for name in NAMES)]), max_size=6)


@given(st.dictionaries(st.sampled_from(NAMES), entries, max_size=5), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_exceptions_win_and_nobody_reaches_itself(rules: dict[str, list[str]], giver: str, receiver: str) -> None:
    allowed = Authority(rules, NAMES).verdict(giver, receiver).allowed
    rule = rules.get(giver, [])
    assert allowed == (giver != receiver and f"!{receiver}" not in rule and ("*" in rule or receiver in rule))


@pytest.mark.parametrize(
    "rules",
    [{"manager": ["webstr"]}, {"mangaer": ["*"]}, {"manager": ["!nobody"]}, {"manager": ["!*"]}, {"*": ["webster"]}],
)
def test_a_rule_that_names_nobody_is_refused(rules: dict[str, list[str]]) -> None:
    with pytest.raises(AuthorityError, match="no agent of this cluster"):
        Authority(rules, NAMES)
