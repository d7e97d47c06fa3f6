import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.growth.fit import Curve, fit, predicted
from uets_jax.growth.law import Law, static

UNIT, BATCH = 4e5, 1000.0
TRUE = Law(
    floor=np.array([3.2, 2.9]),
    height=np.array([0.9, 0.8]),
    power=np.array([0.36, 0.33]),
    drop=np.array([0.25, 0.35]),
    cost=np.array([1e6, 2e6]),
    jump=0.05,
    lag=3e4,
    noise=0.05,
    start=7.0,
    unit=UNIT,
    batch=BATCH,
)
PATHS = [
    ((0, 0.0),),
    ((1, 0.0),),
    ((0, 0.0), (1, 5e4)),
    ((0, 0.0), (1, 1e5)),
    ((0, 0.0), (1, 1.5e5)),
]


def curve(path, end=UNIT, seed=0, noise=0.05):
    """A synthetic run, noisy, its losses taken after a tenth of it."""
    tokens = np.arange(end / 10, 0.6 * end, BATCH)
    empty = Curve(path, tokens, tokens, end)
    rng = np.random.default_rng(seed)
    losses = predicted(TRUE, empty, tokens) + noise * rng.normal(size=tokens.size)
    final = float(predicted(TRUE, empty, end) - TRUE.drop[path[-1][0]])
    return Curve(path, tokens, losses, end, final)


@pytest.fixture(scope="module")
def found():
    runs = [(path, end) for path in PATHS for end in (UNIT / 2, UNIT, UNIT)]
    curves = [curve(path, end, seed) for seed, (path, end) in enumerate(runs)]
    return fit(curves, TRUE.cost, BATCH, 7.0)


def test_recovers_the_curves_where_there_is_data(found):
    tokens = np.linspace(UNIT / 10, UNIT, 20)
    for size in (0, 1):
        exact = static(TRUE, size, tokens)
        np.testing.assert_allclose(static(found.law, size, tokens), exact, atol=0.03)


def test_recovers_the_parameters_as_far_as_noise_allows(found):
    law = found.law
    np.testing.assert_allclose(law.power, TRUE.power, rtol=0.3)
    np.testing.assert_allclose(law.floor, TRUE.floor, atol=0.25)
    np.testing.assert_allclose(law.lag, TRUE.lag, rtol=0.4)
    np.testing.assert_allclose(law.jump, TRUE.jump, atol=0.04)
    np.testing.assert_allclose(law.drop, TRUE.drop, atol=0.03)
    np.testing.assert_allclose(law.noise, TRUE.noise, rtol=0.1)
    np.testing.assert_allclose(law.cost, TRUE.cost)
    assert (law.start, law.unit, law.batch) == (7.0, UNIT, BATCH)


def test_reports_what_it_misses(found):
    assert found.residual == pytest.approx(0.05, rel=0.1)
    assert found.missed < 0.02
    assert found.final_error < 0.03
    assert found.points == sum(len(curve(p).tokens) for p in PATHS) * 5 // 2


def test_another_shape_is_seen_in_the_residuals():
    odd = curve(PATHS[0])
    bent = odd._replace(losses=odd.losses + 0.5 * (odd.tokens > 1.5e5))
    both = fit([odd, bent, curve(PATHS[1])], TRUE.cost, BATCH, 7.0)
    assert both.missed > 0.05
    assert both.residual > 0.1


def test_a_size_without_a_decayed_loss_gets_the_mean_drop():
    runs = [curve(p)._replace(final=None) for p in PATHS[1:]]
    found = fit([curve(PATHS[0]), *runs], TRUE.cost, BATCH, 7.0)
    assert found.law.drop[1] == found.law.drop[0] == pytest.approx(0.25, abs=0.05)
    none = fit([*runs, curve(PATHS[0])._replace(final=None)], TRUE.cost, BATCH, 7.0)
    assert np.isnan(none.final_error)
    assert none.law.drop.tolist() == [0.0, 0.0]


def test_what_can_not_be_fitted_is_refused():
    with pytest.raises(UserError, match="no curve of size 1"):
        fit([curve(PATHS[0])], TRUE.cost, BATCH, 7.0)
    short = curve(PATHS[1])._replace(tokens=np.ones(2), losses=np.ones(2))
    with pytest.raises(UserError, match="curve 1 has 2 points"):
        fit([curve(PATHS[0]), short], TRUE.cost, BATCH, 7.0)


def test_a_run_that_grew_is_the_old_law_before_and_mixes_after():
    path = ((0, 0.0), (1, 1e5))
    tokens = np.array([5e4, 1e5, 1e5 + 1e-3, 1e6])
    found = predicted(TRUE, Curve(path, tokens, tokens, UNIT), tokens)
    np.testing.assert_allclose(found[:2], static(TRUE, 0, tokens[:2]))
    assert found[2] == pytest.approx(found[1] + TRUE.jump, abs=1e-4)
    assert found[3] == pytest.approx(static(TRUE, 1, 1e6), abs=1e-6)
