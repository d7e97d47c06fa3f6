"""A map for each kind of reading, and the last values as tables."""

import re
from pathlib import Path
from xml.etree import ElementTree

from uets_jax.report import looks, maps
from uets_jax.report.blocks import Note, Picture, Table
from uets_jax.report.run import Run

NS = "{http://www.w3.org/2000/svg}"


def look(step, depth=2, many=2, **more):
    values = [0.5 / (i + 1) for i in range(depth)]
    names = ("influence", "removal", "rank", "similarity", "gradient", "saturation")
    signals = dict.fromkeys(names, values)
    signals["heads"] = [[v] * many for v in values]
    return {"step": step, "signals": {**signals, "noise_scale": 8.0 * step, **more}}


def run(*records, name="a") -> Run:
    return Run(name, Path(name), {}, {}, list(records), [])


def table(blocks, name):
    [found] = [b for b in blocks if isinstance(b, Table) and b.name == name]
    return [dict(zip(found.head, row, strict=True)) for row in found.rows]


def pictures(blocks):
    """The SVG elements in the drawn pictures, by their names."""
    drawn = "".join(b.draw() for b in blocks if isinstance(b, Picture))
    trees = map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", drawn, re.DOTALL))
    return {tree.get("aria-label"): tree for tree in trees}


def cells(svg):
    groups = [g for g in svg.iter(f"{NS}g") if g.get("class") == "heat"]
    return [[cell.findtext(f"{NS}title") for cell in group] for group in groups]


def test_the_last_values_are_tables():
    blocks = maps.maps(looks.looks(run(look(2), look(4, depth=3))), [])
    [picture] = [b for b in blocks if isinstance(b, Picture)]
    last = table(picture.figures, "last look")
    assert [row["layer"].text for row in last] == ["0", "1", "2"]
    assert [row["influence"].text for row in last] == ["0.5", "0.25", "0.167"]
    assert "gradient" not in last[0]
    heads = table(picture.figures, "heads")
    assert [row["head 1"].text for row in heads] == ["0.5", "0.25", "0.167"]
    assert Note("The look at step 4:") in picture.figures


def test_columns_and_rows_are_limited():
    found = looks.looks(run(*(look(n, 1, 1) for n in range(1000))))
    shown = pictures(maps.maps(found, []))
    for svg in shown.values():
        [row] = cells(svg)
        assert len(row) == maps.MOST_COLUMNS
        assert ", step 0:" in row[0]
        assert ", step 999:" in row[-1]
    *_, told = blocks = maps.maps(looks.looks(run(look(1, 12, 12))), [])
    assert told == Note("Not shown: 48 rows of head importance.")
    heads = pictures(blocks)["Head importance of each layer.head against steps"]
    assert len(cells(heads)) == maps.MOST_ROWS


def test_indices_are_spread_evenly():
    assert maps.spread(3, 200) == [0, 1, 2]
    assert maps.spread(101, 5) == [0, 25, 50, 75, 100]
    assert maps.spread(1, 5) == [0]


def test_only_the_first_run_explains_its_maps():
    found = looks.looks(run(look(1)))
    for explained in (True, False):
        [picture] = maps.maps(found, [], explained=explained)
        assert ('class="note"' in picture.draw()) == explained
        names = {b.name for b in picture.figures if isinstance(b, Table)}
        assert ("readings" in names) == explained


def test_nothing_finite_is_no_map():
    lines = [{"step": 1, "signals": {"rank": [None], "heads": [[]]}}]
    assert maps.maps(looks.looks(run(*lines)), []) == []
