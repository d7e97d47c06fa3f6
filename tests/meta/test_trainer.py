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
from uets_jax.meta.augment import AugmentConfig
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.trainer import meta_train
from uets_jax.meta.validate import compare

TASKS = Tasks(
    (quadratic(4, 4, 30.0, 40), quadratic(6, 1, 30.0, 40)),
    (quadratic(5, 3, 30.0, 40),),
)
FEW = Tasks(TASKS.train[:1], TASKS.valid)
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
def whole(toy, tmp_path_factory):
    """One unbroken run of 20 updates."""
    out = tmp_path_factory.mktemp("meta") / "whole"
    stream = io.StringIO()
    result = meta_train(toy.make, toy.start, TASKS, CONFIG, out, stream=stream)
    return result, out, stream.getvalue()


def test_twenty_updates_improve_a_toy_rule_on_quadratics(whole, toy):
    result, out, text = whole
    assert result.chosen == "best"
    assert result.confirm.mean < -0.1
    assert result.confirm.better
    assert float(result.theta["log_step"]) > 0.3
    rows = [json.loads(r) for r in (out / "meta.jsonl").read_text().splitlines()]
    assert [r["update"] for r in rows if "family" in r] == list(range(1, 21))
    assert {r["family"] for r in rows if "family" in r} == {f.name for f in TASKS.train}
    assert len(result.history) == 2
    assert "eta" in text
    stored = json.loads((out / "result.json").read_text())
    assert stored["chosen"] == "best"


def test_costs_are_counted(whole):
    result, _, _ = whole
    assert result.core_seconds > 0
    runs = (1 + 2 * 2) * 4 + 2 * 8  # validations and the last check
    assert result.inner_steps == 20 * 2 * 8 * 10 + runs * 40
    assert result.flops > 100 * result.inner_steps


def test_resumed_is_bit_identical_to_unbroken(whole, toy, tmp_path):
    result = whole[0]
    third = tmp_path / "third"
    clock = Stopper(9)
    with pytest.raises(KeyboardInterrupt):
        meta_train(
            toy.make, toy.start, TASKS, EAGER, third, stream=clock, now=clock.now
        )
    resumed = meta_train(toy.make, toy.start, TASKS, EAGER, third, stream=io.StringIO())
    chex.assert_trees_all_equal(resumed.theta, result.theta)
    chex.assert_trees_all_equal(resumed.last, result.last)
    assert resumed.history == result.history
    rows = (third / "meta.jsonl").read_text().splitlines()
    seen = [json.loads(r)["update"] for r in rows if "family" in r]
    assert seen == list(range(1, 21))


EAGER = dataclasses.replace(CONFIG, checkpoint_minutes=0.0)


class Stopper(io.StringIO):
    """A stream that ends the run when update n is told."""

    def __init__(self, n):
        super().__init__()
        self.mark = f"update {n}/"

    def now(self):
        return 0.0

    def write(self, text):
        if text.startswith(self.mark):
            raise KeyboardInterrupt
        return super().write(text)


def test_other_settings_are_refused(whole, toy):
    _, out, _ = whole
    config = dataclasses.replace(CONFIG, sigma=0.2)
    with pytest.raises(UserError, match=r"sigma was 0\.1"):
        meta_train(toy.make, toy.start, TASKS, config, out, stream=io.StringIO())


def test_a_theta_that_changes_nothing_falls_back_to_the_start(toy, tmp_path):
    """The rule ignores theta, so no theta is better by two errors."""
    make = lambda theta: toy.make(toy.start)
    config = dataclasses.replace(CONFIG, updates=2, validate=1)
    start = {"unused": jnp.zeros(3)}
    result = meta_train(make, start, FEW, config, tmp_path, stream=io.StringIO())
    assert result.chosen == "start"
    chex.assert_trees_all_equal(result.theta, start)
    assert result.confirm.mean == 0.0


def test_minutes_end_the_run(toy, tmp_path):
    ticks = iter(range(10**6))
    config = dataclasses.replace(CONFIG, updates=0, minutes=1.0, log_every=5)
    result = meta_train(
        toy.make,
        toy.start,
        FEW,
        config,
        tmp_path,
        stream=io.StringIO(),
        now=lambda: float(next(ticks)),
    )
    assert 2 <= result.updates < 60


@pytest.mark.parametrize("name", ["pes", "tbptt"])
def test_other_estimators_run(name, toy, tmp_path):
    config = dataclasses.replace(CONFIG, updates=2, estimator=name)
    result = meta_train(
        toy.make, toy.start, FEW, config, tmp_path, stream=io.StringIO()
    )
    assert np.isfinite(result.last["log_step"])


def test_eight_devices_learn_what_one_does(toy, tmp_path):
    mesh = jax.make_mesh((8,), ("pairs",), axis_types=(AxisType.Auto,))
    config = dataclasses.replace(CONFIG, updates=4)
    results = [
        meta_train(
            toy.make,
            toy.start,
            FEW,
            config,
            tmp_path / str(i),
            mesh=where,
            stream=io.StringIO(),
        )
        for i, where in enumerate((None, mesh))
    ]
    one, eight = (jax.tree.map(np.asarray, r.last) for r in results)
    chex.assert_trees_all_close(one, eight, rtol=1e-3, atol=1e-4)


def test_a_diverging_rule_is_the_worst_and_stays_finite(tmp_path):
    def make(theta):
        def update(updates, state, params=None, **extra):
            return jax.tree.map(lambda g: 1e9 * theta["a"] * g, updates), state

        return optax.GradientTransformationExtraArgs(lambda p: (), update)

    config = dataclasses.replace(CONFIG, updates=2, augment=AugmentConfig())
    start = {"a": jnp.ones(())}
    result = meta_train(make, start, FEW, config, tmp_path, stream=io.StringIO())
    assert result.chosen == "start"
    assert np.isfinite(result.last["a"])


def test_comparison_is_paired():
    rng = np.random.default_rng(0)
    against = rng.normal(size=(2, 50))
    scores = against - 0.1 + 0.01 * rng.normal(size=(2, 50))
    found = compare(scores, against, np.ones(2))
    assert abs(found.mean + 0.1) < 0.005
    assert 0.0005 < found.error < 0.002
    assert found.better
    wider = compare(scores, against, np.array([0.5, 0.5]))
    assert wider.mean == pytest.approx(2 * found.mean)
    most = compare(against - 100, against, np.ones(2))
    assert (most.mean, most.error) == (-1.0, 0.0)


def test_bad_input_is_named(toy, tmp_path):
    with pytest.raises(UserError, match="updates, minutes or both"):
        MetaConfig()
    with pytest.raises(UserError, match="choose from nres"):
        MetaConfig(updates=1, estimator="es")
    with pytest.raises(UserError, match="must be float32"):
        meta_train(toy.make, {"a": jnp.ones((), int)}, TASKS, CONFIG, tmp_path)
    twice = Tasks(TASKS.train, TASKS.train)
    with pytest.raises(UserError, match="each with its own name"):
        meta_train(toy.make, toy.start, twice, CONFIG, tmp_path)
