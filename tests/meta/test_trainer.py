"""Meta-training: it improves a toy rule, resumes bit for bit, falls back, counts."""

import dataclasses
import io
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from uets_jax.errors import UserError
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.trainer import meta_train, start_digest

CONFIG = MetaConfig(
    updates=20,
    episodes=8,
    window=10,
    sigma=0.1,
    rate=0.2,
    last_rate=0.05,
    validate=10,
    seeds=4,
    reference=4,
    log_every=1,
)


@pytest.fixture(scope="module")
def tasks(bowl):
    return Tasks((bowl("four"), bowl("six", 6)), (bowl("five", 5),))


@pytest.fixture(scope="module")
def few(tasks):
    return Tasks(tasks.train[:1], tasks.valid)


@pytest.fixture(scope="module")
def whole(toy, tasks, tmp_path_factory):
    """One unbroken run of 20 updates."""
    out = tmp_path_factory.mktemp("meta") / "whole"
    stream = io.StringIO()
    result = meta_train(toy.make, toy.start, tasks, CONFIG, out, stream=stream)
    return result, out, stream.getvalue()


def test_twenty_updates_improve_a_toy_rule_on_quadratics(whole, tasks):
    result, out, text = whole
    assert result.chosen == "best"
    assert result.confirm.mean < -0.1
    assert result.confirm.better
    assert float(result.theta["log_step"]) > 0.3
    rows = [json.loads(r) for r in (out / "meta.jsonl").read_text().splitlines()]
    assert [r["update"] for r in rows if "family" in r] == list(range(1, 21))
    assert {r["family"] for r in rows if "family" in r} == {f.name for f in tasks.train}
    assert len(result.history) == 2
    assert "eta" in text
    stored = json.loads((out / "result.json").read_text())
    assert stored["chosen"] == "best"


def test_costs_are_counted(whole):
    result, _, _ = whole
    assert result.core_seconds > 0
    runs = (1 + 2 * 2) * 4 + 2 * 8  # validations and the last check
    assert result.inner_steps == 20 * 2 * 8 * 10 + runs * 20
    assert result.flops > 10 * result.inner_steps


def test_resumed_is_bit_identical_to_unbroken(whole, toy, tasks, tmp_path):
    result, third = whole[0], tmp_path / "third"
    stop = Stopper(9)
    with pytest.raises(KeyboardInterrupt):
        meta_train(toy.make, toy.start, tasks, CONFIG, third, stream=stop, now=stop.now)
    again = io.StringIO()
    resumed = meta_train(toy.make, toy.start, tasks, CONFIG, third, stream=again)
    assert "goes on after update 8\n" in again.getvalue()
    chex.assert_trees_all_equal(resumed.theta, result.theta)
    chex.assert_trees_all_equal(resumed.last, result.last)
    assert resumed.history == result.history
    rows = (third / "meta.jsonl").read_text().splitlines()
    seen = [json.loads(r)["update"] for r in rows if "family" in r]
    assert seen == list(range(1, 21))


class Stopper(io.StringIO):
    """A stream that ends the run when update n is told; a checkpoint is due before."""

    def __init__(self, n):
        super().__init__()
        self.mark, self.before = f"update {n}/", f"update {n - 1}/"
        self.time = 0.0

    def now(self):
        return self.time

    def write(self, text):
        if text.startswith(self.before):
            self.time = 60 * CONFIG.checkpoint_minutes
        if text.startswith(self.mark):
            raise KeyboardInterrupt
        return super().write(text)


def test_other_settings_are_refused(whole, toy, tasks):
    _, out, _ = whole
    config = dataclasses.replace(CONFIG, sigma=0.2)
    with pytest.raises(UserError, match=r"sigma was 0\.1"):
        meta_train(toy.make, toy.start, tasks, config, out, stream=io.StringIO())


def test_another_first_theta_is_another_run(whole, toy, tasks):
    _, out, _ = whole
    other = jax.tree.map(lambda x: x + 1, toy.start)
    halves = {"a": jnp.zeros(2)}, {"a": np.array([True, False])}
    assert start_digest(*halves) != start_digest(halves[0])
    with pytest.raises(UserError, match="start was"):
        meta_train(toy.make, other, tasks, CONFIG, out, stream=io.StringIO())


def test_a_finished_run_costs_nothing_more(whole, toy, tasks):
    result, out, _ = whole
    said = io.StringIO()
    again = meta_train(toy.make, toy.start, tasks, CONFIG, out, stream=said)
    assert "already finished" in said.getvalue()
    chex.assert_trees_all_equal(again.theta, result.theta)
    chex.assert_trees_all_equal(again.last, result.last)
    same = ("chosen", "confirm", "seconds", "core_seconds", "flops", "inner_steps")
    for name in same:
        assert getattr(again, name) == getattr(result, name), name


def test_a_theta_that_changes_nothing_falls_back_to_the_start(toy, few, tmp_path):
    """The rule ignores theta, so no theta is better by two errors; by tbptt."""
    make = lambda theta: toy.make(toy.start)
    config = dataclasses.replace(CONFIG, updates=2, validate=1, estimator="tbptt")
    start = {"unused": jnp.zeros(3)}
    result = meta_train(make, start, few, config, tmp_path, stream=io.StringIO())
    assert result.chosen == "start"
    chex.assert_trees_all_equal(result.theta, start)
    assert result.confirm.mean == 0.0
    assert result.inner_steps == 2 * 8 * 10 + ((1 + 2 * 2) * 4 + 2 * 8) * 20


def test_minutes_end_the_run(toy, few, tmp_path):
    """By pes; a look at the clock takes a second."""
    ticks = iter(range(10**6))
    config = dataclasses.replace(
        CONFIG, updates=0, minutes=1.0, log_every=5, estimator="pes"
    )
    result = meta_train(
        toy.make,
        toy.start,
        few,
        config,
        tmp_path,
        stream=io.StringIO(),
        now=lambda: float(next(ticks)),
    )
    assert 2 <= result.updates < 60
    assert np.isfinite(result.last["log_step"])
    assert float(result.last["log_step"]) != 0


def test_eight_devices_learn_what_one_does(toy, few, tmp_path):
    mesh = jax.make_mesh((8,), ("pairs",), axis_types=(AxisType.Auto,))
    config = dataclasses.replace(CONFIG, updates=4)
    results = [
        meta_train(
            toy.make,
            toy.start,
            few,
            config,
            tmp_path / str(i),
            mesh=where,
            stream=io.StringIO(),
        )
        for i, where in enumerate((None, mesh))
    ]
    one, eight = (jax.tree.map(np.asarray, r.last) for r in results)
    chex.assert_trees_all_close(one, eight, rtol=1e-3, atol=1e-4)


def test_a_diverging_rule_is_the_worst_and_stays_finite(few, tmp_path):
    def make(theta):
        def update(updates, state, params=None, **extra):
            return jax.tree.map(lambda g: 1e9 * theta["a"] * g, updates), state

        return optax.GradientTransformationExtraArgs(lambda p: (), update)

    config = dataclasses.replace(CONFIG, updates=2)
    start = {"a": jnp.ones(())}
    result = meta_train(make, start, few, config, tmp_path, stream=io.StringIO())
    assert result.chosen == "start"
    assert np.isfinite(result.last["a"])


def test_bad_input_is_named(toy, tasks, tmp_path):
    go = lambda theta, tasks: meta_train(toy.make, theta, tasks, CONFIG, tmp_path)
    with pytest.raises(UserError, match=r"theta\['a'\]: must be float32"):
        go({"a": jnp.ones((), int)}, tasks)
    with pytest.raises(UserError, match=r"theta\['a'\]: must be finite"):
        go({"a": jnp.asarray(jnp.nan)}, tasks)
    with pytest.raises(UserError, match="nothing to learn"):
        go({}, tasks)
    with pytest.raises(UserError, match="each with its own name"):
        go(toy.start, Tasks(tasks.train, tasks.train))
