import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.growth.score import FEATURES, START, Situation, features, score

HERE = Situation(
    progress=0.25,
    slope=np.float64(-0.5),
    error=0.1,
    age=0.1,
    flops=1e9,
    rate=1e7,
    next_rate=2e7,
    last_rate=4e7,
    left=300.0,
    steps=400.0,
    cost=0.2,
)


def named(situation):
    return dict(zip(FEATURES, features(situation, np), strict=True))


def test_features_are_their_closed_forms():
    found = named(HERE)
    assert found["bias"] == 1
    assert found["progress"] == 0.25
    assert found["fall"] == 0.5
    assert found["uncertainty"] == pytest.approx(0.1 / 0.6)
    assert found["ratio"] == 0.5
    assert found["age"] == 0.1
    assert found["staying"] == pytest.approx(0.5 * np.log(4e9 / 1e9))
    assert found["price"] == pytest.approx(0.2 * (1e7 * 300) / (4e7 * 400))


def test_numpy_and_jax_agree():
    host = features(HERE, np)
    traced = jax.jit(features)(HERE)
    np.testing.assert_allclose(traced, host, rtol=1e-5)
    weights = np.asarray(START)
    np.testing.assert_allclose(score(weights, traced), score(weights, host, np), 1e-5)


def test_an_unknown_slope_is_wholly_uncertain_and_all_is_finite():
    found = named(HERE._replace(slope=np.float64(0.0), error=np.inf))
    assert found["uncertainty"] == 1
    assert np.isfinite([*found.values()]).all()
    assert named(HERE._replace(error=0.0))["uncertainty"] < 1e-6


def test_all_but_the_price_are_bounded():
    wild = HERE._replace(slope=np.float64(-1e9), next_rate=1.0, left=1e12, flops=1.0)
    found = named(wild)
    assert max(abs(found[name]) for name in FEATURES[:-1]) <= 4


@pytest.mark.parametrize("weight", [-5.0, 0.0, 3.0])
def test_the_score_falls_with_the_cost_whatever_the_weight(weight):
    weights = np.array([*START[:-1], weight])
    costs = (0.0, 0.1, 1.0, 10.0)
    found = [score(weights, features(HERE._replace(cost=c), np), np) for c in costs]
    assert (np.diff(found) < 0).all()


def test_a_cheaper_stage_scores_more_the_higher_the_cost():
    smaller = HERE._replace(next_rate=5e6)
    low, high = (
        score(np.array(START), features(smaller._replace(cost=c), np), np)
        for c in (0.1, 10.0)
    )
    assert high > low


def test_a_batch_of_situations_is_scored_at_once():
    many = Situation(*(jnp.full(5, float(x)) for x in HERE))
    found = score(jnp.array(START), features(many))
    assert found.shape == (5,)
