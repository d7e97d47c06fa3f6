import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.optim.guard import WARM_UP, guard

ONE = jnp.ones(())


def feed(part, losses):
    """Which losses pass, with the state after the last one."""
    state, passed = part.init({}), []
    for loss in losses:
        good, state = part.apply(state, jnp.float32(loss), ONE, ONE)
        passed.append(bool(good))
    return passed, state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(3))
def test_what_is_not_finite_does_not_pass_and_leaves_no_trace(bad, place):
    part = guard()
    state = part.init({})
    _, state = part.apply(state, 2 * ONE, ONE, ONE)
    values = [ONE, ONE, ONE]
    values[place] = jnp.float32(bad)
    good, after = part.apply(state, *values)
    assert not good
    assert [float(x) for x in after] == [float(x) for x in state]


def test_moments_are_those_of_the_exponential_window():
    losses = np.random.default_rng(0).normal(3.0, 0.2, 200)
    _, state = feed(guard(decay=0.9), losses)
    mean, variance = losses[0], 0.0
    for seen, loss in enumerate(losses[1:], start=2):
        share = max(0.1, 1 / seen)
        old, mean = mean, mean + share * (loss - mean)
        variance = (1 - share) * variance + share * (loss - old) * (loss - mean)
    np.testing.assert_allclose(float(state.mean), mean, rtol=1e-5)
    np.testing.assert_allclose(float(state.variance), variance, rtol=1e-4)


def test_the_first_moments_are_plain_ones():
    losses = np.random.default_rng(1).normal(3.0, 0.2, 40)
    _, state = feed(guard(decay=0.98), losses)
    np.testing.assert_allclose(float(state.mean), losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(float(state.variance), losses.var(), rtol=1e-4)


def test_a_spike_is_left_out_once_the_loss_is_known():
    calm = list(np.random.default_rng(2).normal(3.0, 0.1, 60))
    passed, state = feed(guard(spike=6.0), [*calm, 4.0, 3.1])
    assert passed == [True] * 60 + [False, True]
    assert int(state.seen) == 61
    early, _ = feed(guard(spike=6.0), [*calm[: WARM_UP - 1], 400.0])
    assert all(early)
    without, _ = feed(guard(), [*calm, 4000.0])
    assert all(without)


def test_a_falling_loss_is_no_spike():
    passed, _ = feed(guard(spike=4.0), 8 * np.exp(-np.arange(300) / 60))
    assert all(passed)
