"""What growth and pruning look at: one forward and one backward pass, read throughout.

`inspect(params, batch, gates=None) -> (token_losses [B, T], Stats, Taps)` is a field of
`Program`. Readings are of one batch, and noisy; `mean` averages those of several.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from uets_jax.errors import UserError
from uets_jax.measure.gradients import (
    Noise,
    layer_rms,
    noise_scale,
    saturation,
    two_halves,
)
from uets_jax.measure.redundancy import (
    attention_maps,
    effective_rank,
    head_similarity,
    influence,
)
from uets_jax.types import IGNORED, Batch, Gates, Params, Taps

Inspect = Callable[..., tuple[Any, Any, Taps]]


class Readings(NamedTuple):
    """Of one batch, by layer, head and MLP unit. Only tokens that carry loss count.

    loss:       nats per token, less what experts add for their balance.
    influence:  1 - E cos(x_in, x_out) of each block; 0: it changes nothing.
    rank:       effective rank of what each block puts out, in [1, D].
    similarity: mean cosine of two heads' attention maps; 1: they are copies.
    gradient:   RMS of the loss's gradient over the parameters of each layer.
    saturation: log10(RMS of the layer's parameters / `gradient`).
    heads, hidden: importance E_rows |dL_row / d gate| of each head and MLP unit, where
                the gate 1 multiplies its output: |output . gradient| (Michel et al.
                2019), divided by its l2 norm over the layer; a row weighs as many
                targets as it has. 0 in a layer whose output matrix is still zero.
    heads_raw, hidden_raw: the same in nats per token, before the division.
    noise_scale: simple noise scale (McCandlish et al. 2018) in rows; noisy: see `mean`.
    noise, signal: tr(S) and |G|^2, of which it is the ratio.
    """

    loss: Float[Array, ""]
    influence: Float[Array, " layers"]
    rank: Float[Array, " layers"]
    similarity: Float[Array, " layers"]
    gradient: Float[Array, " layers"]
    saturation: Float[Array, " layers"]
    heads: Float[Array, "layers h"]
    hidden: Float[Array, "layers f"]
    heads_raw: Float[Array, "layers h"]
    hidden_raw: Float[Array, "layers f"]
    noise_scale: Float[Array, ""]
    noise: Float[Array, ""]
    signal: Float[Array, ""]


def look(
    inspect: Inspect, params: Params, batch: Batch, documents: bool = False
) -> Readings:
    """All readings of one batch; pure, to be jitted with `inspect` static.

    The rows are read as two interleaved halves that weigh the same, one after the
    other: together one forward and one backward pass, half of the activations at a
    time, and two gradients for the noise scale. Attention maps and covariances are
    added once.

    Args:
      documents: attention stays inside a document (`ModelConfig.mask_documents`).

    Raises:
      UserError: for an odd number of rows.
    """
    rows = batch.tokens.shape[0]
    if rows % 2:
        raise UserError(f"look: {rows} rows: give an even number, it reads two halves")
    gates = open_gates(inspect, params, batch, rows // 2)

    def loss_of(params, gates, half):
        losses, _, taps = inspect(params, half, gates)
        return _mean(losses, half), taps

    grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    cut = lambda x: x.reshape(-1, 2, *x.shape[1:]).swapaxes(0, 1)
    halves = jax.lax.map(
        lambda half: grad(params, gates, half), jax.tree.map(cut, batch)
    )
    (losses, taps), (grads, slopes) = halves
    join = lambda x: jnp.moveaxis(x, 0, 2).reshape(x.shape[1], rows, *x.shape[3:])
    importance = lambda x: jnp.abs(x.astype(jnp.float32)).sum(2).mean(0)
    return _readings(
        losses.mean(),
        _of_taps(jax.tree.map(join, taps), batch, documents),
        params,
        grads,
        Gates(*map(importance, slopes)),
        rows,
    )


def _readings(loss, seen, params, grads, importance, rows) -> Readings:
    """Puts the parts together; `grads` holds both halves' on its first axis."""
    first, second = (jax.tree.map(lambda g, i=i: g[i], grads) for i in (0, 1))
    whole = jax.tree.map(lambda g: g.mean(0), grads["blocks"])
    gradient, noise = layer_rms(whole), two_halves(first, second, rows)
    return Readings(
        loss=loss,
        influence=seen[0],
        rank=seen[1],
        similarity=seen[2],
        gradient=gradient,
        saturation=saturation(layer_rms(params["blocks"]), gradient),
        heads=_normalised(importance.heads),
        hidden=_normalised(importance.hidden),
        heads_raw=importance.heads,
        hidden_raw=importance.hidden,
        noise_scale=noise_scale(noise),
        noise=noise.noise,
        signal=noise.signal,
    )


def _of_taps(taps: Taps, batch: Batch, documents: bool) -> tuple[Array, Array, Array]:
    """(influence, rank, similarity) of each layer, one layer at a time."""
    known = (batch.targets != IGNORED).astype(jnp.float32)
    weights = known / jnp.maximum(known.sum(), 1.0)
    segments = batch.segments if documents else None

    def layer(given):
        x, y, queries, keys = given
        maps = attention_maps(queries, keys, segments)
        return (
            influence(x, y, weights),
            effective_rank(y, weights),
            head_similarity(maps, weights),
        )

    return jax.lax.map(layer, (taps.inputs, taps.outputs, taps.queries, taps.keys))


def _normalised(scores: Float[Array, "layers n"]) -> Float[Array, "layers n"]:
    """Each layer's scores at l2 norm 1; zeros stay zeros."""
    norm = jnp.linalg.norm(scores, axis=1, keepdims=True)
    return scores / jnp.where(norm > 0, norm, 1.0)


def _mean(losses: Float[Array, "b t"], batch: Batch) -> Float[Array, ""]:
    """Nats per target, as training weighs them."""
    return losses.sum() / jnp.maximum((batch.targets != IGNORED).sum(), 1)


def open_gates(inspect: Inspect, params: Params, batch: Batch, rows: int = 1) -> Gates:
    """Gates of ones for `rows` rows (1: all share them), in the sizes of the taps."""
    _, _, taps = jax.eval_shape(inspect, params, batch)
    layers, heads = taps.queries.shape[0], taps.queries.shape[3]
    hidden = taps.hidden.shape[-1]
    return Gates(jnp.ones((layers, rows, heads)), jnp.ones((layers, rows, hidden)))


def mean(readings: Sequence[Readings]) -> Readings:
    """Of several batches; the noise scale becomes the ratio of the mean noise and
    signal, and importances are normalised anew."""
    whole = Readings(*(jnp.stack(x).mean(0) for x in zip(*readings, strict=True)))
    return whole._replace(
        noise_scale=noise_scale(Noise(whole.noise, whole.signal)),
        heads=_normalised(whole.heads_raw),
        hidden=_normalised(whole.hidden_raw),
    )


def removal(inspect: Inspect, params: Params, batch: Batch) -> Float[Array, " layers"]:
    """Measured loss increase, in nats per token, when a layer alone is skipped.

    layers + 1 forward passes, one at a time. The safe score for dropping layers, where
    block influence is a weak proxy; increases do not add up, so after a drop measure
    again.
    """
    gates = open_gates(inspect, params, batch)
    layers = gates.heads.shape[0]
    whole, _, _ = inspect(params, batch, gates)

    def rise(keep):
        """Of token losses, not of their means, which would differ by rounding."""
        losses, _, _ = inspect(
            params, batch, Gates(*(g * keep[:, None, None] for g in gates))
        )
        return _mean(losses - whole, batch)

    return jax.lax.map(rise, 1.0 - jnp.eye(layers))
