"""Figures out of metrics and summaries, whatever these hold."""

import math
from pathlib import Path

import pytest

from uets_jax.report.figures import figure, last, pairs, parts
from uets_jax.report.run import Run


def run(records=(), **summary) -> Run:
    return Run("a", Path("a"), {}, summary, list(records), [])


def test_pairs_are_of_records_that_have_both():
    records = [
        {"step": 1, "loss": 2},
        {"step": 2},
        {"step": 3, "loss": math.nan},
        {"step": 4, "loss": None},
        {"step": 5, "loss": True},
        {"step": 6, "loss": 1e101},
        {"step": 7, "loss": 1.5, "event": "growth"},
        {"step": 8, "loss": 1e-300},
    ]
    assert pairs(run(records), "step", "loss") == [(1.0, 2.0), (8.0, 0.0)]


def test_the_last_value_is_a_steps_and_finite():
    records = [{"flops": 1}, {"flops": 2}, {"flops": None}, {"event": "x", "flops": 9}]
    assert last(run(records), "flops") == 2.0
    assert last(run(records), "tokens") is None


def test_parts_are_numbers_without_their_total():
    spent = {"a": 1, "b": None, "c": "x", "total": 9}
    assert parts(run(flops=spent), "flops") == {"a": 1.0}
    assert parts(run(flops=7), "flops") == {}


@pytest.mark.parametrize("name", ["evaluation", "eval", "validation"])
def test_training_flops_are_the_metrics_or_all_but_evaluation(name):
    spent = {"forward_backward": 6, "scoring": 2, name: 1}
    assert figure(run(flops=spent), "train_flops") == 8.0
    assert figure(run([{"flops": 5}], flops=spent), "train_flops") == 5.0
    assert figure(run(flops=spent), "flops") == 9.0
    assert figure(run(), "train_flops") is None


def test_training_seconds_are_steps_and_waits_for_data():
    spent = {"train": 6.0, "data": 1.0, "compile": 4.0}
    assert figure(run(seconds=spent), "train_seconds") == 7.0
    assert figure(run(seconds={"compile": 4.0}), "train_seconds") is None
    assert figure(run(seconds=spent), "time") == 11.0
    assert figure(run([{"seconds": 3.0}]), "time") == 3.0


def test_a_figure_without_a_summary_is_the_last_metric():
    records = [{"step": 4, "valid_loss": 2.0}, {"step": 5, "tokens": 7}]
    shown = {
        key: figure(run(records), key) for key in ("steps", "final_loss", "tokens")
    }
    assert shown == {"steps": 5.0, "final_loss": 2.0, "tokens": 7.0}
    assert figure(run(records, tokens=9), "tokens") == 9.0
