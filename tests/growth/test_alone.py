import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from uets_jax.errors import UserError
from uets_jax.growth.alone import grown
from uets_jax.growth.operators import by_path, came_from
from uets_jax.growth.plan import moves
from uets_jax.growth.stages import Op
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

MODEL = model_config("modern", "tiny", vocab=64)
SMALLER = model_config("modern", "tiny", vocab=32)


@pytest.fixture(scope="module")
def trained(batch):
    """Parameters and Adam's state after two steps of a plain optax loop."""
    model, tx = make_model(MODEL), optax.adam(1e-2)
    params = jax.jit(model.init)(jax.random.key(0))
    opt = jax.jit(tx.init)(params)

    @jax.jit
    def step(params, opt):
        grads = jax.grad(lambda p: model.forward(p, batch)[0].mean())(params)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt

    for _ in range(2):
        params, opt = step(params, opt)
    return params, tx, opt


def test_a_loop_goes_on_with_the_same_function_and_its_moments(trained, batch):
    params, tx, opt = trained
    op = Op("depth", 3, "identity")
    found = grown(MODEL, params, tx, opt, op, jax.random.key(1))
    assert (found.model.depth, found.begun) == (3, ())
    losses = lambda model, params: jax.jit(make_model(model).forward)(params, batch)[0]
    before, after = losses(MODEL, params), losses(found.model, found.params)
    chex.assert_trees_all_close(before, after, rtol=1e-6)
    mu = lambda state: state[0].mu["blocks"]["mlp"]["up"]["w"]
    np.testing.assert_array_equal(mu(found.opt_state)[:2], mu(opt))
    chex.assert_trees_all_equal_shapes(found.opt_state, tx.init(found.params))
    assert int(found.opt_state[0].count) == 2


def test_reset_is_the_optimizers_own_beginning(trained):
    params, tx, opt = trained
    op = Op("heads", 4, "new")
    found = grown(MODEL, params, tx, opt, op, jax.random.key(1), "reset")
    chex.assert_trees_all_equal(found.opt_state, tx.init(found.params))


@pytest.mark.parametrize("moments", ["carry", "reset"])
def test_freezing_leaves_a_loop_its_state(moments, trained):
    params, tx, opt = trained
    op, key = Op("frozen", 1), jax.random.key(1)
    found = grown(MODEL, params, tx, opt, op, key, moments)
    assert found.model.frozen == 1
    chex.assert_trees_all_equal((found.params, found.opt_state), (params, opt))


def test_a_copy_of_the_weights_stays_as_far_from_them(trained):
    """Its distance moves as the parameters do; fresh entries are the new ones."""
    params, *_ = trained
    tx = contrib.schedule_free_adamw(0.1)
    state = jax.jit(tx.init)(params)
    moved = jax.tree.map(lambda x: x + 0.1, state.z)
    for op in (Op("width", 64), Op("heads", 4, "new")):
        given = MODEL, params, tx, state._replace(z=moved), op
        found = grown(*given, jax.random.key(1))
        assert found.begun == ()
        z, new = by_path(found.opt_state.z), by_path(found.params)
        for path, move in moves(MODEL, op).items():
            scale = np.ones_like(new[path])
            for axis, m in move.axes:
                shape = [1] * scale.ndim
                shape[axis] = len(m.scale)
                scale = scale * np.reshape(m.scale, shape)
            distance = 0.1 * scale * came_from(move, scale.shape)
            np.testing.assert_allclose(z[path] - new[path], distance, atol=1e-6)


def test_parameters_of_another_model_are_named(trained):
    params, tx, opt = trained
    told = r"embed/table: shape \(64, 32\), the model's \(32, 32\)"
    with pytest.raises(UserError, match=told):
        grown(SMALLER, params, tx, opt, Op("depth", 3), jax.random.key(1))


def test_what_can_not_be_done_is_one_clear_line(trained):
    params, tx, opt = trained
    with pytest.raises(UserError, match="has 2 already"):
        grown(MODEL, params, tx, opt, Op("depth", 2), jax.random.key(1))
    assert jnp.isfinite(params["head"]["w"]).all()
