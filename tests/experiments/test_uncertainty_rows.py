import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.uncertainty_methods import Method
from experiments.uncertainty_rows import best_seconds, uncertainty_rows
from uets_jax.types import Batch, Stats

RNG = np.random.default_rng(0)
LEVELS = {"natural": 0, "words": 100, "characters": -100, "code": 100, "verse": 0}
COLUMNS = 4


def windows():
    """Five windows of each kind, whose tokens lie at a level of their own."""
    found = {}
    for kind, level in LEVELS.items():
        ids = RNG.permutation(5).astype(np.int32)
        tokens = np.repeat(level + ids[:, None], 3, 1).astype(np.int32)
        targets = np.full((5, 3), 1, np.int32)
        fields: Any = (tokens, targets, ids, np.zeros_like(tokens))
        found[kind] = Batch(*fields)
    return found


def height(scale, batch, key):
    return {"bald": scale * batch.tokens.astype(jnp.float32)}


def sure(scale, batch, key):
    """Of class 1, with probability 0.7."""
    p = jnp.full((*batch.tokens.shape, COLUMNS), 0.1)
    return p.at[..., 1].set(0.7)


WAYS = [
    Method("softmax", "", jnp.float32(-1.0), height, sure),
    Method("mc_dropout", "", jnp.float32(2.0), height),
    Method("ensemble", "final", jnp.float32(0.0), height),
    Method(
        "laplace",
        "final",
        jnp.float32(3.0),
        height,
        beside=lambda scale, stats: {"bald": scale * stats.entropy},
    ),
]
TIMES = {-1.0: 0.004, 2.0: 0.024, 0.0: 0.004, 3.0: 0.001}


@pytest.fixture(scope="module")
def rows():
    def forward(batch):
        entropy = batch.tokens.astype(jnp.float32)
        return Stats(entropy[..., None], entropy, entropy, entropy)

    clock = lambda function, *given: TIMES[float(given[0])]
    return uncertainty_rows(WAYS, windows(), forward, rows=2, clock=clock)


def test_ranks_against_the_references(rows):
    assert [row["method"] for row in rows[:4]] == [way.name for way in WAYS]
    assert rows[0]["spearman_dropout"] == pytest.approx(-1)
    assert rows[0]["spearman_dropout_all"] == pytest.approx(-1)
    assert rows[1]["spearman_dropout"] is None  # with itself
    assert rows[0]["spearman_ensemble"] is None  # constant


def test_kinds_are_told_from_natural_text(rows):
    plain, drawn, flat = rows[:3]
    assert (plain["auroc_words"], plain["auroc_characters"]) == (0.0, 1.0)
    assert (drawn["auroc_words"], drawn["auroc_characters"]) == (1.0, 0.0)
    assert drawn["auroc_code"] == 1.0
    assert drawn["auroc_verse"] == pytest.approx(0.5)
    assert drawn["auroc_unseen"] == pytest.approx(0.75)
    assert flat["auroc_unseen"] == pytest.approx(0.5)


def test_calibration_is_of_the_predictive(rows):
    for group in ("target", "unseen", "shuffled"):
        assert rows[0][f"nll_{group}"] == pytest.approx(-math.log(0.7))
        assert rows[0][f"ece_{group}"] == pytest.approx(0.3, abs=1e-6)
        assert rows[1][f"nll_{group}"] is None


def test_diagrams_stand_at_the_end(rows):
    kinds = [(row["method"], row["group"]) for row in rows[4:]]
    assert kinds == [("softmax", group) for group in ("target", "unseen", "shuffled")]
    assert {row["score"] for row in rows[4:]} == {"reliability"}


def test_cost_is_that_of_the_scores(rows):
    plain, drawn, _, beside = rows[:4]
    assert plain["flops_per_token"] == drawn["flops_per_token"] >= 1
    assert plain["extra_flops_per_token"] == plain["extra_seconds"] == 0
    assert plain["seconds"] == pytest.approx(2.0)  # 4 ms for two windows
    assert drawn["seconds"] == drawn["extra_seconds"] == pytest.approx(12.0)
    assert drawn["extra_flops_per_token"] == drawn["flops_per_token"]
    assert beside["extra_seconds"] == pytest.approx(0.5)
    assert beside["seconds"] == pytest.approx(2.5)
    assert beside["extra_flops_per_token"] == 1.0
    assert beside["flops_per_token"] == plain["flops_per_token"] + 1


def test_the_shortest_call_counts():
    assert 0 < best_seconds(jax.jit(jnp.sin), jnp.ones(3)) < 1
