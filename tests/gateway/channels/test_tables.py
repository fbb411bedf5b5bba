"""Markdown tables made readable: aligned where they fit, records where not, and nothing else touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.measure import cells
from gateway.channels.tables import readable
from tests.properties import use_small_examples

use_small_examples()

CELL = st.text(alphabet="ab 1.|`*\\-:\u6f22\u2713\U0001f600\u0301<>br/", max_size=12).map(str.strip)
SAFE = st.text(alphabet="abc 123.*`\u6f22", max_size=40).map(lambda text: text.replace("`", "").strip())


def row(cells_of_row: list[str]) -> str:
    return "| " + " | ".join(cells_of_row) + " |"


@st.composite
def tables(draw: st.DrawFn, cell: st.SearchStrategy[str] = SAFE) -> tuple[list[list[str]], str]:
    """(the cells, the Markdown); ragged, the header never wholly blank."""
    columns = draw(st.integers(1, 5))
    header = draw(st.lists(cell, min_size=columns, max_size=columns).filter(any))
    rows = draw(st.lists(st.lists(cell, min_size=1, max_size=columns + 1), max_size=6))
    delimiter = draw(st.sampled_from(["---", ":-:", "--:", "-", ":---"]))
    lines = [row(header), row([delimiter] * columns), *(row(each) for each in rows)]
    return [header, *rows], "\n".join(lines)


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


class TestAnyTable:
    @given(tables(), st.sampled_from([10, 40, 80]))
    def test_the_text_of_no_cell_is_lost(self, table: tuple[list[list[str]], str], width: int) -> None:
        wanted, text = table
        shown = readable(text, width)
        for cell in (cell for line in wanted for cell in line):
            assert letters(cell) in letters(shown)
        if shown.startswith("```"):
            assert letters(shown) == letters("".join(cell for line in wanted for cell in line))

    @given(tables(CELL), st.sampled_from([10, 40, 80]))
    def test_a_block_is_no_wider_than_asked(self, table: tuple[list[list[str]], str], width: int) -> None:
        shown = readable(table[1], width)
        if shown.startswith("```\n"):
            assert all(cells(line) <= width for line in shown.split("\n")[1:-1])

    @given(tables(), st.text(alphabet="ab\n -#>\r\t", max_size=60), st.text(alphabet="ab\n -#>\r\t", max_size=60))
    def test_all_around_it_stays_as_it_is(self, table: tuple[list[list[str]], str], before: str, after: str) -> None:
        text = f"{before}\n\n{table[1]}\n\n{after}"
        assert readable(text) == f"{before}\n\n{readable(table[1])}\n\n{after}"

    @given(st.text(alphabet="ab|\n -:`~\\", max_size=200))
    def test_in_a_fence_nothing_is_touched(self, text: str) -> None:
        fenced = f"`````\n{text.replace('`````', '')}\n`````"
        assert readable(fenced) == fenced

    @given(st.text(alphabet="ab\n -:`~\\", max_size=200))
    def test_without_pipes_nothing_is_touched(self, text: str) -> None:
        assert readable(text) == text


class TestExamples:
    def test_columns_are_aligned_as_the_delimiters_say(self) -> None:
        text = "| Part | Mass | Ok |\n|:-----|-----:|:-:|\n| rib | 12.5 | y |\n| spar cap | 3 | n |"
        assert readable(text) == (
            "```\nPart      Mass  Ok\n--------  ----  --\nrib       12.5  y\nspar cap     3  n\n```"
        )

    def test_wide_characters_take_two_cells(self) -> None:
        assert readable("| a | b |\n|---|---|\n| \u6f22\u5b57 | 1 |\n| x | 2 |") == (
            "```\na     b\n----  -\n\u6f22\u5b57  1\nx     2\n```"
        )

    def test_a_table_that_is_too_wide_becomes_records(self) -> None:
        text = f"| Name | What |\n|---|---|\n| rib | {'long ' * 20}|\n| spar | |"
        assert readable(text) == (f"**Name**: rib\n**What**: {('long ' * 20).strip()}\n\n**Name**: spar\n**What**: -")

    def test_a_table_with_links_becomes_records(self) -> None:
        text = "| Doc |\n|---|\n| [a](https://a.example) |"
        assert readable(text) == "**Doc**: [a](https://a.example)"

    def test_escaped_pipes_and_pipes_in_code_do_not_divide(self) -> None:
        text = "| a | b |\n|---|---|\n| x \\| y | `p|q` |"
        assert readable(text) == "```\na      b\n-----  ---\nx | y  p|q\n```"

    def test_a_lone_backtick_is_text(self) -> None:
        assert "`p  q`" in readable("| a | b |\n|---|---|\n| `p | q` |")

    def test_short_and_long_rows_keep_their_cells(self) -> None:
        assert readable("| a | b |\n|---|---|\n| 1 |\n| 1 | 2 | 3 |") == "```\na  b\n-  -  -\n1\n1  2  3\n```"

    def test_a_line_break_in_a_cell_is_one(self) -> None:
        assert readable("| a | b |\n|---|---|\n| 1<br>2 | x |") == "```\na  b\n-  -\n1  x\n2\n```"

    def test_a_pipe_in_prose_makes_no_table(self) -> None:
        for text in ("a | b\n\n---|---", "a | b\n---", "x || y\nz - 1", "> a | b\n> ---|---"):
            assert readable(text) == text

    def test_prose_right_after_a_table_is_no_row(self) -> None:
        assert readable("a|b\n-|-\n1|2\nAnd so on.").endswith("1  2\n```\nAnd so on.")

    def test_made_readable_twice_is_made_readable_once(self) -> None:
        once = readable("a|b\n-|-\n1|2\n\nc|d\n-|-\nhttps://x.example|2")
        assert readable(once) == once
