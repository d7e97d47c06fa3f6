import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.uncertainty_calibration import (
    GROUPS,
    calibration,
    in_pieces,
    judged,
    reliability_rows,
)
from experiments.uncertainty_methods import Method
from uets_jax.types import Batch

KINDS = ("natural", "words", "characters", "code", "verse")


def windows(rows=5):
    """Windows of three tokens; every other target is class 0."""
    found = {}
    for kind in KINDS:
        ids = np.arange(rows, dtype=np.int32)
        targets = np.tile(np.array([1, 0, 1], np.int32), (rows, 1))
        fields: Any = (ids[:, None] + np.zeros_like(targets), targets, ids, targets)
        found[kind] = Batch(*fields)
    return found


def two_faced(scale, batch, key):
    """Class 1 of two: with 0.9 in odd windows, with 0.7 in even ones."""
    p = jnp.where(batch.tokens % 2 == 1, 0.9, 0.7) * scale
    return jnp.stack([1 - p, p], -1)


SCORES = lambda scale, batch, key: {"bald": scale * batch.tokens}
WAY = Method("laplace", "final", jnp.float32(1.0), SCORES, two_faced)
BLIND = Method("softmax", "", jnp.float32(1.0), SCORES)


@pytest.fixture(scope="module")
def told():
    return judged(WAY, windows(), rows=2)


def test_tokens_are_judged_by_group(told):
    sizes = {group: len(found["right"]) for group, found in told.items()}
    assert sizes == {"target": 15, "unseen": 30, "shuffled": 30}
    assert tuple(told) == GROUPS
    assert told["target"]["right"].mean() == pytest.approx(2 / 3)
    assert told["target"]["confidence"].mean() == pytest.approx((3 * 0.7 + 2 * 0.9) / 5)


def test_calibration_is_that_of_the_groups(told):
    row = calibration(told)
    nats = [-math.log(x) for p, n in ((0.7, 3), (0.9, 2)) for x in n * (p, 1 - p, p)]
    for group in GROUPS:
        gap = 0.6 * (0.7 - 2 / 3) + 0.4 * (0.9 - 2 / 3)
        assert row[f"ece_{group}"] == pytest.approx(gap, abs=1e-6)
        assert row[f"nll_{group}"] == pytest.approx(np.mean(nats))
    assert list(calibration(None)) == list(row)
    assert set(calibration(None).values()) == {None}


def test_the_diagram_has_a_row_for_each_bin_with_predictions(told):
    rows = reliability_rows(WAY, told)
    assert [row["group"] for row in rows] == [g for g in GROUPS for _ in range(2)]
    low, high = rows[:2]
    assert (low["predictions"], high["predictions"]) == (9, 6)
    assert low["confidence"] == pytest.approx(0.7)
    assert high["confidence"] == pytest.approx(0.9)
    assert low["accuracy"] == high["accuracy"] == pytest.approx(2 / 3)
    assert {(r["method"], r["features"], r["score"]) for r in rows} == {
        ("laplace", "final", "reliability")
    }


def test_without_a_predictive_there_is_no_diagram():
    told = judged(BLIND, windows(), rows=2)
    assert told is None
    assert reliability_rows(BLIND, told) == []


def test_pieces_are_put_together_in_order():
    given = windows(7)["natural"]
    double = jax.jit(lambda scale, batch, seed: {"ids": scale * batch.ids})
    for rows in (1, 3, 7, 10):
        found = in_pieces(double, 2, given, rows)
        assert found["ids"].tolist() == (2 * given.ids).tolist()
