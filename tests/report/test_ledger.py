"""The ledger's tables: shares, totals, and what old or empty summaries give."""

from pathlib import Path

import pytest

from uets_jax.report import ledger, units
from uets_jax.report.blocks import DASH, TIMES, Cell, Note, Pair, Table
from uets_jax.report.run import Run

PHASE = {
    "phase": 0,
    "steps": 10,
    "end": 10,
    "seconds_per_step": 0.5,
    "mfu": 0.0312,
    "achieved_flops": 2e9,
    "peak_flops": 64e9,
    "intensity": 12.0,
    "ridge": 8.0,
    "bound": "compute",
    "device": "cpu",
    "peak_source": "measured",
    "line": "Bound by compute.",
}


def run(name="a", **summary) -> Run:
    return Run(name, Path(name), {}, summary, [], [])


def rows(block):
    assert isinstance(block, Table)
    return {row[0].text: [cell.text for cell in row[1:]] for row in block.rows}


def test_a_run_alone_has_its_shares_in_columns():
    spent = {"optimizer": 1e9, "forward_backward": 9e9, "probe": 0}
    one = run(flops=spent, matmul_flops={"forward_backward": 9e9, "optimizer": 0})
    table = ledger.breakdown([one], 0, "flops", "FLOPs", units.si)
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
    table = ledger.breakdown([old, new], 0, "flops", "FLOPs", units.si)
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
    table = ledger.breakdown([one, one], 0, "flops", "FLOPs", units.si)
    assert table.rows[0][1].small == "100.0%, 25% matmul"


@pytest.mark.parametrize("spent", [None, {}, "x", {"a": 0}, {"a": None}])
def test_nothing_by_category_is_a_sentence(spent):
    for count in (1, 2):
        runs = [run(flops=spent)] * count
        told = ledger.breakdown(runs, 0, "flops", "FLOPs", units.si)
        assert isinstance(told, Note)


def test_how_flops_are_counted_is_said_once():
    [*_, told, _] = ledger.costs(
        [run(flops_source="walk"), run(flops_source="walk")], 0
    )
    assert told == Note("How FLOPs are counted: walk.")


def test_bytes_have_names_and_an_old_peak_its_row():
    sizes = {"step_peak": 2**20, "live_arrays": None, "new_thing": 2**10}
    table = ledger.memory([run(bytes=sizes), run(peak_memory_bytes=2**21)])
    assert rows(table) == {
        "peak of the step, as compiled": ["1 MiB", DASH],
        "peak of the process (RSS)": [DASH, "2 MiB"],
        "new thing": ["1 KiB", DASH],
    }
    assert isinstance(ledger.memory([run()]), Note)


def test_an_estimate_is_never_mixed_with_measured_energy():
    one = run(joules=None, energy_source="none", joules_estimate=900.0)
    two = run("b", joules=3000.0, energy_source="nvml", joules_estimate_method="TDP")
    [table, told] = ledger.energy([one, two], 0)
    assert rows(table) == {
        "measured": ["not measured", "3 kJ (nvml)"],
        "estimate, not measured": ["900 J", DASH],
    }
    assert "TDP" in told.text
    assert table.rows[0][2].small == ""
    [table, *_] = ledger.energy([run(joules=9e3), two], 1)
    assert table.rows[0][1].small == f"0.333{TIMES}"
    assert ledger.energy([run()], 0) == []


def test_a_run_alone_has_memory_beside_energy():
    [pair] = ledger.resources([run(bytes={"rss_peak": 1}, joules=1.0)], 0)
    assert isinstance(pair, Pair)
    two = ledger.resources([run(bytes={"rss_peak": 1}), run(joules=1.0)], 0)
    assert [block.name for block in two] == ["memory", "energy"]


def test_each_phase_has_its_speed_and_its_line():
    [table, line] = ledger.phases([run(phases=[PHASE])])
    assert "run" not in table.head
    by_name = dict(zip(table.head, table.rows[0], strict=True))
    assert by_name["MFU"] == Cell("3.12%")
    assert by_name["FLOP/s"] == Cell("2G", "peak 64G")
    assert by_name["FLOPs per byte"] == Cell("12", "ridge 8")
    assert line == Note("Bound by compute. Peak: measured.")


def test_phases_of_several_runs_name_their_run():
    [table, *lines] = ledger.phases([run(), run("b", phases=[PHASE, {"phase": 1}])])
    assert [row[0].text for row in table.rows] == ["b", "b"]
    assert lines == [Note("b, phase 0: Bound by compute. Peak: measured.")]


@pytest.mark.parametrize("phases", [None, "x", [None, 3], {}, []])
def test_nonsense_is_no_phase(phases):
    assert ledger.phases([run(phases=phases)]) == []
