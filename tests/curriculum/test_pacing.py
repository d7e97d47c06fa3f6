"""Closed forms, ends, monotony, and one executable for all starts and ends."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.curriculum.pacing import PACINGS, fixed_root, pacing, root
from uets_jax.errors import UserError

RISING = sorted(PACINGS.keys() - {"constant"})
TIMES = jnp.linspace(0.0, 1.0, 101)


@functools.cache
def compiled_curve(name: str):
    return jax.jit(jax.vmap(pacing(name), (0, None, None)))


def curve(name: str, start, end):
    return np.asarray(compiled_curve(name)(TIMES, start, end))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


CLOSED = {
    "linear": lambda u, c: c + (1 - c) * u,
    "root": lambda u, c: math.sqrt(c * c + (1 - c * c) * u),
    "exponential": lambda u, c: c ** (1 - u),
    "step": lambda u, c: c + (1 - c) * math.floor(4 * u) / 4,
    "logistic": lambda u, c: (
        c
        + (1 - c) * (sigmoid(8 * (u - 0.5)) - sigmoid(-4)) / (sigmoid(4) - sigmoid(-4))
    ),
    "fixed_root": lambda u, c: max(
        c, math.floor(16 * (c + (1 - c) * math.sqrt(u))) / 16
    ),
    "constant": lambda u, c: 1.0,
}


@pytest.mark.parametrize("name", sorted(PACINGS))
@pytest.mark.parametrize(("start", "end"), [(0.3, 0.8), (0.05, 1.0)])
def test_values_are_those_of_the_closed_form(name, start, end):
    for t in (0.013, 0.21, 0.33, 0.47, 0.71, 0.97):
        found = float(pacing(name)(jnp.float32(t), start, end))
        assert found == pytest.approx(CLOSED[name](min(t / end, 1), start), rel=1e-4)


@pytest.mark.parametrize("name", RISING)
@given(start=st.floats(0.01, 1.0), end=st.floats(0.01, 1.0))
def test_curves_rise_from_start_to_one(name, start, end):
    found = curve(name, start, end)
    assert found[0] == pytest.approx(start, rel=1e-4)
    assert found[-1] == pytest.approx(1.0, rel=1e-5)
    assert (np.diff(found) >= -1e-6).all()
    assert (found > 0).all() and (found <= 1 + 1e-6).all()  # noqa: PT018
    assert pacing(name)(end, start, end) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", sorted(PACINGS))
def test_an_end_of_zero_or_a_start_of_one_is_no_curriculum(name):
    np.testing.assert_allclose(curve(name, 0.2, 0.0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(curve(name, 1.0, 0.5), 1.0, rtol=1e-6)


def test_fixed_root_takes_few_values_that_are_multiples():
    found = curve("fixed_root", 0.25, 1.0)
    np.testing.assert_array_equal(np.unique(found), np.arange(4, 17) / 16)
    coarse = jax.vmap(lambda t: fixed_root(t, 0.25, 1.0, levels=4))(TIMES)
    np.testing.assert_array_equal(np.unique(coarse), [0.25, 0.5, 0.75, 1])


def test_root_of_power_one_is_linear_and_of_more_is_above():
    straight = jax.vmap(lambda t: root(t, 0.1, 1.0, power=1.0))(TIMES)
    np.testing.assert_allclose(straight, curve("linear", 0.1, 1.0), rtol=1e-5)
    assert (curve("root", 0.1, 1.0)[1:-1] > straight[1:-1]).all()


@pytest.mark.parametrize("name", sorted(PACINGS))
def test_start_and_end_are_traced(name):
    compiled = jax.jit(chex.assert_max_traces(pacing(name), 1))
    for t, start, end in ((0.1, 0.2, 0.5), (0.4, 0.6, 0.9)):
        plain = pacing(name)(t, start, end)
        np.testing.assert_allclose(compiled(t, start, end), plain, rtol=1e-6)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'linear'"):
        pacing("lineal")
