import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.config import OptimConfig
from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.scopes import branch
from uets_jax.models.axes import hidden_matrix, is_matrix, map_axes
from uets_jax.optim.rules import rule
from uets_jax.uncertainty.fisher import (
    SAMPLE,
    FisherConfig,
    fisher,
    from_adam,
    per_token,
    sampled_gradient,
)

X = jax.random.normal(jax.random.key(1), (400, 3)) * jnp.array([[1.0, 2.0, 0.5]])
W = jnp.array([0.5, -0.3, 1.0])


def logits(w, x):
    """Logistic regression as a softmax of two logits."""
    z = x @ w
    return jnp.stack([jnp.zeros_like(z), z], -1)


def closed_form(x, w=W):
    """F_ii = E[x_i^2 p (1 - p)] per example."""
    p = jax.nn.sigmoid(x @ w)
    return (x * x * (p * (1 - p))[:, None]).mean(0)


def test_samples_average_to_the_fisher_of_logistic_regression(key):
    keys = jax.random.split(key, 4000)
    gradient = lambda k: sampled_gradient(logits, W, X, k)
    grads, n = jax.jit(jax.vmap(gradient))(keys)
    assert (n == 400).all()
    found = jax.vmap(per_token)(grads, n).mean(0)
    np.testing.assert_allclose(found, closed_form(X), rtol=0.07)  # 3 sd of the mean
    assert jnp.abs(grads.mean(0)).max() < 0.01


def test_several_classes_are_drawn_by_their_probabilities(key):
    """F_ij = E[x_i^2 p_j (1 - p_j)] for the weights of a softmax."""
    w = jax.random.normal(jax.random.key(2), (3, 5))
    gradient = lambda k: sampled_gradient(lambda w, x: x @ w, w, X, k)
    grads, n = jax.jit(jax.vmap(gradient))(jax.random.split(key, 4000))
    p = jax.nn.softmax(X @ w)
    exact = jnp.einsum("ni,nj->ij", X * X, p * (1 - p)) / len(X)
    np.testing.assert_allclose(jax.vmap(per_token)(grads, n).mean(0), exact, rtol=0.1)
    np.testing.assert_allclose(grads.mean(0), 0, atol=0.01)


def test_what_cannot_be_used_changes_nothing(key):
    part = fisher(logits, FisherConfig(every=1))
    state = part.apply(part.init(W), W, X, key)[1]
    keys, broken = jax.random.split(jax.random.key(3)), X.at[7, 1].set(jnp.inf)
    for k, x, mask in zip(keys, (broken, X), (None, jnp.zeros(400, bool)), strict=True):
        after = part.apply(state, W, x, k, mask)[1]
        chex.assert_trees_all_equal(after._replace(calls=state.calls), state)
        assert after.calls == state.calls + 1


def test_only_masked_tokens_count(key):
    mask = jnp.arange(400) < 150
    keys = jax.random.split(key, 4000)
    gradient = lambda k: sampled_gradient(logits, W, X, k, mask)
    grads, n = jax.jit(jax.vmap(gradient))(keys)
    assert (n == 150).all()
    np.testing.assert_allclose(
        (n[:, None] * grads**2).mean(0), closed_form(X[:150]), rtol=0.07
    )


def test_the_average_converges_to_the_fisher(key):
    part = fisher(logits, FisherConfig(every=1, decay=0.999))
    step = lambda state, k: (part.apply(state, W, X, k)[1], None)
    state, _ = jax.lax.scan(step, part.init(W), jax.random.split(key, 3000))
    np.testing.assert_allclose(state.fisher, closed_form(X), rtol=0.15)


def test_it_is_debiased_and_samples_every_third_call(key):
    part = fisher(logits, FisherConfig(every=3, decay=0.9))
    state, squares, taken = part.init(W), [], []
    for number, k in enumerate(jax.random.split(key, 7)):
        if number % 3 == 0:
            g, n = sampled_gradient(logits, W, X, jax.random.clone(k))
            squares.append(np.asarray(n * g * g))
        metrics, state = part.apply(state, W, X, k)
        taken.append(int(metrics[f"taken/{SAMPLE}"]))
    assert taken == [1, 0, 0, 1, 0, 0, 1]
    weights = np.array([0.81, 0.9, 1.0])
    expected = weights @ np.stack(squares) / weights.sum()
    np.testing.assert_allclose(state.fisher, expected, rtol=1e-4)


def test_the_ledger_counts_the_sample_apart(key):
    part = fisher(logits, FisherConfig(every=4), branch=branch)
    found = count(jax.make_jaxpr(part.apply)(part.init(W), W, X, key))
    cost = lambda taken: sum(c.total for c in found.total({SAMPLE: taken}).values())
    assert cost(1) > 1000 * max(cost(0), 1)
    plain = fisher(logits, FisherConfig(every=4))
    with pytest.raises(UserError, match="arms differ"):
        count(jax.make_jaxpr(plain.apply)(plain.init(W), W, X, key))


def test_adam_holds_the_empirical_fisher_and_the_squared_mean():
    """At independent gradients of true labels: n E[g^2] = F + (n - 1) mean^2."""
    rng, n, b2 = np.random.default_rng(0), 50, 0.999
    mean, sd = np.array([0.0, 0.1, -0.2]), np.array([1.0, 0.5, 2.0])
    tx = optax.scale_by_adam(b2=b2)
    step = jax.jit(lambda g, state: tx.update(g, state)[1])
    state = tx.init(W)
    for _ in range(4000):
        gradient = mean + sd / n**0.5 * rng.normal(size=3)
        state = step(jnp.asarray(gradient, jnp.float32), state)
    expected = sd**2 + mean**2 + (n - 1) * mean**2
    np.testing.assert_allclose(from_adam(state, W, n, b2), expected, rtol=0.15)


def test_adam_is_debiased_from_the_first_step():
    tx, g = optax.adamw(1e-3, b2=0.95), jnp.array([1.0, -2.0, 3.0])
    state = tx.update(g, tx.init(W), W)[1]
    np.testing.assert_allclose(from_adam(state, W, 10.0, 0.95), 10 * g * g, rtol=1e-5)


def test_with_muon_the_matrices_have_none(program, key):
    params = program.init(key)
    tx = rule(
        OptimConfig(name="muon", clip=0.0),
        functools.partial(map_axes, hidden_matrix),
        functools.partial(map_axes, is_matrix),
    )
    grads = jax.tree.map(lambda p: p + 0.1, params)
    state = jax.jit(tx.update)(grads, tx.init(params), params)[1]
    found = from_adam(state, params, 2.0, 0.95)
    square = lambda axes, g: None if axes else 2 * g**2
    hidden = map_axes(hidden_matrix, params)
    leaf = lambda x: x is None or isinstance(x, tuple)
    expected = jax.tree.map(square, hidden, grads, is_leaf=leaf)
    chex.assert_trees_all_close(found, expected, rtol=1e-4)
    assert expected["blocks"]["attention"]["query"]["w"] is None
    assert expected["embed"]["table"] is not None


def test_lion_has_no_second_moment():
    with pytest.raises(UserError, match="no second moment"):
        from_adam(optax.lion(1e-3).init(W), W, 1.0, 0.95)


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("decay", 1.0)])
def test_rates_that_cannot_work_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        fisher(logits, FisherConfig(**{name: value}))
