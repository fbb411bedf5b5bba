"""A long answer in parts: within the limit, nothing lost, no fence left open, and steady while it grows."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.measure import units
from gateway.channels.splitting import split
from tests.properties import use_small_examples

use_small_examples()

FENCE_LINE = re.compile(r"[ \t]*(`{3,}|~{3,})([^\n]*)")
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAGS = "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7"


def open_fence(part: str, longest: int) -> str | None:
    """The marks of the fence that is open at the part's end; a checker of its own, after CommonMark 4.5."""
    marks, depth = None, 0
    for line in part.split("\n"):
        found = FENCE_LINE.fullmatch(line)
        if found is None or len(line) > longest:
            continue
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        if marks is None:
            if not (found[1][0] == "`" and "`" in found[2]):
                marks, depth = found[1], indent
        elif found[1].startswith(marks) and not found[2].strip() and indent <= depth + 3:
            marks = None
    return marks


def said(text: str, longest: int) -> str:
    """All but white space and lines that look like fences."""
    lines = [line for line in text.split("\n") if len(line) > longest or not FENCE_LINE.fullmatch(line)]
    return "".join("".join(lines).split())


WORDS = st.sampled_from(
    [
        *("a the beam deflects by 3.5 mm. e.g. Ok! (see below) - # > 1. ``` ~~~ ` ** __ [ ]( <".split()),
        *(FAMILY, FLAGS, "e\u0301\u0302", "\u6f22\u5b57\u3002\u5f88\u597d", "x" * 70, "\u6f22" * 150),
        *("**bold words here**", "`code with spaces`", "[a link](https://a.example/b)", "<@123456>", "\\`"),
        "https://example.org/" + "y" * 60,
    ]
)
PROSE = st.lists(WORDS, min_size=1, max_size=25).map(" ".join)
LINES = st.lists(st.one_of(PROSE, st.sampled_from(["", "    ", "- item", "# Head", "> quote", "\t"])), max_size=12)
CODE = st.lists(
    st.sampled_from(["x = 1", "", "    return y", "z" * 90, "def f(): " + "pass; " * 20, "``` not", "   ```py", "~~~"]),
    max_size=15,
)


@st.composite
def fenced(draw: st.DrawFn) -> str:
    marks = draw(st.sampled_from(["```", "````", "~~~", "`````"]))
    indent = draw(st.sampled_from(["", "  ", "   ", "      "]))
    language = draw(st.sampled_from(["", "python", " c++ title=x", "text"]))
    closing = draw(st.sampled_from([f"\n{indent}{marks}", f"\n{marks}  ", f"\n{marks}{marks[0]}", ""]))
    return f"{indent}{marks}{language}\n" + "\n".join(draw(CODE)) + closing


NOISE = st.text(alphabet="`~ \n\tab*[](<.!-#\u0301\U0001f468\u200d", max_size=400)
TEXTS = st.lists(st.one_of(LINES.map("\n".join), fenced(), NOISE), min_size=1, max_size=8).flatmap(
    lambda blocks: st.sampled_from(["\n\n", "\n"]).map(lambda gap: gap.join(blocks))
)
LIMITS = st.sampled_from([64, 100, 200, 500, 2000])
SOFT = st.sampled_from([None, 1, 3, 10, 40])


class TestAnyText:
    @given(TEXTS, LIMITS, SOFT)
    def test_no_part_is_too_long_or_blank(self, text: str, limit: int, soft: int | None) -> None:
        for part in split(text, limit, soft):
            assert units(part) <= limit
            assert part.strip()

    @given(TEXTS, LIMITS, SOFT)
    def test_nothing_is_lost_and_nothing_said_twice(self, text: str, limit: int, soft: int | None) -> None:
        assert said("\n".join(split(text, limit, soft)), limit // 4) == said(text, limit // 4)

    @given(TEXTS, LIMITS, SOFT)
    def test_no_part_leaves_a_fence_open(self, text: str, limit: int, soft: int | None) -> None:
        for part in split(text, limit, soft):
            assert open_fence(part, limit // 4) is None, part

    @given(TEXTS, LIMITS, SOFT)
    def test_a_part_is_its_own_only_part(self, text: str, limit: int, soft: int | None) -> None:
        for part in split(text, limit, soft):
            assert split(part, limit, soft) == [part]

    @given(TEXTS, LIMITS, SOFT, st.floats(0, 1))
    def test_the_parts_of_a_growing_text_stay_but_the_last_two(
        self, text: str, limit: int, soft: int | None, share: float
    ) -> None:
        early = split(text[: int(len(text) * share)], limit, soft)
        settled = max(0, len(early) - 2)
        assert split(text, limit, soft)[:settled] == early[:settled]


class TestWhereItIsCut:
    def test_a_blank_text_has_no_parts(self) -> None:
        assert split(" \n\n\t") == []

    def test_a_text_that_fits_comes_back_as_it_is(self) -> None:
        assert split("  a\n\n```py\nx\n```\n") == ["  a\n\n```py\nx\n```\n"]

    def test_a_last_newline_beyond_the_limit_is_dropped(self) -> None:
        assert split("a" * 64 + "\n", 64) == ["a" * 64]
        assert split("\n\n" + "a b " * 15 + "c\n\n", 64) == ["a b " * 15 + "c"]

    def test_at_a_paragraph_rather_than_a_line(self) -> None:
        text = "a " * 30 + "\n\n" + "b " * 10 + "\n" + "c " * 20
        assert split(text, 100) == [("a " * 30).strip(), "b " * 10 + "\n" + ("c " * 20).strip()]

    def test_at_a_line_then_a_sentence_then_a_space(self) -> None:
        assert split("a " * 20 + "\n" + "b " * 30, 64) == [("a " * 20).strip(), ("b " * 30).strip()]
        assert split("a " * 19 + "end. " + "b " * 30, 64) == ["a " * 19 + "end.", ("b " * 30).strip()]
        assert split("ab " * 40, 64) == [("ab " * 21).strip(), ("ab " * 19).strip()]

    def test_not_between_a_heading_and_what_it_heads(self) -> None:
        text = "a " * 25 + "\n\n# Results\n\n" + "b " * 30
        assert split(text, 80) == [("a " * 25).strip(), "# Results\n\n" + ("b " * 30).strip()]

    @pytest.mark.parametrize(
        "link",
        [
            "https://example.org/" + "y" * 90,
            "<https://example.org/" + "y" * 80 + ">",
            "[" + "te xt " * 12 + "](https://a.b)",
        ],
    )
    @pytest.mark.parametrize("before", [1, 30, 90])
    def test_never_inside_a_link_that_fits(self, link: str, before: int) -> None:
        for text in ("w " * before + link + " end" * 30, "\u6f22" * before + link + " end" * 30):
            assert sum(link in part for part in split(text, 120)) == 1

    @pytest.mark.parametrize("marks", ["`", "``", "**", "__", "~~"])
    def test_not_inside_inline_code_or_bold(self, marks: str) -> None:
        inline = marks + "some words " * 6 + "end" + marks
        for before in range(1, 60):
            assert sum(inline in part for part in split("w " * before + inline + " and on" * 30, 120)) == 1

    @pytest.mark.parametrize("cluster", [FAMILY, FLAGS[:2], "e\u0301\u0302", "\U0001f44d\U0001f3fd", "\ud83d\ude00"])
    def test_never_inside_a_character(self, cluster: str) -> None:
        parts = split(cluster * 200, 101)
        assert "".join(parts) == cluster * 200
        assert all(part.replace(cluster, "") == "" for part in parts)

    def test_length_is_counted_in_utf_16(self) -> None:
        assert [units(part) for part in split("\U0001f600" * 1500, 2000)] == [2000, 1000]

    def test_a_fence_is_closed_and_reopened_with_its_language(self) -> None:
        code = "\n".join(f"x{n} = {n}" for n in range(30))
        first, *_, last = split(f"Look:\n```python title=a\n{code}\n```\nThat was it.", 120)
        assert first.startswith("Look:\n```python title=a\nx0 = 0\n")
        assert first.endswith("\n```")
        assert last.startswith("```python\n")
        assert last.endswith("x29 = 29\n```\nThat was it.")

    def test_a_shorter_fence_inside_a_longer_one_is_content(self) -> None:
        parts = split("````md\n" + "```py\nx\n```\n" * 20 + "````", 100)
        assert all(part.startswith("````md\n") and part.endswith("\n````") for part in parts)

    def test_a_closing_line_that_does_not_fit_makes_no_empty_part(self) -> None:
        for size in range(70, 130):
            parts = split("```\n" + "x" * size + "\n```" + " " * 40 + "\nend", 100)
            assert not any(re.fullmatch(r"```\n*```", part) for part in parts)

    def test_the_indentation_of_code_is_kept(self) -> None:
        parts = split("```py\ndef f():\n" + "    y = 1\n" * 30 + "```", 100)
        assert all(line == "    y = 1" for part in parts[1:] for line in part.split("\n")[1:-1])

    def test_a_streamed_fence_is_closed_and_one_that_only_begins_is_not_shown(self) -> None:
        assert split("Look:\n```py\nx = 1") == ["Look:\n```py\nx = 1\n```"]
        assert split("Look:\n```py") == ["Look:"]

    def test_a_part_has_so_many_lines_or_a_little_more_where_a_paragraph_ends(self) -> None:
        assert [part.count("\n") + 1 for part in split("line\n" * 100, soft_lines=20)] == [20] * 5
        assert [part.count("\n") + 1 for part in split("line\n" * 23 + "line", soft_lines=20)] == [24]
        text = "line\n" * 22 + "\n" + "line\n" * 50
        assert split(text, soft_lines=20)[0].count("\n") + 1 == 22

    def test_a_limit_without_room_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 64 characters"):
            split("a", 10)

    @pytest.mark.parametrize("unit", ["word. ", "\u6f22", "[a](", "`", "**a ", "```\nx\n", "https://a"])
    def test_time_grows_no_faster_than_the_text(self, unit: str) -> None:
        def seconds(size: int) -> float:
            """The least of three: a collection of everybody's garbage may fall into one of them."""
            text = (unit * size)[:size]
            taken = []
            for _ in range(3):
                started = time.process_time()
                split(text)
                taken.append(time.process_time() - started)
            return min(taken)

        seconds(2_000)
        assert seconds(64_000) < 0.05 + 16 * seconds(8_000)
