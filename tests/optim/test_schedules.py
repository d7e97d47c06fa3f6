import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.optim.schedules import schedule
from uets_jax.types import Hypers


def values(name, steps=100, warmup=10, peak=2.0, **settings):
    hypers = Hypers(*(jnp.float32(x) for x in (peak, 0.0, warmup, steps)))
    rate = schedule(name, **settings)
    return np.asarray([rate(hypers, jnp.int32(t)) for t in range(steps)])


def test_all_warm_up_in_a_line():
    for name in ("constant", "wsd"):
        np.testing.assert_allclose(values(name)[:10], 0.2 * np.arange(1, 11), rtol=1e-6)


def test_cosine_equals_optax_after_warm_up():
    theirs = optax.cosine_decay_schedule(2.0, 90, alpha=0.1)
    expected = np.asarray([theirs(t) for t in range(90)])
    np.testing.assert_allclose(values("cosine", floor=0.1)[10:], expected, rtol=1e-5)


def test_linear_equals_optax_after_warm_up():
    theirs = optax.linear_schedule(2.0, 0.2, 90)
    expected = np.asarray([theirs(t) for t in range(90)])
    np.testing.assert_allclose(values("linear", floor=0.1)[10:], expected, rtol=1e-5)


def test_wsd_stays_and_then_falls_in_a_line():
    found = values("wsd", decay=0.4)
    np.testing.assert_allclose(found[10:61], 2.0)
    np.testing.assert_allclose(found[60:], 2.0 * np.arange(40, 0, -1) / 40, rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "wsd", "cosine", "linear"])
def test_extremes_stay_finite_and_in_range(name):
    for steps, warmup in ((1, 0), (5, 100), (3, 3)):
        found = values(name, steps=steps, warmup=warmup, decay=0.0)
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= 2.0)).all()
        assert found[0] > 0
