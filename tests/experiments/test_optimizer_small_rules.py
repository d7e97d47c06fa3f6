import json
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import optimizer_small_rules
from experiments.optimizer_small import families
from experiments.optimizer_small_rules import (
    RECIPES,
    Arm,
    first_lstm,
    first_mlp,
    hand_written,
    learned,
    make_lstm,
    make_mlp,
    shipped,
    tasks,
    waiting,
)
from uets_jax.meta.family import Family, Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.optim.mlp import direction


def test_what_is_reported_is_not_what_is_learned_on():
    on = tasks()
    names = {family.name for family in (*on.train, *on.valid)}
    assert not names & {family.name for family in families()}


def test_seen_is_itself_its_kind_or_neither():
    arm = Arm("x", make_mlp, families=("quadratic-12x12", "mlp-16-relu/shapes"))
    assert arm.seen("quadratic-12x12") == "yes"
    assert arm.seen("quadratic-8x16") == arm.seen("mlp-32-relu/digits") == "kind"
    assert arm.seen("conv-8-16-gelu/shapes") == arm.seen("sine") == "no"
    gate = shipped()
    seen = [gate.seen(family.name) for family in families()]
    assert seen == ["yes", "yes", "yes", "kind", "kind", "no"]
    assert gate.core_seconds > 0
    for own in hand_written():
        assert (own.seen("sine"), own.core_seconds) == (None, 0.0)


@pytest.mark.parametrize("sizes", [(3, 5), (1, 4)])
def test_the_first_direction_is_close_to_that_of_adam(sizes):
    """Before Newton-Schulz and normalisation it is m / sqrt(v), and a little more."""
    drawn = np.random.default_rng(0).normal(size=(6, 1, 1, *sizes))
    g, p, nu, *moments = map(jnp.asarray, drawn.astype(np.float32))
    nu = nu * nu + 0.1
    u = np.ravel(direction(first_mlp(jax.random.key(0)), g, p, moments, nu))
    adam = np.ravel(moments[0] / jnp.sqrt(nu))
    assert u @ adam > 0.8 * np.linalg.norm(u) * np.linalg.norm(adam)


@pytest.mark.parametrize("seed", range(2))
def test_the_first_lstm_descends_a_steady_gradient(seed):
    rule = make_lstm(first_lstm(jax.random.key(seed)))
    params = jnp.zeros(2)
    g, state = jnp.array([0.01, -0.01]), rule.init(params)
    for _ in range(5):
        u, state = rule.update(g, state, params, learning_rate=jnp.asarray(0.1))
    assert float(u[0] - u[1]) < 0


def test_a_gradient_is_a_constant_to_the_weights_of_the_lstm():
    theta = first_lstm(jax.random.key(0))

    def second(scale):
        rule = make_lstm(theta)
        g = scale * jnp.ones(1)
        return rule.update(g, rule.init(g), g, learning_rate=jnp.ones(()))[0][0]

    assert float(jax.grad(second)(0.1)) == 0.0
    assert float(second(0.1)) != float(second(-0.1))


def test_the_rule_that_waits_is_adam_in_the_second_half():
    rule, adam = waiting(()), optax.adam(0.1)
    params = jnp.ones(2)
    state, other = rule.init(params), adam.init(params)
    for progress in (0.0, 0.49, 0.5):
        g = jnp.array([1.0, -2.0]) + progress
        extra = {"progress": jnp.asarray(progress), "learning_rate": jnp.asarray(0.1)}
        u, state = rule.update(g, state, params, **extra)
        wanted, other = adam.update(g, other)
        np.testing.assert_allclose(u, wanted if progress == 0.5 else 0.0, rtol=1e-6)


def bowl(name, size):
    """|w - c|^2 / 2 in a column, without noise."""

    def held(params, c):
        return 1e-3 + 0.5 * jnp.square(params["w"] - c).sum()

    return Family(
        name,
        lambda key: jax.random.normal(key, (size, 1)),
        lambda c, key: {"w": jnp.zeros((size, 1))},
        lambda params, c, key, rows: held(params, c),
        held,
        batch=1,
        horizon=10,
    )


def test_the_lstm_is_learned_and_goes_on(monkeypatch, tmp_path):
    small = {**RECIPES["lstm"].settings, "window": 5, "episodes": 2}
    monkeypatch.setitem(RECIPES, "lstm", RECIPES["lstm"]._replace(settings=small))
    on = Tasks((bowl("bowl-2", 2),), (bowl("bowl-3", 3),))
    config = MetaConfig(updates=2, validate=2, seeds=2, reference=2, log_every=1)
    arm = learned("lstm", config, on, tmp_path)
    assert (arm.name, arm.families) == ("lstm", ("bowl-2",))
    assert arm.core_seconds > 0
    rows = [json.loads(r) for r in (tmp_path / "meta.jsonl").read_text().splitlines()]
    updates = [r for r in rows if "family" in r]
    assert len(updates) == 2
    # no value is clipped: there is a slope, and 1 is the whole fall of Adam
    assert all(r["norm"] > 0 and abs(r["value"]) < 0.5 for r in updates)
    again = learned("lstm", config, on, tmp_path)
    assert len((tmp_path / "meta.jsonl").read_text().splitlines()) == len(rows)
    chex.assert_trees_all_equal(again.theta, arm.theta)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_is_trained(name, monkeypatch, tmp_path):
    def meta_train(make, theta, on, config, folder, nominal):
        told.update(config=config, nominal=nominal, theta=theta)
        return SimpleNamespace(theta="learned", core_seconds=7.0)

    told = {}
    monkeypatch.setattr(optimizer_small_rules, "meta_train", meta_train)
    on = Tasks((bowl("bowl-2", 2),), (bowl("bowl-3", 3),))
    arm = learned(name, MetaConfig(minutes=3.0, seed=1), on, tmp_path)
    assert (arm.theta, arm.families, arm.core_seconds) == ("learned", ("bowl-2",), 7.0)
    estimators = {"mlp": "nres", "lstm": "tbptt"}
    assert told["config"].estimator == estimators[name]
    assert (told["config"].minutes, told["config"].seed) == (3.0, 1)
    assert told["nominal"] == {"mlp": None, "lstm": (waiting, ())}[name]
    wanted = RECIPES[name].first(jax.random.key(1))
    chex.assert_trees_all_equal(told["theta"], wanted)
