import json

import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build
from uets_jax.config import replace_from_dict
from uets_jax.data.windows import chain_ids
from uets_jax.errors import NonFiniteLossError, StoppedError
from uets_jax.report.metrics import read_metrics
from uets_jax.train import loop
from uets_jax.train.loop import train
from uets_jax.train.session import open_session


@pytest.fixture(scope="module")
def config(config):
    """With checkpoints to go back to at every other step."""
    train = {"on_bad_step": "rollback", "checkpoint_every": 2}
    return replace_from_dict(config, {"train": train})


@pytest.fixture(scope="module")
def poison(config):
    """Overrides: batch 4, that of step 5, gives NaN."""
    row = int(open_session(config).windows.order(4)[0])
    real = build(config).forward

    def forward(params, rows):
        losses, stats = real(params, rows)
        bad = jnp.where(rows.ids == row, jnp.nan, 1.0)
        return losses * bad[:, None], stats

    return {"forward": forward}


@pytest.fixture(scope="module")
def rolled(config, poison, tmp_path_factory):
    out = tmp_path_factory.mktemp("rolled") / "run"
    return train(config, out, overrides=poison), out


def test_a_run_goes_back_and_passes_over_the_data(rolled, config):
    result, out = rolled
    assert result.summary["rollbacks"] == 1
    assert result.summary["steps"] == 8
    windows, chain = open_session(config).windows, ""
    for number in (0, 1, 2, 3, 5, 6, 7, 8):  # back to step 4, batch 4 is passed over
        chain = chain_ids(chain, windows.order(number))
    assert result.summary["data_sha256"] == chain
    records = read_metrics(out / "metrics.jsonl")
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 9))
    assert all(np.isfinite(r["loss"]) for r in records if "loss" in r)
    (event,) = (r for r in records if r.get("event") == "rollback")
    text = "loss is nan at step 5: back to step 4, 1 batches passed over"
    assert event["detail"] == text


def test_what_was_lost_stays_in_the_ledger(rolled):
    result, out = rolled
    spent = [r["flops"] for r in read_metrics(out / "metrics.jsonl") if "loss" in r]
    steps = np.diff([0, *spent]) / spent[0]
    assert steps.tolist() == [1, 1, 1, 1, 3, 1, 1, 1]  # 5 and, under way, 6 are lost
    assert spent[-1] == 10 * spent[0]
    assert result.summary["flops"]["forward_backward"] % 10 == 0
    assert result.summary["tokens"] == 10 * 8 * 32


def test_a_stop_after_a_rollback_resumes_bit_identical(
    rolled, config, poison, tmp_path, monkeypatch
):
    whole, out = rolled[0].summary, tmp_path / "run"
    real = loop._asked_to_stop

    def stop(run):
        if run.at.step == 7:
            run.stop = "SIGTERM"
        return real(run)

    monkeypatch.setattr(loop, "_asked_to_stop", stop)
    with pytest.raises(StoppedError, match="at step 7"):
        train(config, out, overrides=poison)
    monkeypatch.undo()
    record = json.loads((out / "checkpoints/00000007/record.json").read_text())
    assert record["next_batch"] == 8
    again = train(config, out, resume=True, overrides=poison).summary
    for key in ("params_sha256", "data_sha256", "flops", "rollbacks", "tokens"):
        assert again[key] == whole[key], key


def test_without_a_checkpoint_the_run_starts_again_past_the_data(
    config, poison, tmp_path
):
    rare = replace_from_dict(
        config, {"train": {"checkpoint_every": 0, "eval_every": 0}}
    )
    result = train(rare, tmp_path / "run", overrides=poison)
    windows, chain = open_session(config).windows, ""
    for number in range(5, 13):
        chain = chain_ids(chain, windows.order(number))
    assert result.summary["data_sha256"] == chain
    assert result.summary["rollbacks"] == 1


def test_a_run_that_only_goes_back_ends(config, tmp_path):
    stubborn = replace_from_dict(config, {"train": {"bad_steps": 2}})
    nan_rate = {"schedule": lambda hypers, step: hypers.learning_rate * jnp.nan}
    with pytest.raises(NonFiniteLossError, match="at step 1, after 2 rollbacks"):
        train(stubborn, tmp_path / "run", overrides=nan_rate)
