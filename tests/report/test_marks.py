"""Marks on a chart: where they lie, and labels that never overlap."""

import itertools
from xml.etree import ElementTree

import pytest

from uets_jax.report.axis import Axis
from uets_jax.report.marks import Mark
from uets_jax.report.svg import Series, chart

NS = "{http://www.w3.org/2000/svg}"
parse = ElementTree.fromstring
LINE = Series([(0.0, 1.0), (100.0, 2.0)], 0)


def marked(*marks, width=440):
    """The pixel of each mark, its text if there is one, and what hovering tells."""
    size = (width, 290)
    svg = parse(chart([LINE], Axis("x"), Axis("y"), "t", size, marks=marks))
    found = []
    for group in svg.iter(f"{NS}g"):
        lines, text = group.findall(f"{NS}line"), group.find(f"{NS}text")
        assert {line.get("x1") for line in lines} == {lines[0].get("x2")}
        shown = None if text is None else text.text
        pixel = float(lines[0].get("x1", "nan"))
        found.append((pixel, shown, group.findtext(f"{NS}title")))
    return found


def test_a_mark_lies_at_its_value_with_its_label():
    left = 14 + 6.6 * len("1.0")
    [(pixel, text, told)] = marked(Mark(25.0, "a<b", 0, "why & when"))
    assert pixel == pytest.approx(left + (424 - left) / 4, abs=0.06)
    assert (text, told) == ("a<b", "why & when")


def test_marks_outside_are_left_out_and_neighbours_are_one():
    assert marked(Mark(-1.0, "a", 0), Mark(101.0, "a", 0)) == []
    close = [Mark(50 + n / 2, "skip", 0, f"s{n}") for n in range(3)]
    [(_, text, told)] = marked(*close)
    assert (text, told) == ("skip \N{MULTIPLICATION SIGN}3", "s0; s1; s2")
    assert len(marked(*close, Mark(50.5, "other", 0), Mark(50.5, "skip", 1))) == 3


def test_labels_of_marks_never_overlap_and_stay_inside():
    marks = [Mark(n * 3.0, f"growth {n}", 0) for n in range(34)]
    svg = parse(chart([LINE], Axis("x"), Axis("y"), "t", marks=marks))
    boxes = []
    for group in svg.iter(f"{NS}g"):
        text = group.find(f"{NS}text")
        if text is not None:
            left = float(text.get("x", "nan"))
            boxes.append((text.get("y"), left, left + 6.6 * len(text.text or "")))
    assert len({y for y, _, _ in boxes}) == 3
    for (y, _, end), (other, start, _) in itertools.pairwise(sorted(boxes)):
        assert y != other or end <= start
    assert max(end for _, _, end in boxes) <= 424
