"""Ways to say what a model does not know, each as a function of a batch of windows.

softmax       loss, entropy and 1 - max p of one model: no uncertainty of parameters
laplace       one pass of that model and the posterior of its last layer
mc_dropout    S passes of a model that was trained with dropout
ensemble      M models
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from uets_jax.models.transformer import Model
from uets_jax.types import IGNORED, Batch, Params, Stats
from uets_jax.uncertainty.ensemble import ensemble, stack
from uets_jax.uncertainty.laplace import (
    LaplaceConfig,
    LaplaceState,
    bald,
    laplace,
    leverage,
    mean_field,
    predictive_variance,
)
from uets_jax.uncertainty.mc_dropout import mc_dropout

THIN = 8  # the streaming selection reads one token in so many
Scores = dict[str, Array]


class Method(NamedTuple):
    """One way to score.

    name:          of the method.
    features:      what the posterior reads, "" where there is none.
    arrays:        what the functions take first: parameters, posteriors.
    scores:        (arrays, batch, key) -> values per token [B, L], or per window [B].
    probabilities: (arrays, batch, key) -> predictive [B, L, V]; None: not judged.
    beside:        (arrays, Stats) -> the scores, where the plain forward pass that is
                   made anyhow tells enough.
    """

    name: str
    features: str
    arrays: Any
    scores: Callable[[Any, Batch, Key[Array, ""]], Scores]
    probabilities: Callable[[Any, Batch, Key[Array, ""]], Array] | None = None
    beside: Callable[[Any, Stats], Scores] | None = None


def softmax(model: Model, params: Params) -> list[Method]:
    """The baselines that every forward pass has, and the one that needs its logits."""

    def forward(params: Params, batch: Batch, key: Any) -> Scores:
        losses, stats = model.forward(params, batch)
        return {"loss": losses, "entropy": stats.entropy}

    def chosen(params: Params, batch: Batch, key: Any) -> Scores:
        return {"1 - max p": 1 - probabilities(params, batch, key).max(-1)}

    def probabilities(params: Params, batch: Batch, key: Any) -> Array:
        return jax.nn.softmax(model.logits(params, batch.tokens))

    plain = Method("softmax", "", params, forward, probabilities)
    return [plain, Method("softmax", "", params, chosen)]


def last_layer(
    model: Model, params: Params, batches: Iterable[Batch], width: int, outputs: int
) -> list[Method]:
    """The Laplace posterior, fitted to training batches: all tokens, or one in 8."""
    state = fitted(model, params, batches, width, outputs)

    def beside(every: int, arrays: Any, stats: Stats) -> Scores:
        state, thin = arrays[1], lambda x: x[:, every - 1 :: every]
        lever = leverage(state, thin(stats.features))
        variance = lever / state.curvature
        return {"bald": bald(variance, thin(stats.collision)), "leverage": lever}

    def scores(every: int, arrays: Any, batch: Batch, key: Any) -> Scores:
        return beside(every, arrays, model.forward(arrays[0], batch)[1])

    def probabilities(arrays: Any, batch: Batch, key: Any) -> Array:
        params, state = arrays
        _, stats = model.forward(params, batch)
        variance = predictive_variance(state, stats.features)
        return mean_field(model.logits(params, batch.tokens), variance)

    def way(features: str, every: int, predictive: Any = None) -> Method:
        of_batch, of_stats = (functools.partial(f, every) for f in (scores, beside))
        arrays = (params, state)
        return Method("laplace", features, arrays, of_batch, predictive, of_stats)

    return [
        way("final", 1, probabilities),
        way(f"final, 1 token in {THIN}", THIN),
    ]


def embedded(
    model: Model, params: Params, batches: Iterable[Batch], width: int, outputs: int
) -> list[Method]:
    """The same posterior of the mean input embedding of a window: no forward pass."""
    state = fitted(model, params, batches, width, outputs, mean_embedding)

    def scores(arrays: Any, batch: Batch, key: Any) -> Scores:
        params, state = arrays
        return {"leverage": leverage(state, mean_embedding(params, batch))}

    return [Method("laplace", "mean embedding", (params, state), scores)]


def mean_embedding(params: Params, batch: Batch) -> Float[Array, "b d"]:
    """Of each window's input tokens."""
    return params["embed"]["table"][batch.tokens].mean(1)


def fitted(
    model: Model,
    params: Params,
    batches: Iterable[Batch],
    width: int,
    outputs: int,
    features: Callable[[Params, Batch], Array] | None = None,
) -> LaplaceState:
    """The posterior at fixed parameters after some training batches.

    Args:
      features: of a window, [B, D]; without, what the head reads at each token.
    """
    # parameters stand still: batches count alike, and n is as it is
    config = LaplaceConfig(width, outputs, decay=0.9999, every=1, refresh=1)
    part = laplace(config)

    @jax.jit
    def step(state: LaplaceState, params: Params, batch: Batch) -> LaplaceState:
        losses, stats = model.forward(params, batch)
        seen = (stats.features, losses, stats.collision, batch.targets)
        if features is not None:
            seen = _of_windows(features(params, batch), losses, stats, batch)
        return part.apply(state, *seen, params["head"]["w"])[1]

    state = part.init(params)
    for batch in batches:
        state = step(state, params, batch)
    return state


def _of_windows(
    phi: Float[Array, "b d"], losses: Array, stats: Stats, batch: Batch
) -> tuple[Array, ...]:
    """A window as one token: means of what is known of its tokens."""
    mean = lambda x: x.mean(1, keepdims=True)
    known = jnp.where((batch.targets != IGNORED).all(1, keepdims=True), 0, IGNORED)
    return phi[:, None], mean(losses), mean(stats.collision), known


def dropout(model: Model, params: Params, passes: int) -> list[Method]:
    """MC-dropout of a model that was trained with it."""

    def drawn(params: Params, batch: Batch, key: Key[Array, ""]) -> Any:
        return mc_dropout(model.logits, params, batch.tokens, key, passes)

    return [Method("mc_dropout", "", params, _bald(drawn), _mean(drawn))]


def several(model: Model, members: list[Params]) -> list[Method]:
    """A deep ensemble."""

    def drawn(members: Params, batch: Batch, key: Any) -> Any:
        return ensemble(model.logits, members, batch.tokens)

    return [Method("ensemble", "", stack(members), _bald(drawn), _mean(drawn))]


def _bald(drawn: Callable[..., Any]) -> Callable[..., Scores]:
    def scores(arrays: Any, batch: Batch, key: Any) -> Scores:
        found = drawn(arrays, batch, key)
        return {"bald": found.bald, "entropy": found.entropy}

    return scores


def _mean(drawn: Callable[..., Any]) -> Callable[..., Array]:
    return lambda arrays, batch, key: drawn(arrays, batch, key).mean
