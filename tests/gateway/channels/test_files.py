"""Long answers as files, and names of files that can do no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.files import ANSWER_FILE, LEAD_UNITS, NAME_BYTES, as_file, lead_of, safe_name, safe_names
from gateway.channels.measure import units
from gateway.channels.splitting import split
from tests.properties import use_small_examples

use_small_examples()


class TestLongAnswers:
    def test_an_answer_of_few_parts_stays_one_of_messages(self) -> None:
        assert as_file("word " * 300, split("word " * 300)) is None

    def test_one_of_many_is_its_beginning_and_the_whole_as_a_file(self) -> None:
        text = "# Loads\n\nThe spar holds.\n\n" + "word " * 3000
        answer = as_file(text, split(text))
        assert answer is not None
        assert answer.lead == "# Loads\nThe spar holds.\n\n(The whole answer, 15.0 kB, is in answer.md.)"
        assert (answer.file.name, answer.file.data) == (ANSWER_FILE, text.encode())

    def test_a_lone_surrogate_does_not_stop_it(self) -> None:
        answer = as_file("\ud800 and so on", ["part"] * 6)
        assert answer is not None
        assert answer.file.data == b"? and so on"

    @given(st.text(alphabet="ab `~\n#.*\U0001f600", max_size=2000))
    def test_the_lead_is_short_and_leaves_no_fence_open(self, text: str) -> None:
        lead = lead_of(text)
        assert units(lead) <= LEAD_UNITS
        assert split(lead) == ([lead] if lead.strip() else [])

    def test_a_long_paragraph_is_cut_at_a_word(self) -> None:
        lead = lead_of("word " * 500)
        assert lead.endswith("word \u2026")
        assert units(lead) > LEAD_UNITS // 2


class TestNames:
    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("report.pdf", "report.pdf"),
            ("Pr\u00fcfbericht 3.pdf", "Pr\u00fcfbericht 3.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\me\\plan.txt", "plan.txt"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("a\x00b\nc.txt", "abc.txt"),
            ('a<b>:"|?*.txt', "a_b_.txt"),
            ("photo\u202egpj.exe", "photogpj.exe"),
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("console.txt", "console.txt"),
            ("name. . ", "name"),
            ("SPOILER_a.png", "SPOILER_a.png"),
            ("", "file"),
            ("..", "file"),
            ("???", "file"),
            ("/", "file"),
            ("a\u00a0b\ud800.txt", "a b.txt"),
        ],
    )
    def test_example(self, name: str, safe: str) -> None:
        assert safe_name(name) == safe

    def test_a_long_name_keeps_its_ending(self) -> None:
        name = safe_name("\u6f22" * 200 + ".tar.gz")
        assert name.endswith("\u6f22.gz")
        assert len(name.encode()) <= NAME_BYTES

    @given(st.text(max_size=300))
    def test_any_name_is_short_plain_and_safe_already_the_second_time(self, name: str) -> None:
        safe = safe_name(name)
        assert 0 < len(safe.encode()) <= NAME_BYTES
        assert "/" not in safe
        assert "\\" not in safe
        assert safe not in (".", "..")
        assert safe_name(safe) == safe

    @given(st.lists(st.sampled_from(["a.txt", "A.txt", "a-2.txt", "", "b", "x" * 300 + ".md"]), max_size=10))
    def test_no_two_names_are_alike(self, names: list[str]) -> None:
        safe = safe_names(names)
        assert len({name.casefold() for name in safe}) == len(names)
        assert all(len(name.encode()) <= NAME_BYTES for name in safe)
