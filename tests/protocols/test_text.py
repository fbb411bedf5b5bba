"""Text that would steer a terminal is shown instead of obeyed."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.text import printable, printable_json, printable_row

HOSTILE = "\x1b]0;PWNED\x07 \x1b[2J\x9b31m\x7f\u202egpj.exe\u2066\u200f\x00\x08\x85"
TEXTS = st.text(
    st.sampled_from(
        'ab\\"/ußé🚀\n\t\r\x00\x07\x08\x0c\x1b\x7f\x80\x85\x9b\x9f\u061c\u200e\u2028\u202e\u2066\u2069'
        "\xad\u115f\u1160\u180e\u200b\u200d\u2060\u206f\u3164\ufe0f\ufeff\uffa0\ufff9\ufffb\ufffd"
        "\U0001d172\U0001d173\U0001d17a\U000e0001\U000e007f\U000e0100"
    ),
    max_size=30,
)


def steers(text: str, kept: str = "\n\t") -> list[str]:
    """The characters of `text` that a terminal would obey."""
    return [c for c in text if (unicodedata.category(c) == "Cc" and c not in kept) or c in "\u202e\u2066\u200f\u2028"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;PWNED\x07", "␛]0;PWNED␇"),
        ("\x9b31m\x7f", "<U+009B>31m␡"),
        ("a\u202eb", "a<U+202E>b"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("over\rwritten", "over␍written"),
        ("Grüße 🚀 ├─ µm", "Grüße 🚀 ├─ µm"),
        ("notes\u200b.md \U000e0041", "notes<U+200B>.md <U+E0041>"),
        ("👩\u200d🔧 ❤\ufe0f", "👩\u200d🔧 ❤\ufe0f"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_row_has_no_lines() -> None:
    assert printable_row("a\nb\tc\r\nd\x1b") == "a␊b c␊d␛"


@given(TEXTS)
def test_nothing_is_left_that_steers(text: str) -> None:
    assert not steers(printable(text))
    assert not steers(printable_row(text), kept="")


@given(st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3), max_size=3), st.booleans(), st.booleans())
def test_a_document_is_made_safe_without_being_read(document: dict[str, list[str]], escaped: bool, ours: bool) -> None:
    raw = msgspec.json.encode(document) if ours else json.dumps(document, ensure_ascii=escaped).encode()
    made: Any = json.loads(printable_json(raw))
    assert made == {printable(key): [printable(text) for text in texts] for key, texts in document.items()}


def test_bytes_that_are_no_json_are_made_safe_as_well() -> None:
    assert printable_json(b"<h1>\x1b[31mno</h1>\r\n") == "<h1>␛[31mno</h1>\r\n".encode()
