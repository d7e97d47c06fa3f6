import xml.etree.ElementTree as ET

import pytest

from experiments.pool_chart import chart
from uets_jax.data.mixture import KINDS

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {kind: {"bytes": 1000 * 2**i, "documents": i} for i, kind in enumerate(KINDS)}


def parsed(kinds):
    root = ET.fromstring(chart(kinds))
    bars = [r for r in root.iter(f"{SVG}rect") if r.get("x")]
    texts = [
        (float(t.get("x", 0)), "".join(t.itertext())) for t in root.iter(f"{SVG}text")
    ]
    return root, bars, texts


def test_a_bar_is_as_long_as_its_kind_is_large():
    _, bars, _ = parsed(SIZES)
    lengths = [float(bar.get("width", 0)) for bar in bars]
    assert len(lengths) == len(KINDS)
    for one, other in zip(lengths[1:], lengths[:-1], strict=True):
        assert one == pytest.approx(2 * other, rel=0.02)


def test_each_bar_has_its_name_and_figures():
    _, _, texts = parsed(SIZES)
    said = [text for _, text in texts]
    assert said[0] == "Composition of the pool: 63kB"
    assert "unique target text" in said
    assert "32kB, 50.8%, 5 documents" in said


def test_nothing_leaves_the_picture():
    root, bars, texts = parsed(
        {kind: {"bytes": 44_444_444, "documents": 1_234_567} for kind in KINDS}
    )
    width, height = (float(v) for v in root.get("viewBox", "").split()[2:])
    assert all(x + 6.8 * len(text) <= width for x, text in texts[2::2])
    assert all(x - 6.8 * len(text) >= 0 for x, text in texts[1::2])
    ends = [float(bar.get("y", 0)) + float(bar.get("height", 0)) for bar in bars]
    assert max(ends) < height
    assert sorted(ends) == ends


def test_a_pool_may_lack_a_kind():
    _, bars, _ = parsed(SIZES | {"boilerplate": {"bytes": 0, "documents": 0}})
    assert float(bars[-1].get("width", 1)) == 0
