import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build
from uets_jax.config import replace_from_dict
from uets_jax.errors import NonFiniteLossError, StoppedError
from uets_jax.report.metrics import read_metrics
from uets_jax.step import train_step
from uets_jax.train import loop
from uets_jax.train.finished import open_run
from uets_jax.train.loop import train
from uets_jax.train.session import open_session


def poisoned(config, batch, value=np.nan):
    """Overrides: the loss of one row of the numbered batch is `value`."""
    row = int(open_session(config).windows.order(batch)[0])
    real = build(config).forward

    def forward(params, rows):
        losses, stats = real(params, rows)
        bad = jnp.where(rows.ids == row, jnp.float32(value), 1.0)
        return losses * bad[:, None], stats

    return {"forward": forward}


def events(out, name):
    return [r for r in read_metrics(out / "metrics.jsonl") if r.get("event") == name]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_skip_leaves_one_update_out_and_counts_it(value, config, tmp_path):
    lenient = replace_from_dict(config, {"train": {"on_bad_step": "skip"}})
    out = tmp_path / "run"
    result = train(lenient, out, overrides=poisoned(config, 2, value))
    assert result.summary["skipped_steps"] == 1
    assert result.summary["steps"] == 8
    finite = lambda x: bool(np.isfinite(np.asarray(x)).all())
    assert all(map(finite, jax.tree.leaves((result.state.params, result.state.opt))))
    (event,) = events(out, "skip")
    assert "step 3: loss is" in event["detail"]
    records = [r for r in read_metrics(out / "metrics.jsonl") if "loss" in r]
    assert [r["skipped"] for r in records] == [0, 0, 1, 0, 0, 0, 0, 0]
    assert records[2]["loss"] is None


def test_a_skipped_step_counts_for_the_data_but_not_for_the_optimizer(config, tmp_path):
    lenient = replace_from_dict(
        config, {"train": {"on_bad_step": "skip", "steps": 3, "eval_every": 0}}
    )
    bad = train(lenient, tmp_path / "bad", overrides=poisoned(config, 1)).state
    session = open_session(lenient)
    step = jax.jit(functools.partial(train_step, session.program))
    state = session.initial_state()
    state, _ = step(state, session.windows[0])
    state, _ = step(state._replace(step=state.step + 1), session.windows[2])
    assert int(bad.step) == int(state.step) == 3
    chex.assert_trees_all_close(bad.opt, state.opt, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(bad.params, state.params, rtol=1e-4, atol=1e-6)


def test_too_many_in_a_row_end_the_run(config, tmp_path):
    lenient = replace_from_dict(
        config, {"train": {"on_bad_step": "skip", "bad_steps": 3}}
    )
    nan_rate = {"schedule": lambda hypers, step: hypers.learning_rate * np.nan}
    with pytest.raises(NonFiniteLossError, match="at step 3, bad step 3 in a row"):
        train(lenient, tmp_path / "run", overrides=nan_rate)
    assert len(events(tmp_path / "run", "skip")) == 3


def test_abort_ends_at_the_first_and_keeps_the_checkpoint_before(config, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 6"):
        train(config, out, overrides=poisoned(config, 5))
    overrides = poisoned(config, 5)
    assert open_run(out, overrides).record["step"] == 4


def test_parameters_that_overflow_in_the_last_update_are_not_saved(config, tmp_path):
    """The loss of the step itself is fine; only its update is not."""
    often = replace_from_dict(
        config, {"train": {"checkpoint_every": 1, "eval_every": 0}}
    )
    last = {
        "schedule": lambda hypers, step: jnp.where(
            step == 2, jnp.nan, hypers.learning_rate
        )
    }
    with pytest.raises(
        NonFiniteLossError, match="parameter is not finite after step 3"
    ):
        train(often, tmp_path / "run", overrides=last)
    assert open_run(tmp_path / "run", last).record["step"] == 2


def test_a_spike_is_skipped_too(config, tmp_path):
    guarded = replace_from_dict(
        config,
        {"train": {"on_bad_step": "skip", "spike": 6.0, "steps": 30, "eval_every": 0}},
    )
    result = train(guarded, tmp_path / "run", overrides=poisoned(config, 25, 1e4))
    assert result.summary["skipped_steps"] == 1
    (event,) = events(tmp_path / "run", "skip")
    assert "is a spike" in event["detail"]


def test_a_spike_ends_the_run_under_abort(config, tmp_path):
    strict = replace_from_dict(
        config, {"train": {"spike": 6.0, "steps": 30, "eval_every": 0}}
    )
    with pytest.raises(NonFiniteLossError, match="is a spike"):
        train(strict, tmp_path / "run", overrides=poisoned(config, 25, 1e4))


@pytest.mark.parametrize("batch", [0, 7])
def test_a_bad_first_or_last_step_is_left_out_like_any_other(batch, config, tmp_path):
    lenient = replace_from_dict(config, {"train": {"on_bad_step": "skip"}})
    out, overrides = tmp_path / "run", poisoned(config, batch)
    summary = train(lenient, out, overrides=overrides).summary
    assert summary["skipped_steps"] == 1
    assert np.isfinite(summary["final_train_loss"])
    again = train(lenient, out, resume=True, overrides=overrides).summary
    assert again["params_sha256"] == summary["params_sha256"]


def test_a_resume_after_a_skip_is_bit_identical(config, tmp_path, monkeypatch):
    lenient = replace_from_dict(config, {"train": {"on_bad_step": "skip"}})
    overrides = poisoned(config, 2)
    whole = train(lenient, tmp_path / "whole", overrides=overrides).summary

    def stop(run):
        run.stop = "SIGTERM" if run.at.step == 5 else None
        return run.stop is not None

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_asked_to_stop", stop)
        with pytest.raises(StoppedError):
            train(lenient, tmp_path / "run", overrides=overrides)
    again = train(lenient, tmp_path / "run", resume=True, overrides=overrides).summary
    for key in ("params_sha256", "data_sha256", "flops", "skipped_steps", "tokens"):
        assert again[key] == whole[key], key
    assert len(again["phases"]) == 2
