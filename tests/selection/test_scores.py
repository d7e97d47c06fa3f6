"""By-products against brute force from the logits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection.scores import (
    RowScores,
    bald,
    el2n,
    learnability,
    margin,
    margin_bounds,
    row_mean,
    row_scores,
)
from uets_jax.types import IGNORED, Stats

B, L, D, V = 3, 8, 5, 11


@pytest.fixture
def case():
    """Features, head and targets; row 2 has no target, row 0 one ignored."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(B, L, D)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(D, V)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, V, (B, L)), jnp.int32)
    targets = targets.at[0, -1].set(IGNORED).at[2].set(IGNORED)
    return features, head, targets


def forward(features, head, targets):
    """Token losses and the three reductions, written down from the probabilities."""
    logits = features @ head
    p = jax.nn.softmax(logits, -1)
    picked = jnp.take_along_axis(p, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
    losses = jnp.where(targets == IGNORED, 0.0, -jnp.log(picked))
    entropy = -(p * jnp.log(p)).sum(-1)
    stats = Stats(features, jnp.log(jnp.exp(logits).sum(-1)), entropy, (p * p).sum(-1))
    return losses, stats, p


def counted_mean(values, targets):
    """Row means by a loop in NumPy."""
    keep = np.asarray(targets) != IGNORED
    rows = zip(np.asarray(values), keep, strict=True)
    return np.array([v[k].mean() if k.any() else 0.0 for v, k in rows])


def test_the_losses_and_the_vector_norm_are_those_of_the_probabilities(case):
    targets = case[2]
    losses, stats, p = forward(*case)
    error = np.asarray(p - jax.nn.one_hot(targets, V))
    got = row_scores(targets, losses, stats)
    np.testing.assert_allclose(got.loss, counted_mean(losses, targets), rtol=1e-6)
    entropy = counted_mean(stats.entropy, targets)
    np.testing.assert_allclose(got.entropy, entropy, rtol=1e-6)
    norms = counted_mean(np.linalg.norm(error, axis=-1), targets)
    np.testing.assert_allclose(got.el2n, norms, rtol=1e-5)
    assert all(x.shape == (B,) and x.dtype == jnp.float32 for x in got)


def test_gnorm_is_the_norm_of_each_tokens_own_gradient(case):
    features, head, targets = case
    losses, stats, _ = forward(*case)

    def loss(head, phi, target):
        return -jax.nn.log_softmax(phi @ head)[target]

    each = jax.vmap(jax.vmap(jax.grad(loss), (None, 0, 0)), (None, 0, 0))
    grads = each(head, features, jnp.maximum(targets, 0))
    norms = np.sqrt(np.square(grads).sum((-1, -2)))
    got = row_scores(targets, losses, stats).gnorm
    np.testing.assert_allclose(got, counted_mean(norms, targets), rtol=1e-5)


def test_a_soft_cap_makes_gnorm_an_upper_bound(case):
    features, head, targets = case
    cap = lambda z: 2.0 * jnp.tanh(z / 2.0)
    loss = lambda head, phi, y: -jax.nn.log_softmax(cap(phi @ head))[y]
    each = jax.vmap(jax.vmap(jax.grad(loss), (None, 0, 0)), (None, 0, 0))
    norms = np.sqrt(
        np.square(each(head, features, jnp.maximum(targets, 0))).sum((-1, -2))
    )
    p = jax.nn.softmax(cap(features @ head), -1)
    picked = jnp.take_along_axis(p, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
    stats = Stats(features, picked, picked, (p * p).sum(-1))
    got = row_scores(targets, -jnp.log(picked), stats).gnorm
    assert (np.asarray(got) >= counted_mean(norms, targets)).all()


def test_bald_is_the_mutual_information_for_a_small_variance(case):
    """Against H[E p] - E H[p] over logits with noise of variance lev."""
    features, head, _ = case
    lever, logits = 0.02, (features @ head)[0]
    noise = jax.random.normal(jax.random.key(1), (20_000, 1, V)) * lever**0.5
    noise = jnp.concatenate([noise, -noise])
    entropy = lambda p: -(p * jnp.log(p)).sum(-1)

    def true(z):
        p = jax.nn.softmax(z[None] + noise[:, 0], -1)
        return entropy(p.mean(0)) - entropy(p).mean(0)

    p = jax.nn.softmax(logits, -1)
    got = bald(jnp.full(L, lever), (p * p).sum(-1))
    np.testing.assert_allclose(got, jax.lax.map(true, logits), rtol=0.05)


def test_leverage_may_be_given_for_some_tokens_only(case):
    targets = case[2]
    losses, stats, _ = forward(*case)
    lever = jnp.asarray(np.random.default_rng(2).uniform(size=(B, L)), jnp.float32)
    whole = row_scores(targets, losses, stats, lever)
    np.testing.assert_allclose(whole.leverage, counted_mean(lever, targets), rtol=1e-6)
    np.testing.assert_allclose(
        whole.bald,
        counted_mean(0.5 * lever * (1 - stats.collision), targets),
        rtol=1e-6,
    )
    some = row_scores(targets, losses, stats, lever[:, 3::4], every=4)
    np.testing.assert_allclose(
        some.leverage, counted_mean(lever[:, 3::4], targets[:, 3::4]), rtol=1e-6
    )
    chex.assert_trees_all_equal(some.gnorm, whole.gnorm)


def test_learnability_is_what_the_reference_leaves(case):
    losses, stats, _ = forward(*case)
    reference = jnp.array([1.0, 2.0, 3.0])
    got = row_scores(case[2], losses, stats, reference=reference)
    chex.assert_trees_all_close(got.learnability, got.loss - reference)
    assert float(learnability(jnp.ones(1), jnp.full(1, 3.0))[0]) == -2.0


def test_what_is_not_given_counts_as_nothing(case):
    losses, stats, _ = forward(*case)
    got = row_scores(case[2], losses, stats)
    assert not got.leverage.any()
    assert not got.bald.any()
    chex.assert_trees_all_equal(got.learnability, got.loss)
    assert all(float(x[2]) == 0 for x in got)  # the row without targets


def test_compiled_scores_are_the_same(case):
    losses, stats, _ = forward(*case)
    plain = row_scores(case[2], losses, stats)
    chex.assert_trees_all_close(
        jax.jit(row_scores)(case[2], losses, stats), plain, rtol=1e-6
    )
    assert isinstance(plain, RowScores)


def test_low_precision_values_are_summed_in_float32():
    values = jnp.full((1, 4096), 1.0, jnp.bfloat16)
    got = row_mean(values, jnp.ones((1, 4096), jnp.int32))
    assert got.dtype == jnp.float32
    assert float(got[0]) == 1.0


def test_el2n_of_certainty_is_no_nan():
    sure = el2n(jnp.array([0.0, 1e-7]), jnp.array([1.0, 0.9999998]))
    assert np.all(np.asarray(sure) < 1e-3)
    wrong = el2n(jnp.array([50.0]), jnp.array([1.0]))
    np.testing.assert_allclose(wrong, 2**0.5, rtol=1e-6)


def test_the_margin_is_that_of_the_two_likeliest_and_within_its_bounds(case):
    p = np.sort(np.asarray(forward(*case)[2]), -1)
    got = margin(case[0] @ case[1])
    np.testing.assert_allclose(got, p[..., -1] - p[..., -2], rtol=1e-4, atol=1e-6)
    low, high = margin_bounds(jnp.asarray((p * p).sum(-1)))
    assert ((got >= low - 1e-6) & (got <= high + 1e-6)).all()
    assert float(margin(jnp.array([1.0, 1.0, 0.0]))) == 0.0
