import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.models.axes import names
from uets_jax.optim.features import no_losses
from uets_jax.optim.gate import GateSettings
from uets_jax.optim.gated_state import fresh, known, split, stacked
from uets_jax.optim.leaves import describe

S = GateSettings(every=3)


def test_every_leaf_has_a_row_per_layer_or_the_shape_of_its_parameter(small, about):
    state = fresh(small, describe(small, **about), S)
    shapes = {"/".join(names(p)): x.shape for p, x in jax.tree.leaves_with_path(state)}
    for moment in ("mu", "nu", "last"):
        assert shapes[f"{moment}/blocks/mlp/up/w"] == (2, 4, 5)
    for mass in ("first", "second", "start"):
        assert shapes[f"{mass}/blocks/mlp/up/w"] == (2,)
        assert shapes[f"{mass}/embed/table"] == ()
    assert shapes["hidden/blocks/mlp_norm/scale"] == (2, 8)
    assert shapes["hidden/head/w"] == (8,)
    assert shapes["held/head/w"] == (S.outputs,)
    assert state.last["head"]["w"].dtype == jnp.bfloat16
    assert fresh(small, describe(small, **about), GateSettings()).held == ()


def test_rows_of_all_units_come_and_go(small, about):
    leaves = describe(small, **about)
    state = fresh(small, leaves, S)
    x = jnp.arange(8 * 8.0).reshape(8, 8)
    parts = split(leaves, x)
    assert [len(p) for p in parts] == [leaf.layers for leaf in leaves]
    whole = [leaf.whole(p) for leaf, p in zip(leaves, parts, strict=True)]
    tree = jax.tree.unflatten(jax.tree.structure(small), whole)
    np.testing.assert_array_equal(stacked(leaves, state, tree), x)


def test_what_is_not_given_is_neutral(small, about):
    state = fresh(small, describe(small, **about), S)
    after, common = known(state, None, None, None, None)
    assert after is state
    assert not common.any()
    state = state._replace(count=jnp.asarray(5))
    _, one = known(state, None, jnp.float32(0.5), None, None)
    _, two = known(state, None, None, 10, None)
    np.testing.assert_array_equal(one, two)


def test_the_rate_is_seen_as_a_share_of_its_peak(small, about):
    state = fresh(small, describe(small, **about), S)
    state, first = known(state, None, None, None, jnp.float32(0.02))
    state, low = known(state, None, None, None, 0.002)
    assert float(first[-1]) == 0
    np.testing.assert_allclose(low[-1], np.log(0.1) / 5, rtol=1e-5)
    seen, _ = known(state, jnp.float32(3.0), None, None, None)
    assert int(seen.losses.seen) == int(no_losses().seen) + 1
