"""The ledger's tables: shares, totals, and what old or empty summaries give."""

from pathlib import Path
from typing import Any

import pytest

from uets_jax.report import ledger, units
from uets_jax.report.blocks import DASH, TIMES, Note, Pair, Table
from uets_jax.report.run import Run

breakdown: Any = ledger.breakdown
costs: Any = ledger.costs
memory: Any = ledger.memory
energy: Any = ledger.energy
resources: Any = ledger.resources


def run(name="a", **summary) -> Run:
    return Run(name, Path(name), {}, summary, [], [])


def rows(block):
    assert isinstance(block, Table)
    return {row[0].text: [cell.text for cell in row[1:]] for row in block.rows}


def test_a_run_alone_has_its_shares_in_columns():
    spent = {"optimizer": 1e9, "forward_backward": 9e9, "probe": 0}
    one = run(flops=spent, matmul_flops={"forward_backward": 9e9, "optimizer": 0})
    table = breakdown([one], 0, "flops", "FLOPs", units.si)
    assert rows(table) == {
        "forward backward": ["9G", "90.0%", "100.0%"],
        "optimizer": ["1G", "10.0%", "0.0%"],
        "total": ["10G", "100.0%", "90.0%"],
    }
    assert list(rows(table)) == ["forward backward", "optimizer", "total"]
    assert [row[2].share for row in table.rows] == [0.9, 0.1, None]


def test_the_first_category_of_an_old_run_stands_beside_todays():
    old = run(flops={"train": 4e9, "evaluation": 1e9})
    new = run("b", flops={"forward_backward": 2e9, "optimizer": 0.5e9})
    table = breakdown([old, new], 0, "flops", "FLOPs", units.si)
    assert rows(table) == {
        "forward backward": ["4G", "2G"],
        "evaluation": ["1G", DASH],
        "optimizer": [DASH, "500M"],
        "total": ["5G", "2.5G"],
    }
    assert [cell.small for cell in table.rows[0]] == ["", "80.0%", "80.0%"]
    assert [cell.small for cell in table.rows[-1]] == ["", "", f"2{TIMES}"]


def test_matmul_shares_stand_beside_several_runs():
    one = run(flops={"probe": 4.0}, matmul_flops={"probe": 1.0})
    table = breakdown([one, one], 0, "flops", "FLOPs", units.si)
    assert table.rows[0][1].small == "100.0%, 25% matmul"


@pytest.mark.parametrize("spent", [None, {}, "x", {"a": 0}, {"a": None}])
def test_nothing_by_category_is_a_sentence(spent):
    for count in (1, 2):
        runs = [run(flops=spent)] * count
        told = breakdown(runs, 0, "flops", "FLOPs", units.si)
        assert isinstance(told, Note)


def test_how_flops_are_counted_is_said_once():
    [*_, told, _] = costs([run(flops_source="walk"), run(flops_source="walk")], 0)
    assert told == Note("How FLOPs are counted: walk.")


def test_bytes_have_names_and_an_old_peak_its_row():
    sizes = {"step_peak": 2**20, "live_arrays": None, "new_thing": 2**10}
    table = memory([run(bytes=sizes), run(peak_memory_bytes=2**21)])
    assert rows(table) == {
        "peak of the step, as compiled": ["1 MiB", DASH],
        "peak of the process (RSS)": [DASH, "2 MiB"],
        "new thing": ["1 KiB", DASH],
    }
    assert isinstance(memory([run()]), Note)


def test_an_estimate_is_never_mixed_with_measured_energy():
    one = run(joules=None, energy_source="none", joules_estimate=900.0)
    two = run("b", joules=3000.0, energy_source="nvml", joules_estimate_method="TDP")
    [table, told] = energy([one, two], 0)
    assert rows(table) == {
        "measured": ["not measured", "3 kJ (nvml)"],
        "estimate, not measured": ["900 J", DASH],
    }
    assert "TDP" in told.text
    assert table.rows[0][2].small == ""
    [table, *_] = energy([run(joules=9e3), two], 1)
    assert table.rows[0][1].small == f"0.333{TIMES}"
    assert energy([run()], 0) == []


def test_a_run_alone_has_memory_beside_energy():
    [pair] = resources([run(bytes={"rss_peak": 1}, joules=1.0)], 0)
    assert isinstance(pair, Pair)
    two = resources([run(bytes={"rss_peak": 1}), run(joules=1.0)], 0)
    assert [block.name for block in two] == ["memory", "energy"]
