import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.measure.redundancy import (
    attention_maps,
    effective_rank,
    head_similarity,
    influence,
)

EVEN = jnp.full((2, 8), 1 / 16)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_identity_has_no_influence_and_its_opposite_the_most():
    x = draw(0, 2, 8, 5)
    np.testing.assert_allclose(influence(x, x, EVEN), 0, atol=1e-6)
    np.testing.assert_allclose(influence(x, 3 * x, EVEN), 0, atol=1e-6)
    np.testing.assert_allclose(influence(x, -x, EVEN), 2, rtol=1e-6)


def test_influence_is_a_mean_over_the_tokens_that_count():
    x = jnp.tile(jnp.array([1.0, 0.0]), (2, 8, 1))
    y = x.at[0, 0].set(jnp.array([0.0, 1.0])).at[1, 7].set(jnp.zeros(2))
    np.testing.assert_allclose(influence(x, y, EVEN), 1 / 16, rtol=1e-6)
    weights = jnp.zeros((2, 8)).at[0, 0].set(0.75).at[0, 1].set(0.25)
    np.testing.assert_allclose(influence(x, y, weights), 0.75, rtol=1e-6)


def test_rank_of_isotropic_features_is_the_width():
    corners = jnp.concatenate([jnp.eye(8), -jnp.eye(8)]).reshape(2, 8, 8)
    np.testing.assert_allclose(effective_rank(7 + corners, EVEN), 8, rtol=1e-4)
    many = draw(1, 40, 100, 8)
    rank = effective_rank(many, jnp.full((40, 100), 1 / 4000))
    assert 7.95 < rank <= 8


def test_rank_counts_directions_and_not_scales():
    x = draw(2, 2, 8, 3) @ draw(3, 3, 10)
    assert 1 < effective_rank(x, EVEN) <= 3.001
    np.testing.assert_allclose(
        effective_rank(100 * x, EVEN), effective_rank(x, EVEN), rtol=1e-3
    )
    one = draw(4, 2, 8, 1) * jnp.ones((1, 1, 10))
    np.testing.assert_allclose(effective_rank(one, EVEN), 1, rtol=1e-3)
    np.testing.assert_allclose(effective_rank(jnp.ones((2, 8, 4)), EVEN), 1, rtol=1e-3)


def test_rank_is_the_entropy_of_known_variances():
    """Variances 4 : 1 in two directions: H(0.8, 0.2)."""
    x = jnp.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]] * 4).reshape(2, 8, 2)
    h = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    np.testing.assert_allclose(effective_rank(x, EVEN), np.exp(h), rtol=1e-5)


def test_tokens_without_weight_do_not_count():
    x = draw(5, 2, 8, 4).at[1].set(1e3)
    weights = EVEN.at[1].set(0.0) * 2
    alone = effective_rank(x[:1], jnp.full((1, 8), 1 / 8))
    np.testing.assert_allclose(effective_rank(x, weights), alone, rtol=1e-4)


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_maps_are_those_of_the_attention(groups):
    """With one-hot values the output of jax's own attention is the map."""
    q, k = draw(6, 2, 8, 4, 6), draw(7, 2, 8, groups, 6)
    tokens = jnp.broadcast_to(jnp.eye(8)[None, :, None, :], (2, 8, groups, 8))
    wide = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 8 - x.shape[-1])))
    out = jax.nn.dot_product_attention(
        wide(q), wide(k), tokens, scale=6**-0.5, is_causal=True
    )
    found = attention_maps(q, k).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(found, out, rtol=1e-4, atol=1e-6)


def test_maps_stay_inside_documents():
    documents = jnp.array([[0, 0, 0, 1, 1, 1, 1, 2]] * 2)
    maps = attention_maps(draw(8, 2, 8, 2, 4), draw(9, 2, 8, 2, 4), documents)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    apart = documents[:, None, :, None] != documents[:, None, None, :]
    assert not (maps * apart).any()


def test_equal_heads_are_alike_and_heads_that_look_elsewhere_are_not():
    maps = attention_maps(draw(10, 2, 8, 1, 4), draw(11, 2, 8, 1, 4))
    same = jnp.repeat(maps, 3, 1)
    np.testing.assert_allclose(head_similarity(same, EVEN), 1, rtol=1e-5)
    here, first = jnp.eye(8), jnp.zeros((8, 8)).at[:, 0].set(1.0)
    apart = jnp.broadcast_to(jnp.stack([here, first])[None], (2, 2, 8, 8))
    np.testing.assert_allclose(head_similarity(apart, EVEN), 0, atol=1e-6)
    assert head_similarity(maps, EVEN) == 0


def test_similarity_is_the_mean_over_pairs():
    maps = np.asarray(attention_maps(draw(12, 2, 8, 4, 4), draw(13, 2, 8, 4, 4)))
    unit = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
    pairs = [
        (unit[:, a] * unit[:, b]).sum(-1)[:, 1:].mean()
        for a in range(4)
        for b in range(a)
    ]
    found = head_similarity(jnp.asarray(maps), EVEN)
    np.testing.assert_allclose(found, np.mean(pairs), rtol=1e-5)


def test_a_row_of_one_token_has_no_similarity():
    assert head_similarity(jnp.ones((2, 3, 1, 1)), jnp.full((2, 1), 0.5)) == 0
