import xml.etree.ElementTree as ElementTree

from uets_jax.report.axis import Axis
from uets_jax.report.figure import GAP, WIDTH, joined
from uets_jax.report.svg import Series, chart


def test_charts_stand_side_by_side_in_a_file_that_needs_nothing_else():
    svg = chart([Series([(1.0, 2.0), (2.0, 1.0)], 0)], Axis("x"), Axis("y"), "a < b")
    whole = ElementTree.fromstring(joined([("a < b", svg), ("c", svg)]))
    assert float(whole.get("width", 0)) == 2 * WIDTH + 3 * GAP
    tag = lambda name: whole.findall(f".//{{http://www.w3.org/2000/svg}}{name}")
    assert [t.text for t in tag("text") if t.get("class") == "title"] == ["a < b", "c"]
    assert len(tag("style")) == 1
    assert "http" not in (tag("style")[0].text or "")
