"""Maps of colours have a cell where there is a value, and none where there is not."""

import itertools
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report.heatmap import FAINT, Row, heatmap

NS = "{http://www.w3.org/2000/svg}"
STEPS = [10.0, 20.0, 40.0]
GROWN = [
    Row("0", "layer 0", [1.0, 2.0, 3.0]),
    Row("1", "layer 1", [None, 5.0, math.nan]),
    Row("2", "layer 2", [None, None, math.inf]),
]


def groups(svg, look):
    """The groups of a class, top to bottom as they were written."""
    found = ElementTree.fromstring(svg).iter(f"{NS}g")
    return [group for group in found if group.get("class") == look]


def cells(svg):
    """By row, from the first one: {title: rectangle}."""
    return [
        {cell.findtext(f"{NS}title"): cell for cell in group}
        for group in groups(svg, "heat")
    ]


def texts(svg, look):
    found = ElementTree.fromstring(svg).iter(f"{NS}text")
    return [text.text for text in found if text.get("class") == look]


def test_a_layer_that_is_not_there_yet_is_blank():
    shown = cells(heatmap(GROWN, STEPS, "t"))
    assert [len(row) for row in shown] == [3, 2, 1]
    assert list(shown[1]) == [
        "layer 1, step 20: 5",
        "layer 1, step 40: no finite value",
    ]


def test_what_is_not_finite_is_an_empty_cell():
    shown = cells(heatmap(GROWN, STEPS, "t"))
    void = [t for row in shown for t, cell in row.items() if cell.get("class")]
    assert void == [f"layer {i}, step 40: no finite value" for i in (1, 2)]


def test_the_first_row_lies_at_the_bottom():
    heights = [
        float(group.get("transform", "").split()[1].rstrip(")"))
        for group in groups(heatmap(GROWN, STEPS, "t"), "heat")
    ]
    assert heights == sorted(heights, reverse=True)


def test_columns_reach_to_the_next_look():
    [row] = cells(heatmap(GROWN[:1], STEPS, "t"))
    ends = [
        (float(c.get("x", "nan")), float(c.get("width", "nan"))) for c in row.values()
    ]
    for (left, width), (right, _) in itertools.pairwise(ends):
        assert left + width == pytest.approx(right)
    widths = [width for _, width in ends]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(widths[1], abs=0.2)


@pytest.mark.parametrize(("root", "middle"), [(False, 0.25), (True, 0.5)])
def test_shades_rise_from_the_least_to_the_greatest(root, middle):
    svg = heatmap([Row("0", "a", [0.0, 1.0, 4.0])], STEPS, "t", root=root)
    [row] = cells(svg)
    shades = [float(cell.get("fill-opacity", "nan")) for cell in row.values()]
    wanted = [FAINT, FAINT + (1 - FAINT) * middle, 1.0]
    assert shades == pytest.approx(wanted, abs=0.006)
    assert texts(svg, "tick end least") == ["0"]
    assert texts(svg, "tick end most") == ["4"]


def test_it_is_named_and_described():
    svg = ElementTree.fromstring(heatmap(GROWN, STEPS, "<influence>"))
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "<influence>")
    told = "3 rows, 3 columns; from 1 (layer 0, step 10) to 5 (layer 1, step 20)"
    assert svg.findtext(f"{NS}desc") == told


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        ([], []),
        ([], STEPS),
        ([Row("0", "a", [])], []),
        ([Row("0", "a", [None])], [7.0]),
        ([Row("0", "a", [math.nan, -math.inf, None])], STEPS),
    ],
)
def test_no_value_at_all_says_so(rows, steps):
    assert "no data" in texts(heatmap(rows, steps, "t"), "name end")


def test_one_cell_is_drawn_at_its_step():
    svg = heatmap([Row("0", "layer 0", [0.5])], [7.0], "t")
    assert [list(row) for row in cells(svg)] == [["layer 0, step 7: 0.5"]]
    assert texts(svg, "tick mid") == ["7"]


def test_no_tick_lies_beyond_the_last_look():
    ticks = texts(heatmap(GROWN, [20.0, 40.0, 60.0], "t"), "tick mid")
    assert (ticks[0], ticks[-1]) == ("20", "60")


def test_marks_inside_are_drawn():
    marks = [(5.0, "before"), (15.0, "deeper & <wider>")]
    [mark] = groups(heatmap(GROWN, STEPS, "t", marks=marks), "mark c1")
    assert mark.findtext(f"{NS}title") == "deeper & <wider>"


def test_groups_are_parted_and_labels_thinned():
    rows = [Row(f"{i // 4}.{i % 4}", "a", [1.0], i // 4) for i in range(40)]
    svg = heatmap(rows, [1.0], "t", "layer.head")
    parted = ElementTree.fromstring(svg).iter(f"{NS}line")
    assert sum(line.get("class") == "parting" for line in parted) == 9
    assert len(texts(svg, "tick end")) == 20


VALUES = st.none() | st.floats() | st.integers(-3, 3).map(float)


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=5), st.booleans())
def test_any_values_give_one_cell_each(table, root):
    rows = [Row(str(i), f"row {i}", values) for i, values in enumerate(table)]
    svg = heatmap(rows, STEPS, "t", root=root)
    drawn = sum(len(group) for group in groups(svg, "heat"))
    assert drawn == sum(value is not None for row in table for value in row)
    assert 'opacity="nan"' not in svg


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_hostile_text_breaks_nothing(text):
    svg = heatmap(
        [Row(text, text, [1.0, 2.0, None])], STEPS, text, text, [(15.0, text)]
    )
    assert len(ElementTree.fromstring(svg.encode())) > 4
