"""What is kept of a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.tools.commands import Output
from tests.properties import use_small_examples

use_small_examples()

CHUNKS = st.lists(st.text("abcdefghij", max_size=40), max_size=30)


@given(CHUNKS, st.integers(min_value=2, max_value=100), st.integers(min_value=0, max_value=400))
def test_the_beginning_and_the_end_are_kept_and_the_gap_is_counted(chunks: list[str], limit: int, since: int) -> None:
    output = Output(limit)
    for chunk in chunks:
        output.add(chunk.encode())
    whole, half = "".join(chunks), limit // 2
    assert output.total == len(whole)
    head, mark, tail = output.text().partition("\n[")
    if len(whole) <= 2 * half:
        assert output.text() == whole
    else:
        count, _, end = tail.partition(" bytes in between were not kept]\n")
        assert mark
        assert (head, end) == (whole[:half], whole[-half:])
        assert int(count) == len(whole) - 2 * half
    since = min(since, len(whole))
    assert output.text(since).endswith(whole[max(since, len(whole) - half) :])
    if len(whole) - since <= half:
        assert output.text(since) == whole[since:]
