import numpy as np
import pytest

from uets_jax.growth.law import Law, gap, mixed, static

LAW = Law(
    floor=np.array([3.0, 2.5]),
    height=np.array([1.0, 1.2]),
    power=np.array([0.5, 0.4]),
    drop=np.array([0.2, 0.3]),
    cost=np.array([1e6, 3e6]),
    jump=0.1,
    lag=1e4,
    noise=0.1,
    start=7.0,
    unit=1e5,
    batch=1e3,
)


def test_a_static_curve_is_a_power_law():
    assert static(LAW, 0, 1e5) == pytest.approx(4.0)
    assert static(LAW, 0, 4e5) == pytest.approx(3.5)
    tokens = np.array([1e5, 2e5])
    np.testing.assert_allclose(
        static(LAW, 1, tokens), 2.5 + 1.2 * (tokens / 1e5) ** -0.4
    )


def test_nothing_is_infinite_before_the_first_step():
    assert static(LAW, 0, 0.0) == static(LAW, 0, 1e3)


def test_growth_starts_at_the_old_loss_and_ends_at_the_new_curve():
    before = static(LAW, 0, 1e5)
    apart = gap(LAW, before, 1, 1e5)
    assert mixed(LAW, 1, 1e5, apart, 1e5, np.exp) == pytest.approx(before + 0.1)
    one = mixed(LAW, 1, 1.1e5, apart, 1e5, np.exp) - static(LAW, 1, 1.1e5)
    assert one == pytest.approx(apart / np.e)
    late = mixed(LAW, 1, 1e6, apart, 1e5, np.exp)
    assert late == pytest.approx(static(LAW, 1, 1e6))
