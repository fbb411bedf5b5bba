"""Run ids and the one-line forms of texts."""

from __future__ import annotations

import re
import time

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from protocols.hooks import RunId
from protocols.runs import RunState, Usage, new_run_id, one_line


def test_ids_are_well_formed_and_unlike() -> None:
    ids = [new_run_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    for run_id in ids:
        assert re.fullmatch(r"run-[0-9a-f]{21}", run_id)
        assert msgspec.convert(run_id, RunId) == run_id


def test_ids_of_later_milliseconds_sort_later() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_run_id())
        now = int(time.time() * 1000)
        while int(time.time() * 1000) == now:
            pass
    assert ids == sorted(ids)


@given(st.text(), st.integers(1, 300))
def test_one_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line == " ".join(line.split())
    whole = " ".join(text.split())
    assert line == whole or (line.endswith("…") and whole.startswith(line[:-1]))


def test_four_states_are_ends() -> None:
    assert {state.value for state in RunState if state.ended} == {"succeeded", "failed", "cancelled", "lost"}


@given(*[st.builds(Usage, *(), **{f: st.integers(0, 10**9) for f in Usage.__struct_fields__})] * 2)
def test_usage_adds_up_field_by_field(one: Usage, other: Usage) -> None:
    both = one.plus(other)
    for field in Usage.__struct_fields__:
        assert getattr(both, field) == getattr(one, field) + getattr(other, field)
