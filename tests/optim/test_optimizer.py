import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uets_jax.optim
from uets_jax.config import OptimConfig
from uets_jax.errors import UserError
from uets_jax.optim.gate import GateSettings, init_theta
from uets_jax.optim.gated import gate_metrics
from uets_jax.optim.leaves import following
from uets_jax.optim.optimizer import learned_rule, minus_rate, settings_of
from uets_jax.optim.rules import rule
from uets_jax.optim.stored import load_theta, save_theta

learned = uets_jax.optim.learned
OWN = {
    "embed": jnp.ones((5, 4)),
    "dense": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)},
    "lm_head": jnp.ones((6, 5)),
}


@pytest.fixture
def own(draw):
    return draw(0, OWN)


def run(tx, params, draw, steps=3, **extra):
    state, update = tx.init(params), jax.jit(tx.update)
    for seed in range(steps):
        updates, state = update(draw(seed + 1, params), state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("weights", [None, ""])
def test_without_weights_it_is_muon_with_adamw(weights, own, draw):
    plain = {"embed": None, "dense": {"kernel": ((0,), (1,)), "bias": None}}
    config = OptimConfig(name="muon", learning_rate=0.1, weight_decay=0.2, clip=0.0)
    decayed = lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
    fixed = following(lambda p: {**plain, "lm_head": None})
    expected, _ = run(rule(config, fixed, decayed), own, draw)
    ours, state = run(learned(0.1, 0.2, weights), own, draw)
    chex.assert_trees_all_close(ours, expected, rtol=1e-6, atol=1e-6)
    described = learned(
        0.1, 0.2, weights, matrices=lambda p: {**plain, "lm_head": None}
    )
    chex.assert_trees_all_equal(run(described, own, draw)[0], ours)
    assert gate_metrics(state) == {}


def test_the_shipped_weights_work_in_a_chain(own, draw):
    tx = optax.chain(optax.clip_by_global_norm(1.0), learned(0.1))
    after, state = run(tx, own, draw, value=jnp.float32(2.0))
    chex.assert_tree_all_finite(after)
    assert float(gate_metrics(state)["gate_adam"]) > 0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a != b).any()), after, own))


def test_weights_are_a_path_or_a_theta(own, draw, tmp_path, key):
    s = GateSettings(rules=("adam", "muon"), cautious=True)
    theta, path = init_theta(key, s), tmp_path / "gate.npz"
    save_theta(path, theta, s)
    by_path, _ = run(learned(0.1, weights=str(path)), own, draw)
    given, _ = run(learned(0.1, weights=theta, settings=s), own, draw)
    chex.assert_trees_all_close(by_path, given, rtol=1e-6)
    with pytest.raises(UserError, match=r"nowhere.json: can't be read"):
        learned(0.1, weights=tmp_path / "nowhere.npz")
    with pytest.raises(UserError, match="weights: output: shape"):
        learned(0.1, weights=theta)


def test_a_schedule_an_argument_and_a_number_are_rates(own, draw):
    fixed, _ = run(learned(0.1), own, draw)
    scheduled, state = run(learned(lambda step: 0.1 + 0 * step), own, draw)
    chex.assert_trees_all_close(scheduled, fixed, rtol=1e-5)
    assert int(state.count) == 3
    given, _ = run(learned(9.0), own, draw, learning_rate=jnp.float32(0.1))
    chex.assert_trees_all_close(given, fixed, rtol=1e-5)
    injected = optax.inject_hyperparams(learned)(learning_rate=0.1)
    chex.assert_trees_all_close(run(injected, own, draw)[0], fixed, rtol=1e-5)
    falling, _ = run(learned(optax.linear_schedule(0.1, 0.0, 3)), own, draw)
    assert not np.allclose(falling["embed"], fixed["embed"])


def test_settings_can_be_changed_and_kernels_described(draw):
    params = draw(0, {"query": jnp.ones((4, 2, 3))})
    tx = learned(0.1, every=4, matrices=lambda p: {"query": ((0,), (1, 2))}, steps=10)
    _, state = run(tx, params, draw)
    assert "taken/gate" in gate_metrics(state)
    assert float(gate_metrics(state)["gate_muon"]) > 0.9
    with pytest.warns(UserWarning, match=r"\['query'\] .*give matrices="):
        _, state = run(learned(0.1), params, draw)
    assert float(gate_metrics(state)["gate_muon"]) == 0


def test_a_config_builds_it(small, about, draw):
    off = OptimConfig(name="learned", weights="", clip=0.5, learning_rate=0.1)
    muon = OptimConfig(name="muon", clip=0.5, learning_rate=0.1)
    expected, _ = run(rule(muon, about["matrices"], about["decayed"]), small, draw)
    ours, _ = run(learned_rule(off, **about), small, draw)
    chex.assert_trees_all_close(ours, expected, rtol=1e-6, atol=1e-6)
    on = OptimConfig(name="learned", gate_every=3, b2=0.99, learning_rate=0.1)
    _, state = run(learned_rule(on, **about), small, draw)
    assert "taken/gate" in gate_metrics(state)
    with pytest.raises(UserError, match=r"give 'default', .* not 'here'"):
        learned_rule(OptimConfig(name="learned", weights="here"), **about)
    with pytest.raises(UserError, match=r"here.bin: weights of a gate .* \.npz"):
        learned_rule(OptimConfig(name="learned", weights="here.bin"), **about)


def test_what_a_config_says_wins_over_a_file_and_its_defaults_do_not(tmp_path, key):
    s = GateSettings(b2=0.99, momentum=0.9, adam_ratio=7.0)
    save_theta(tmp_path / "gate.npz", init_theta(key, s), s)
    path = str(tmp_path / "gate.npz")
    config = OptimConfig(name="learned", weights=path, momentum=0.8, cautious=True)
    found = settings_of(config)
    assert (found.b2, found.momentum, found.adam_ratio) == (0.99, 0.8, 7.0)
    assert found.cautious
    with pytest.raises(UserError, match="bring their own"):
        learned(0.1, settings=GateSettings())


def test_one_knob_is_the_rate_of_the_rest_whatever_is_nominal(tmp_path, key):
    s = GateSettings(rules=("adam", "lion"), nominal="adamw")
    path = tmp_path / "gate.npz"
    save_theta(path, init_theta(key, s), s)
    config = OptimConfig(name="learned", weights=str(path), adam_ratio=8.0)
    assert settings_of(config).rest_ratio == 8.0
    plain = dataclasses.replace(config, adam_ratio=OptimConfig().adam_ratio)
    assert settings_of(plain).rest_ratio == 1.0


def test_cautious_decay_reaches_the_gate(small, about, draw):
    ends = []
    for cautious in (False, True):
        config = OptimConfig(name="learned", cautious=cautious, weight_decay=5.0)
        ends.append(run(learned_rule(config, **about), small, draw)[0])
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), *ends)
    assert changed == jax.tree.map(bool, about["decayed"](small))


def test_a_loss_that_is_no_scalar_is_named(own, draw):
    with pytest.raises(ValueError, match=r"value: give a scalar loss, not \(1,\)"):
        run(learned(0.1), own, draw, value=jnp.ones(1))


def test_without_weights_kernels_are_optax_muon(own, draw):
    """An independent reference for the orthogonalised half."""
    kernels = {"dense": {"kernel": own["dense"]["kernel"]}}
    ours, _ = run(learned(0.1, 0.0, None), kernels, draw)
    reference = optax.contrib.muon(
        0.1, beta=0.95, weight_decay=0.0, consistent_rms=0.2, ns_steps=5
    )
    expected, _ = run(reference, kernels, draw)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_the_rate_is_minus_and_traced(small):
    updates, _ = minus_rate(0.5).update({"a": jnp.ones(2)}, ())
    np.testing.assert_allclose(updates["a"], -0.5)
    updates, _ = minus_rate(0.5).update({"a": jnp.ones(2)}, (), learning_rate=2.0)
    np.testing.assert_allclose(updates["a"], -2.0)
    assert load_theta().settings.nominal == "muon"


def test_it_has_a_usual_rate_and_names_what_is_no_rate(own, draw):
    usual, _ = run(learned(), own, draw)
    given, _ = run(learned(0.02), own, draw)
    chex.assert_trees_all_equal(usual, given)
    with pytest.raises(UserError, match="learning_rate: give a number, not 'default'"):
        learned("default")
    with pytest.raises(UserError, match="weight_decay: give a number, not None"):
        learned(0.1, weight_decay=None)
