import math

import numpy as np
import pytest

from uets_jax.measure.converged import FEWEST, converged

STEPS = np.arange(100, 1001, 50)


def history(losses, steps=STEPS):
    return [[int(s), float(y)] for s, y in zip(steps, losses, strict=True)]


def test_a_line_in_the_logarithm_is_read_where_the_cool_down_has_moved_to():
    losses = 5.0 - 0.4 * np.log(STEPS)
    found = converged(history(losses), target=2.0, cooldown=0.5)
    assert found.loss == pytest.approx(5.0 - 0.4 * math.log(1250))
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert not found.reached
    for target, reached in ((found.loss + 1e-6, True), (found.loss - 1e-6, False)):
        assert converged(history(losses), target, 0.5).reached is reached


def test_the_error_is_that_of_a_prediction_written_out():
    """Through four points whose line by medians is that of two of them."""
    steps, losses = [700, 800, 900, 1000], [2.0, 1.9, 1.85, 1.7]
    x, y = np.log(steps), np.array(losses)
    slopes = [
        (y[j] - y[i]) / (x[j] - x[i]) for i in range(4) for j in range(4) if i < j
    ]
    slope = np.median(slopes)
    height = np.median(y - slope * x)
    squares = sum((b - slope * a - height) ** 2 for a, b in zip(x, y, strict=True))
    end, mean = math.log(1125), x.mean()
    away = (end - mean) ** 2 / sum((a - mean) ** 2 for a in x)
    found = converged(history(losses, steps), 0.0)
    assert found.loss == pytest.approx(height + slope * end)
    assert found.error == pytest.approx(math.sqrt(squares / 2 * (1 + 0.25 + away)))


def test_before_there_are_enough_checks_nothing_is_said():
    for count in range(FEWEST):
        found = converged(history([1.0] * count, STEPS[:count]), target=9.0)
        assert math.isnan(found.loss)
        assert found.error == math.inf
        assert not found.reached
    assert converged(history([1.0] * FEWEST, STEPS[:FEWEST]), target=9.0).reached


def test_only_the_latest_checks_count():
    """700 to 1,000 of 1,000, at least four; what was before was another regime."""
    losses = 5.0 - 0.4 * np.log(STEPS)
    whole = converged(history(losses), 1.0)
    other = np.where(STEPS < 700, 9.0, losses)
    assert converged(history(other), 1.0) == whole
    rare = slice(None, None, 6)  # 100, 400, 700, 1000
    assert converged(history(losses[rare], STEPS[rare]), 1.0).loss == pytest.approx(
        whole.loss
    )


def test_one_odd_check_moves_the_line_little_and_widens_the_error():
    losses = 5.0 - 0.4 * np.log(STEPS)
    whole = converged(history(losses), 1.0)
    losses[-3] -= 1.0  # by luck far below the target
    found = converged(history(losses), 1.5)
    assert found.loss == pytest.approx(whole.loss, abs=0.05)
    assert found.error > 0.3
    assert not found.reached


def test_noise_makes_the_error_that_is_claimed():
    """Of 2,000 histories with normal noise: the spread of prediction less truth."""
    rng = np.random.default_rng(0)
    steps = np.arange(700, 1001, 20)
    line = 5.0 - 0.4 * np.log(steps)
    truth, missed, errors = 5.0 - 0.4 * math.log(1125), [], []
    for _ in range(2000):
        noisy = line + 0.02 * rng.normal(size=len(steps))
        found = converged(history(noisy, steps), 0.0)
        missed.append(found.loss - truth - 0.02 * rng.normal())
        errors.append(found.error)
    assert np.mean(missed) == pytest.approx(0, abs=3e-3)
    assert np.std(missed) == pytest.approx(np.mean(errors), rel=0.15)
