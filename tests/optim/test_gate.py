import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.optim.features import NAMES
from uets_jax.optim.gate import (
    OUTPUTS,
    GateSettings,
    check_theta,
    decide,
    gru,
    init_theta,
    units_of,
)
from uets_jax.optim.leaves import describe

ALL = GateSettings(rules=("adam", "muon", "lion", "momentum", "mlp"), skip=True)


def units(small, about, settings):
    return units_of(describe(small, **about), settings)


def inputs(n, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *s: jnp.asarray(rng.normal(size=s), jnp.float32)
    return draw(n, len(NAMES)), draw(n, 8)


def noisy(theta):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 9), theta)


@pytest.mark.parametrize("nominal", ["muon", "adamw"])
def test_it_begins_almost_as_the_nominal_rule(nominal, small, about, key):
    s = dataclasses.replace(ALL, nominal=nominal)
    every = units(small, about, s)
    x, h = inputs(len(every.role))
    _, out = decide(init_theta(key, s), s, every, x, h)
    weights = out[:, :5] + every.nominal
    assert float((weights * every.nominal).sum(1).min()) >= 0.95
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(out[:, 5:], 0)
    muons = every.nominal[:, s.rules.index("muon")].sum()
    assert muons == (4 if nominal == "muon" else 0)  # two matrices, two layers


def test_whatever_theta_is_decisions_are_bounded_and_muon_is_for_matrices(
    small, about, key
):
    every = units(small, about, ALL)
    x, h = inputs(len(every.role))
    _, out = decide(noisy(init_theta(key, ALL)), ALL, every, 9 * x, h)
    weights = out[:, :5] + every.nominal
    assert not weights[every.role != 1][:, 1].any()
    assert (weights >= 0).all()
    for column, bound in zip((5, 6, 7, 8), (1.6, 1.6, 2.5, 2.5), strict=True):
        assert float(jnp.abs(out[:, column]).max()) <= bound + 1e-6
    assert {*np.asarray(out[:, 9]).tolist()} <= {0.0, 1.0}
    chex.assert_tree_all_finite(out)


def test_the_recurrence_is_a_gru(key):
    theta = noisy(init_theta(key))
    x, h = inputs(3)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    w, u, b = (np.asarray(t, np.float64) for t in theta[:3])
    x64, h64 = np.asarray(x, np.float64), np.asarray(h, np.float64)
    part = lambda i: slice(8 * i, 8 * i + 8)
    z, r = (
        sigmoid(x64 @ w[:, part(i)] + b[part(i)] + h64 @ u[:, part(i)]) for i in (0, 1)
    )
    new = np.tanh(x64 @ w[:, part(2)] + b[part(2)] + (r * h64) @ u[:, part(2)])
    np.testing.assert_allclose(gru(theta, x, h), (1 - z) * h64 + z * new, atol=1e-4)


def test_without_recurrence_what_was_before_does_not_matter(small, about, key):
    s = dataclasses.replace(ALL, recurrent=False)
    every = units(small, about, s)
    x, h = inputs(len(every.role))
    theta = noisy(init_theta(key, s))
    chex.assert_trees_all_equal(
        decide(theta, s, every, x, h), decide(theta, s, every, x, 0 * h)
    )


def test_a_role_has_a_schedule_of_its_own(small, about, key):
    """The log of the step follows the progress of the run, for that role alone."""
    theta, every = init_theta(key), units(small, about, GateSettings())
    knot = NAMES.index("progress_0.5") - NAMES.index("progress_0.03")
    step = len(GateSettings().rules)
    own = theta._replace(role_progress=theta.role_progress.at[1, knot, step].set(0.5))
    x, h = inputs(len(every.role))
    x = x.at[:, NAMES.index("progress_0.5")].set(-1.0)
    _, out = decide(own, GateSettings(), every, x, h)
    wanted = np.where(every.role == 1, 1.6 * np.tanh(-0.5 / 1.6), 0.0)
    np.testing.assert_allclose(out[:, step], wanted, atol=1e-6)


def test_a_decision_can_follow_a_feature_directly(small, about, key):
    """Here the log of 1 - b1 of every leaf, from its signal-to-noise ratio."""
    theta, every = init_theta(key), units(small, about, GateSettings())
    column, see = len(GateSettings().rules) + 2, NAMES.index("signal_to_noise")
    own = theta._replace(direct=theta.direct.at[see, column].set(0.5))
    x, h = inputs(len(every.role))
    apart = decide(own, GateSettings(), every, x, h)[1]
    plain = decide(theta, GateSettings(), every, x, h)[1]
    wanted = 2.5 * np.tanh(0.5 * np.asarray(x)[:, see] / 2.5)
    np.testing.assert_allclose(apart[:, column], wanted, atol=1e-6)
    np.testing.assert_array_equal(
        np.delete(apart, column, 1), np.delete(plain, column, 1)
    )


def test_no_division_by_zero_in_slopes(small, about, key):
    every = units(small, about, ALL)
    x, h = inputs(len(every.role))
    total = lambda theta: decide(theta, ALL, every, 0 * x, 0 * h)[1].sum()
    chex.assert_tree_all_finite(jax.grad(total)(init_theta(key, ALL)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rules": ("adam", "mion")}, "'mion': did you mean 'muon'?"),
        ({"rules": ("lion",)}, "the nominal rule needs 'adam'"),
        ({"rules": ("adam",)}, "needs 'muon'"),
        ({"nominal": "sgd"}, "'muon' or 'adamw', not 'sgd'"),
        ({"every": 0}, "gate.every: an integer, at least 1, not 0"),
        ({"rules": ("adam", "muon", "adam")}, "name each once"),
        ({"step_bound": -1.0}, "gate.step_bound: must be above 0"),
        ({"decay_bound": float("nan")}, "gate.decay_bound: must be above 0"),
        ({"b2": 1.5}, "gate.b2: must be in [0, 1)"),
        ({"divergence": 0.5}, "gate.divergence: must be above 1"),
        ({"adam_ratio": -1.0}, "gate.adam_ratio: must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, text):
    with pytest.raises(UserError) as error:
        GateSettings(**changes)
    assert text in str(error.value)


def test_a_theta_of_other_settings_is_named(key):
    theta = init_theta(key)
    check_theta(theta, GateSettings(), "here")
    assert GateSettings().outputs == 4 + len(OUTPUTS)
    assert GateSettings(between="learned").columns[-1] == "keep"
    with pytest.raises(UserError, match="here: input: shape"):
        check_theta(theta, GateSettings(hidden=4), "here")
    with pytest.raises(UserError, match="here: not the fields of rules"):
        check_theta(theta, ALL, "here")
