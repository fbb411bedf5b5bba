"""Classification is total, and what providers say about waiting is read."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models.failures import of_anthropic, of_google, retry_after
from gateway.models.provider import ErrorKind

WORDS = st.none() | st.text(max_size=30) | st.sampled_from(["overloaded_error", "RESOURCE_EXHAUSTED", "api_error"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(status=st.integers(100, 599), type=WORDS, code=WORDS, message=st.text())
def test_every_anthropic_failure_has_a_kind(status: int, type: str | None, code: str | None, message: str) -> None:
    assert isinstance(of_anthropic(status, type, code, message), ErrorKind)


@given(status=st.integers(100, 599), name=WORDS, message=st.text(), details=st.lists(JSON, max_size=4))
def test_every_google_failure_has_a_kind(status: int, name: str | None, message: str, details: list[object]) -> None:
    assert isinstance(of_google(status, name, message, details), ErrorKind)


@given(status=st.integers(500, 599))
def test_what_breaks_on_their_side_is_worth_another_try(status: int) -> None:
    if status != 501:
        assert of_anthropic(status, None, None, "").transient
        assert of_google(status, None, "").transient


@given(status=st.integers(400, 499))
def test_what_is_wrong_on_our_side_is_not(status: int) -> None:
    if status not in (408, 409, 429, 499):
        assert not of_anthropic(status, None, None, "").transient
        assert not of_google(status, None, "").transient


@given(text=st.text(), millis=st.text(), details=st.lists(JSON, max_size=3))
def test_nonsense_about_waiting_is_no_wait_and_no_error(text: str, millis: str, details: list[object]) -> None:
    wait = retry_after({"retry-after": text, "retry-after-ms": millis}, 1e9, details)
    assert wait is None or wait >= 0


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"retry-after": "12"}, [], 12),
        ({"retry-after": "1.5"}, [], 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, [], 1.5),
        ({"retry-after": email.utils.formatdate(1_000_030, usegmt=True)}, [], 30),
        ({"retry-after": email.utils.formatdate(999_000, usegmt=True)}, [], 0),
        ({"retry-after": "soon"}, [{"retryDelay": "7s"}], 7),
        ({"retry-after": "-3"}, [], None),
        ({"retry-after": "nan"}, [], None),
        ({}, [], None),
    ],
)
def test_seconds_dates_and_details(headers: dict[str, str], details: list[object], seconds: float | None) -> None:
    assert retry_after(headers, 1_000_000, details) == seconds
