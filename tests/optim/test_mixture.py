import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.optim.directions import Moments
from uets_jax.optim.gate import GateSettings, init_theta
from uets_jax.optim.leaves import describe
from uets_jax.optim.mixture import Rows, decision, mixed
from uets_jax.optim.norms import mean_square

ALL = GateSettings(rules=("adam", "muon", "lion", "momentum", "mlp"))


@pytest.fixture(scope="module")
def leaf(small, about):
    [leaf] = [x for x in describe(small, **about) if "up" in x.name]
    return leaf


@pytest.fixture
def theta(key):
    return init_theta(key, ALL)


def rows(draw, leaf):
    like = [jnp.ones(leaf.shape)] * 4
    g, p, mu, last = draw(1, like)
    moments = Moments(mu, mu * mu, jnp.full(2, 0.7), jnp.full(2, 0.6))
    return Rows(g, p, moments, last, jnp.ones(2))


def departures(settings, leaf, **columns):
    """Zeros but for the named columns: a rule's is 1 (and the nominal one's -1)."""
    names = [*settings.rules, "step", "decay", "b1", "b2", "skips"]
    out = np.zeros((2, settings.outputs), np.float32)
    for name, value in columns.items():
        out[:, names.index(name)] += value
        if name in settings.rules:
            out[:, settings.nominal_of(leaf)] -= value
    return jnp.asarray(out)


def updated(draw, theta, leaf, settings=ALL, weight_decay=0.0, **columns):
    do = decision(departures(settings, leaf, **columns), settings, leaf)
    return mixed(theta, settings, leaf, do, rows(draw, leaf), weight_decay)


def test_every_rule_has_the_size_of_the_nominal_one(draw, theta, leaf):
    found = {r: updated(draw, theta, leaf, **{r: 1.0}).update for r in ALL.rules}
    size = mean_square(found["muon"])
    for rule, update in found.items():
        np.testing.assert_allclose(mean_square(update), size, rtol=1e-5, err_msg=rule)
    for one, other in (("adam", "muon"), ("lion", "adam"), ("mlp", "momentum")):
        assert float(jnp.abs(found[one] - found[other]).max()) > 0.01
    half = updated(draw, theta, leaf, lion=0.5).update
    np.testing.assert_allclose(mean_square(half), size, rtol=1e-5)


def test_steps_and_decays_are_multiplied_and_left_out(draw, theta, leaf):
    plain = updated(draw, theta, leaf).update
    np.testing.assert_allclose(
        updated(draw, theta, leaf, step=1.0).update, np.e * plain, rtol=1e-5
    )
    p = rows(draw, leaf).p
    decayed = updated(draw, theta, leaf, weight_decay=0.1, decay=1.0)
    np.testing.assert_allclose(
        decayed.update, plain + 0.1 * np.e * p, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(decayed.bare, plain, rtol=1e-6)
    skipped = updated(draw, theta, leaf, weight_decay=0.1, skips=1.0)
    assert not skipped.update.any()
    np.testing.assert_array_equal(
        skipped.moments.mu, updated(draw, theta, leaf).moments.mu
    )


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_memory_is_modulated_within_bounds(name, leaf):
    made = lambda value: decision(departures(ALL, leaf, **{name: value}), ALL, leaf)
    of = lambda value: getattr(made(value), name)
    np.testing.assert_allclose(of(0.0), 0.95, rtol=1e-6)
    assert 0.86 < float(of(1.0)[0]) < 0.87
    assert 0.98 < float(of(-1.0)[0]) < 0.99
    np.testing.assert_allclose(of(9.0), 0.1, rtol=1e-6)


def test_a_nominal_rule_without_memory_stays_so(leaf):
    settings = dataclasses.replace(ALL, momentum=0.0)
    assert not decision(departures(settings, leaf), settings, leaf).b1.any()
