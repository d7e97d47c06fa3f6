import xml.etree.ElementTree as ElementTree

import pytest

from uets_jax.meta.curve import POINTS, picture, smoothed


def rows(n=200):
    return [
        {"update": i, "family": "ab"[i % 2], "value": -0.1 * i if i % 7 else None}
        for i in range(n)
    ]


def test_smoothing_keeps_the_mean_and_the_order():
    found = smoothed([{"update": i, "value": 2.0 * i} for i in range(4 * POINTS)])
    assert len(found) == POINTS
    assert found[0] == (1.5, 3.0)
    assert found == sorted(found)
    assert smoothed([]) == []


@pytest.mark.parametrize("n", [0, 1, 200])
def test_a_picture_of_any_number_of_lines(n):
    check = {"mean": -0.2, "error": 0.1}
    lines = [*rows(n), {"event": "validation", "update": n, "theta": check}]
    lines[-1]["mean"] = check
    whole = ElementTree.fromstring(picture(lines))
    paths = whole.findall(".//{http://www.w3.org/2000/svg}path")
    assert len(paths) >= (2 if n > 2 else 0)
    text = "".join(whole.itertext())
    assert "held out" in text
    assert n < 10 or "e-folds" in text
