import math

import pytest

from uets_jax.errors import UserError
from uets_jax.measure import efficiency
from uets_jax.measure.ahead import Baseline, Curve, Setting
from uets_jax.measure.converged import Prediction
from uets_jax.measure.efficiency import EfficiencyMonitor

SETTING = Setting("corpus", "tokenizer", "cpu-2", 128, 0, 0.0, True)
TRAIN = Curve((4.0, 2.0), (1e9, 1e10), (10.0, 100.0), (1.0, 2.0), None)
VALID = Curve((3.0, 1.0), (1e9, 1e11), (10.0, 100.0), (1.0, 2.0), None)
BASELINE = Baseline("b2m", SETTING, 500, TRAIN, VALID)


def step(number, loss, rate=0.02, **more):
    costs = {"tokens": 10 * number, "flops": 1e9 * number, "seconds": 0.5 * number}
    return {"step": number, "loss": loss, "learning_rate": rate, **costs, **more}


def test_a_step_says_how_far_ahead_it_is():
    monitor = EfficiencyMonitor(BASELINE)
    found = monitor.observe(step(1, 2.0), peak_bytes=1000)
    assert found == pytest.approx(
        {
            "ahead_flops": 10.0,
            "ahead_tokens": 10.0,
            "ahead_seconds": 4.0,
            "ahead_bytes": 0.5,
            "ahead_decays": 0.0,
        }
    )
    assert monitor.line() == "10x ahead of b2m, undecayed (time 4x, bytes 0.5x)"


def test_a_bound_has_another_name_and_a_sign():
    monitor = EfficiencyMonitor(BASELINE)
    assert "ahead_flops_above" in monitor.observe(step(1, 1.9))
    assert monitor.line().startswith(">10x ahead of b2m")
    assert "ahead_flops_below" in EfficiencyMonitor(BASELINE).observe(step(1, 4.5))


def test_a_validation_is_compared_with_validations():
    monitor = EfficiencyMonitor(BASELINE)
    record = {"step": 1, "bits_per_byte": 1.0, "tokens": 10, "flops": 1e10}
    assert monitor.observe(record)["ahead_flops"] == pytest.approx(10.0)
    assert monitor.history == [(1, 1.0)]


def test_the_own_decay_is_told():
    monitor = EfficiencyMonitor(BASELINE)
    assert monitor.observe(step(1, 3.0, rate=0.01))["ahead_decays"] == 0
    assert monitor.observe(step(2, 3.0))["ahead_decays"] == 0
    assert monitor.observe(step(3, 3.0, rate=0.019))["ahead_decays"] == 1
    assert "this run decays" in monitor.line()


def test_without_a_baseline_there_is_nothing_to_say():
    monitor = EfficiencyMonitor()
    assert monitor.observe(step(1, 3.0)) == {}
    assert monitor.line() == ""


@pytest.mark.parametrize("record", [step(2, None), step(2, 9.0, skipped=1.0)])
def test_a_bad_step_changes_nothing(record):
    monitor = EfficiencyMonitor(BASELINE)
    monitor.observe(step(1, 2.0))
    before = monitor.line()
    assert monitor.observe(record) == {}
    assert monitor.line() == before


def test_a_loss_that_stands_still_is_a_bottleneck_and_growth_asks_anew():
    monitor = EfficiencyMonitor()
    assert not monitor.bottleneck_detected()
    for number in range(1, 30):
        monitor.observe(step(number, 3.0))
    assert monitor.bottleneck_detected()
    assert float(monitor.slope().slope) == pytest.approx(0.0, abs=1e-6)
    monitor.observe({"step": 29, "event": "growth"})
    assert not monitor.bottleneck_detected()
    falls = EfficiencyMonitor()
    for number in range(1, 30):
        falls.observe(step(number, 9.0 / number))
    assert not falls.bottleneck_detected()


def test_without_a_threshold_there_is_no_question():
    with pytest.raises(UserError, match="threshold"):
        EfficiencyMonitor(threshold=None).bottleneck_detected()


def test_convergence_is_asked_of_validations_at_full_rate(monkeypatch):
    asked = []

    def predicted(history, target, cooldown):
        asked.append((list(history), target, cooldown))
        return Prediction(1.4, 0.01, True)

    monkeypatch.setattr(efficiency, "predicted", predicted)
    monitor = EfficiencyMonitor()
    valid = lambda n: {"step": n, "bits_per_byte": 3.0 - n, "tokens": n, "flops": n}
    monitor.observe(valid(1))
    monitor.observe({"step": 1, "event": "growth"})
    monitor.observe(step(2, 3.0))
    monitor.observe(valid(2))
    monitor.observe(step(3, 3.0, rate=0.01))
    monitor.observe(valid(3))  # of a rate that decays
    assert monitor.converged(1.5).reached
    assert asked == [([(2, 1.0)], 1.5, 0.25)]


def test_a_straight_line_to_the_target_has_converged():
    monitor = EfficiencyMonitor()
    for number in range(1, 9):
        loss = 2.0 - 0.1 * math.log(number)
        monitor.observe({"step": number, "bits_per_byte": loss, "flops": number})
    assert monitor.converged(2.0).reached
    assert not monitor.converged(1.5).reached
