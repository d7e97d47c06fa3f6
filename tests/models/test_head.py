import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.measure.jaxpr import count
from uets_jax.models.head import capped, head_losses, raw_logits, reduce_logits
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model

CAPS = (0.0, 5.0)


@pytest.fixture
def inputs(key):
    """(features [2, 6, 3], head [3, 7], targets [2, 6], two of them ignored)."""
    features = 2 * jax.random.normal(key, (2, 6, 3))
    head = 2 * jax.random.normal(jax.random.key(1), (3, 7))
    targets = jnp.asarray([[0, 1, 2, 3, -1, 6], [6, 5, 4, -1, 0, 0]])
    return features, head, targets


def test_reductions_equal_their_definitions(key):
    logits = 3 * jax.random.normal(key, (2, 5, 7))
    targets = jnp.asarray([[0, 1, 2, 3, -1], [6, 5, 4, -1, 0]])
    features = jnp.zeros((2, 5, 3))
    losses, stats = reduce_logits(logits, targets, features)
    p = np.asarray(jax.nn.softmax(logits.astype(jnp.float32)), np.float64)
    rows, places = np.indices(targets.shape)
    nll = -np.log(p[rows, places, np.maximum(targets, 0)])
    expected = np.where(targets == -1, 0.0, nll)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats.entropy, -(p * np.log(p)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(stats.collision, (p * p).sum(-1), rtol=1e-4)
    log_sum = np.log(np.exp(np.asarray(logits, np.float64)).sum(-1))
    np.testing.assert_allclose(stats.logsumexp, log_sum, rtol=1e-5)


@pytest.mark.parametrize("cap", CAPS)
def test_losses_and_gradients_equal_optax(cap, inputs):
    features, head, targets = inputs
    weights = jnp.asarray([[1.0], [0.3]])

    def ours(features, head):
        losses, _ = head_losses(features, head, targets, cap)
        return (weights * losses).sum()

    def oracle(features, head):
        z = capped(raw_logits(features, head), cap)
        known = targets >= 0
        cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        losses = cross_entropy(z, jnp.where(known, targets, 0))
        return (weights * jnp.where(known, losses, 0)).sum()

    found = jax.value_and_grad(ours, (0, 1))(features, head)
    expected = jax.value_and_grad(oracle, (0, 1))(features, head)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunks", [2, 3, 4, 6, 32])
def test_pieces_change_nothing(chunks, inputs):
    features, head, targets = inputs

    def run(chunks):
        def loss(features, head):
            losses, stats = head_losses(features, head, targets, 5.0, chunks)
            return losses.sum(), (losses, stats)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(features, head)

    chex.assert_trees_all_close(run(chunks), run(1), rtol=1e-5, atol=1e-6)


def test_by_products_carry_no_gradient_but_features_do(inputs):
    features, head, targets = inputs

    def read(features, field):
        stats = head_losses(features, head, targets, 5.0, 2)[1]
        return getattr(stats, field).sum()

    for field in ("logsumexp", "entropy", "collision"):
        assert not jax.grad(read)(features, field).any()
    assert (jax.grad(read)(features, "features") == 1).all()


def test_a_huge_logit_is_no_overflow():
    raw = jnp.asarray([[[1e4, -1e4, 0.0]]])
    for target, loss in ((0, 0.0), (1, 2e4)):
        targets = jnp.asarray([[target]])
        losses, stats = reduce_logits(raw, targets, raw)
        np.testing.assert_allclose(losses, [[loss]])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(stats))
        slope = jax.grad(lambda r, t=targets: reduce_logits(r, t, r)[0].sum())(raw)
        assert np.isfinite(slope).all()


def test_pieces_cost_the_same_matmuls(batch):
    def traced(chunks):
        config = model_config("modern", "tiny", vocab=64, head_chunks=chunks)
        model = make_model(config)
        loss = lambda params: model.forward(params, batch)[0].sum()
        params = jax.eval_shape(model.init, jax.random.key(0))
        return jax.make_jaxpr(jax.grad(loss))(params)

    whole, pieces = (count(traced(n)).total() for n in (1, 8))
    matmul = lambda costs: sum(cost.matmul for cost in costs.values())
    assert matmul(whole) == matmul(pieces)


def test_pieces_of_a_sharded_batch_stay_sharded(batch):
    """No device gets the rows of another one to compute their losses."""
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    config = model_config("modern", "tiny", vocab=64, head_chunks=8)
    model = make_model(config)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        lambda params, batch: model.forward(params, batch)[0].sum(),
        in_shardings=(everywhere, rows),
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    text = step.lower(params, batch).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
