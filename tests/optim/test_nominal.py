import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from uets_jax.config import OptimConfig
from uets_jax.optim.gate import GateSettings
from uets_jax.optim.nominal import nominal_rule, pulled
from uets_jax.optim.rules import rule


def run(tx, params, draw, **extra):
    state = tx.init(params)
    for seed in range(3):
        updates, state = tx.update(draw(seed + 1, params), state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("nominal", ["muon", "adamw"])
def test_it_is_the_rule_of_that_name(nominal, small, about, draw):
    parts = {k: about[k] for k in ("matrices", "decayed")}
    config = OptimConfig(name=nominal, learning_rate=0.1, weight_decay=0.3, clip=0.0)
    own = nominal_rule(GateSettings(nominal=nominal), **parts, weight_decay=0.3)
    ours = run(optax.chain(own, optax.scale(-0.1)), small, draw)
    chex.assert_trees_all_close(
        ours, run(rule(config, **parts), small, draw), rtol=1e-6
    )


def test_a_tree_of_anybody_is_read_by_its_paths(draw):
    params = draw(
        0, {"embed": jnp.ones((5, 4)), "w": jnp.ones((4, 6)), "b": jnp.ones(6)}
    )
    after = run(nominal_rule(GateSettings(), weight_decay=0.1), params, draw)
    adam = run(
        nominal_rule(GateSettings(nominal="adamw", adam_ratio=1.0)), params, draw
    )
    changed = jax.tree.map(lambda a, b: bool(jnp.abs(a - b).max() > 0.1), after, adam)
    assert changed["w"]


def test_decay_is_traced_and_can_be_cautious(small, about, draw):
    tx = nominal_rule(GateSettings(), about["matrices"], about["decayed"])
    zero = jnp.zeros(())
    ours = run(tx, small, draw, weight_decay=zero, learning_rate=zero)
    chex.assert_trees_all_equal(ours, run(tx, small, draw))
    u, p = jnp.asarray([1.0, -1.0]), jnp.asarray([2.0, 2.0])
    assert pulled(u, p, jnp.float32(0.5), True).tolist() == [1.0, 0.0]
    assert pulled(u, p, jnp.float32(0.5), False).tolist() == [1.0, 1.0]


def test_update_needs_params(small, draw):
    tx = nominal_rule(GateSettings())
    with pytest.raises(ValueError, match="params"):
        tx.update(small, tx.init(small))
