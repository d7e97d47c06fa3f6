"""What a layer adds, how many directions it uses, how much its heads repeat each other.

Each is a pure function of what one layer read and wrote; `weights` [B, T] sum to 1 and
say how much each token counts.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Features = Float[Array, "b t d"]
Weights = Float[Array, "b t"]


def influence(
    inputs: Features, outputs: Features, weights: Weights
) -> Float[Array, ""]:
    """Block influence 1 - E cos(x_in, x_out), in [0, 2]: 0 for the identity.

    Men et al. 2024 (ShortGPT). A token of zeros counts as unchanged.
    """
    x, y = inputs.astype(jnp.float32), outputs.astype(jnp.float32)
    norms = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    cosine = (x * y).sum(-1) / jnp.where(norms > 0, norms, 1.0)
    return jnp.vdot(weights, 1.0 - jnp.where(norms > 0, cosine, 1.0))


def effective_rank(features: Features, weights: Weights) -> Float[Array, ""]:
    """exp of the entropy of p_i = eigenvalue_i / trace of the D x D covariance.

    In [1, D]: D if all directions vary alike, 1 if only one does, or none. After Roy &
    Vetterli 2007, who take singular values where this takes their squares: shares of
    variance. At most the number of tokens less one.
    """
    x = features.astype(jnp.float32).reshape(-1, features.shape[-1])
    w = weights.reshape(-1, 1)
    x = (x - (w * x).sum(0, keepdims=True)) * jnp.sqrt(w)
    values = jnp.maximum(jnp.linalg.eigvalsh(x.T @ x), 0.0)
    p = values / jnp.maximum(values.sum(), jnp.finfo(jnp.float32).tiny)
    return jnp.exp(jax.scipy.special.entr(p).sum())


def attention_maps(
    queries: Float[Array, "b t h k"],
    keys: Float[Array, "b t g k"],
    documents: Int[Array, "b t"] | None = None,
) -> Float[Array, "b h t t"]:
    """softmax(q k / sqrt(K)) of each query over the keys up to its own place.

    Args:
      queries, keys: as the attention reads them, normed and rotated; G divides H, and
        H / G neighbouring heads read the same keys.
      documents: their number at each token; attention then stays inside one.
    """
    b, t, h, k = queries.shape
    q = queries.astype(jnp.float32).reshape(b, t, keys.shape[2], -1, k)
    scores = jnp.einsum("btgrk,bsgk->bgrts", q, keys.astype(jnp.float32))
    scores = scores.reshape(b, h, t, t) * k**-0.5
    seen = jnp.tril(jnp.ones((t, t), bool))[None, None]
    if documents is not None:
        seen = seen & (documents[:, None, :, None] == documents[:, None, None, :])
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)


def head_similarity(
    maps: Float[Array, "b h t t"], weights: Weights
) -> Float[Array, ""]:
    """Mean cosine of the rows of two different heads' attention maps, in [0, 1].

    1 if all heads look alike, 0 if no two of them look at the same token, and of a
    single head. From |sum_h u_h|^2 = H + sum over pairs, so O(H) and not O(H^2). The
    first token of a row has nothing to choose from and does not count.
    """
    h = maps.shape[1]
    if h == 1:
        return jnp.zeros(())
    unit = maps / jnp.linalg.norm(maps, axis=-1, keepdims=True)
    pairs = (jnp.square(unit.sum(1)).sum(-1) - h) / (h * (h - 1))
    w = weights.at[:, 0].set(0.0)
    return jnp.vdot(w, pairs) / jnp.maximum(w.sum(), jnp.finfo(jnp.float32).tiny)
