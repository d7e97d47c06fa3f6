"""The vocabulary of a report."""

import pytest

from uets_jax.report import blocks
from uets_jax.report.blocks import DASH, TIMES, Cell, Table


@pytest.mark.parametrize("char", ["\0", "\x1b", "\x7f", "\x9f", "\ud800"])
def test_what_cannot_be_written_is_replaced(char):
    assert blocks.clean(f"a{char}b") == "a\ufffdb"
    assert blocks.clean("a\r\nb\rc\td") == "a\nb\nc\td"


@pytest.mark.parametrize(
    ("value", "base", "shown"),
    [(2.0, 5.0, "2.5"), (3.0, 1.0, "0.333"), (None, 1.0, ""), (1.0, None, "")],
)
def test_a_ratio_is_base_over_value(value, base, shown):
    assert blocks.ratio(value, base) == (shown and shown + TIMES)
    assert blocks.ratio(0.0, base) == ""


def test_a_cell_without_a_value_is_a_dash():
    assert blocks.cell(None, str, "small") == Cell(DASH)
    assert blocks.cell(2.0, str, "small") == Cell("2.0", "small")


def test_columns_of_dashes_are_dropped_but_the_first_stays():
    rows = [[Cell(""), Cell(DASH), Cell("1")], [Cell(""), Cell(""), Cell(DASH)]]
    kept = blocks.filled(Table("t", ["a", "b", "c"], rows))
    assert kept.head == ["a", "c"]
    assert [[cell.text for cell in row] for row in kept.rows] == [["", "1"], ["", DASH]]
