"""Curves in figures."""

from pathlib import Path
from typing import Any

import pytest

from uets_jax.report import values
from uets_jax.report.blocks import DASH
from uets_jax.report.run import Run

figures: Any = values.values


def run(records, name="a") -> Run:
    return Run(name, Path(name), {}, {}, list(records), [])


def line(count, slope=-0.01, cost=1):
    """A loss that falls in a straight line, as its running mean does."""
    return [
        {"step": n, "loss": 5 + slope * n, "tokens": 100 * cost * n}
        for n in range(1, count + 1)
    ]


def test_one_run_has_ten_rows_up_to_its_last_step():
    records = line(40)
    records.append({"step": 20, "valid_loss": 4.75, "bits_per_byte": 1.5})
    [table] = figures([run(records)])
    assert [row[0].text for row in table.rows] == [str(4 * n) for n in range(1, 11)]
    head = ["step", "training loss", "tokens", "validation loss", "bits per byte"]
    assert list(table.head) == head
    assert [cell.text for cell in table.rows[3]] == ["16", "4.840", "1.6k", DASH, DASH]
    assert table.rows[4][3].text == table.rows[9][3].text == "4.750"


def test_several_runs_stand_at_equal_cost_and_end_where_they_end():
    runs = [run(line(40)), run(line(20, slope=-0.02), "b")]
    _, table = figures(runs)
    assert table.name == "loss at equal tokens"
    assert [row[0].text for row in table.rows][:2] == ["400", "800"]
    shown = [[cell.text for cell in row[1:]] for row in table.rows]
    assert shown[0] == ["4.960", "4.920"]
    assert shown[5] == ["4.760", DASH]


def test_values_between_two_points_are_interpolated():
    runs = [run(line(40)), run(line(13, cost=4), "b")]
    _, table = figures(runs)
    top = 5200
    for i, row in enumerate(table.rows[:6]):
        tokens = top * (i + 1) / 10
        assert float(row[2].text) == pytest.approx(5 - tokens / 40_000, abs=6e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_loss_is_no_table(count):
    empty = [run([{"step": 1}, {"event": "x"}], str(n)) for n in range(count)]
    assert figures(empty) == []
    assert values.sparklines(empty) == ""


def test_a_run_with_validations_only_has_their_curve():
    [table] = figures([run([{"step": 5, "valid_loss": 3.0}])])
    assert table.rows[0][1].text == "3.000"


def test_a_sparkline_spans_all_levels_and_is_short():
    falling = values.sparkline([100.0 - n for n in range(1000)])
    assert len(falling) == values.BARS
    assert falling[0] == "█"
    assert falling[-1] == "▁"
    assert sorted(falling, reverse=True) == list(falling)
    assert values.sparkline([2.0, 2.0]) == "▁▁"
    assert values.sparkline([]) == ""


def test_sparklines_name_their_runs_and_ends():
    shown = values.sparklines([run(line(30)), run([], "b"), run(line(30), "c")])
    first, second = shown.splitlines()
    assert first.endswith("  a")
    assert "4.990 to" in first
    assert second.endswith("  c")
