"""Speed and roofline of each phase."""

from pathlib import Path
from typing import Any

import pytest

from uets_jax.report.blocks import Cell, Note
from uets_jax.report.phases import phases as listed_phases
from uets_jax.report.run import Run

phases: Any = listed_phases
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


def test_each_phase_has_its_speed_and_its_line():
    [table, line] = phases([run(phases=[PHASE])])
    assert "run" not in table.head
    by_name = dict(zip(table.head, table.rows[0], strict=True))
    assert by_name["MFU"] == Cell("3.12%")
    assert by_name["FLOP/s"] == Cell("2G", "peak 64G")
    assert by_name["FLOPs per byte"] == Cell("12", "ridge 8")
    assert line == Note("Bound by compute. Peak: measured.")


def test_phases_of_several_runs_name_their_run():
    [table, *lines] = phases([run(), run("b", phases=[PHASE, {"phase": 1}])])
    assert [row[0].text for row in table.rows] == ["b", "b"]
    assert lines == [Note("b, phase 0: Bound by compute. Peak: measured.")]


@pytest.mark.parametrize("listed", [None, "x", [None, 3], {}, []])
def test_nonsense_is_no_phase(listed):
    assert phases([run(phases=listed)]) == []
