"""Starts on parabolas, whose best one is the mean of their optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.optimizer_small_starts import (
    LIMIT,
    METHODS,
    RATE,
    capped,
    losses,
    rows,
    starts,
)
from uets_jax.errors import UserError
from uets_jax.meta.family import Family


@pytest.fixture(scope="module")
def parabolas():
    """|w - c|^2 / 2 with c ~ N(3, 1)."""
    half = lambda w, c: 0.5 * jnp.square(w["w"] - c).sum()
    return Family(
        "parabolas",
        lambda key: 3.0 + jax.random.normal(key, (2,)),
        lambda instance, key: {"w": jax.random.normal(key, (2,))},
        lambda params, c, key, rows: half(params, c),
        half,
        batch=1,
    )


def test_every_method_has_a_row_for_every_number_of_steps(parabolas):
    found = rows(parabolas, ("joint", "random"), (1, 2), updates=800, seeds=2, tasks=4)
    pairs = [("joint", 1), ("joint", 2), ("random", 1), ("random", 2)]
    assert [(r["arm"], r["steps"]) for r in found] == pairs
    assert len({tuple(r) for r in found}) == 1
    joint, further, random, _ = found
    assert joint["loss"] < 0.5 * random["loss"]  # of starts near the mean optimum
    assert further["loss"] <= joint["loss"] + 1e-6
    assert joint["core_seconds"] > random["core_seconds"] == 0.0
    assert (joint["seen"], random["seen"]) == ("yes", None)
    for row in found:
        assert (row["seeds"], row["diverged"]) == (2, 0.0)
        # a step of 1 solves it, and the rate of the grid next to that is 27 or 81
        assert row["rate_factor"] * RATE == pytest.approx(0.54) or row["steps"] == 2
        assert np.isfinite([row["loss"], row["standard_error"]]).all()


def test_a_start_is_one_for_each_seed_and_method(parabolas):
    for method in METHODS:
        made = starts(parabolas, method, jax.random.key(0), 2, 3)["w"]
        assert made.shape == (3, 2)
        assert len(np.unique(np.asarray(made))) == 6
    with pytest.raises(UserError, match="leap"):
        starts(parabolas, "leap", jax.random.key(0), 2, 3)


def test_losses_are_those_of_sgd_on_the_same_tasks(parabolas):
    """On a parabola a step of rate r leaves (1 - r)^2 of the loss."""
    two = {"w": jnp.array([[0.0, 0.0], [1.0, 1.0]])}
    before, after = losses(parabolas, 3)(two, jnp.arange(4), jnp.asarray(5.0))
    assert before.shape == (2, 4)
    np.testing.assert_allclose(after, before * (1 - 5 * RATE) ** 6, rtol=1e-5)
    again, _ = losses(parabolas, 3)(two, jnp.arange(1, 4), jnp.asarray(1.0))
    np.testing.assert_allclose(again, before[:, 1:], rtol=1e-6)


def test_what_diverges_counts_as_the_limit():
    before = np.ones((1, 4))
    after = np.array([[0.5, 3.0, np.inf, np.nan]])
    ends, broken = capped(before, after)
    np.testing.assert_allclose(ends, [[0.5, LIMIT, LIMIT, LIMIT]])
    assert broken.tolist() == [[False, True, True, True]]
