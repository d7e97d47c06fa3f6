import dataclasses

import pytest

from experiments import foundation
from uets_jax.train.session import open_session


@pytest.fixture(scope="module")
def config(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    return dataclasses.replace(tiny, data=data, model=model)


def test_both_ways_are_timed_per_step(config):
    row = foundation.overhead_row(open_session(config), 3)
    assert 0 < row["bare_step_seconds"] < 1
    assert 0 < row["loop_step_seconds"] < 1
    low, high = row["seconds_overhead_ci_low"], row["seconds_overhead_ci_high"]
    assert low <= row["seconds_overhead"] <= high


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--only", "gpu"], "no GPU here"),
        (["--only", "wikitext2", "--data-dir", "nowhere"], "--data-dir: nowhere"),
    ],
)
def test_what_a_table_needs_is_said_in_one_line(words, culprit, capsys, tmp_path):
    assert foundation.main([*words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert culprit in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_row_counts_training_flops_only():
    summary = {
        "params": 10,
        "tokens": 100,
        "flops": {"forward_backward": 5, "optimizer": 1, "probe": 1, "evaluation": 90},
        "seconds": {"train": 1.5, "eval": 9.0},
    }
    row = foundation.row_of("arm", summary)
    assert row["total_flops"] == 7
    assert row["train_seconds"] == 1.5
