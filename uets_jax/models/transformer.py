"""The growable transformer: blocks stacked by `nn.scan` on a leading layer axis.

Depth, heads and width are array shapes and every submodule is named, so the structure
of the parameter tree stays the same whatever is grown.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from uets_jax.config import ModelConfig
from uets_jax.models.backoff import (
    Backoff,
    Blend,
    Counted,
    mixed_logits,
    mixed_losses,
    mixed_stats,
)
from uets_jax.models.frozen import scan_above
from uets_jax.models.head import Logits, capped, head_losses, raw_logits
from uets_jax.models.layers import MLP, Attention, Dropout, Norm, kernel_init, tap
from uets_jax.models.memory import NGramTables
from uets_jax.models.moe import Experts, Routing
from uets_jax.types import Batch, Gates, Params, Stats, Taps


class Block(nn.Module):
    """Pre-norm attention and MLP; zero output projections make it the identity.

    With experts, how it routed its tokens is its second result, else None.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, carry, is_first, segments):
        x, first_values = carry
        c, routing = self.config, None
        tap(self, "inputs", x)
        h = Norm(c.norm, c.bias, name="attention_norm")(x)
        attention = Attention(c, name="attention")
        h, first_values = attention(h, segments, first_values, is_first)
        x = x + Dropout(c.dropout, name="attention_dropout")(h)
        h = Norm(c.norm, c.bias, name="mlp_norm")(x)
        if c.experts:
            h, routing = Experts(c, name="experts")(h)
        else:
            h = MLP(c, name="mlp")(h)
        x = x + Dropout(c.dropout, name="mlp_dropout")(h)
        tap(self, "outputs", x)
        return (x, first_values), routing


class Output(NamedTuple):
    """What a model computes before its losses.

    features: what the output head reads.
    head:     the output matrix.
    counted:  what a back-off model says, if there is one.
    gate:     logit of the network's share beside it.
    routing:  of each layer, with experts.
    """

    features: Float[Array, "b l d"]
    head: Float[Array, "d v"]
    counted: Counted | None
    gate: Float[Array, "b l"] | None
    routing: Routing | None


class Transformer(nn.Module):
    """Token ids [B, L] to an `Output`.

    With frozen blocks it can be applied to parameters, but not initialised.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "b l"], segments: Int[Array, "b l"]
    ) -> Output:
        c = self.config
        table = Table((c.vocab, c.width), name="embed")()
        x = table[tokens].astype(c.dtype)
        if c.memory_rows:
            x = x + NGramTables(c, name="memory")(tokens, segments)
        if c.position == "learned":
            rows = Table((c.context, c.width), name="positions")()
            x = x + rows[None, : tokens.shape[1]].astype(c.dtype)
        x = Dropout(c.dropout, name="embed_dropout")(x)
        first_values = None
        if c.value_residual:
            shape = (*tokens.shape, c.kv_heads, c.head_dim)
            first_values = jnp.zeros(shape, c.dtype)
        is_first = (jnp.arange(c.depth) == 0).astype(jnp.float32)
        run = _above_frozen if c.frozen else _stacked
        (x, _), routing = run(self, (x, first_values), is_first, segments)
        features = Norm(c.norm, c.bias, name="final_norm")(x)
        head = table.T if c.tied else Head(c, name="head")()
        counted = gate = None
        if c.backoff_order:
            counted = Backoff(c, name="backoff")(tokens, segments)
            gate = Blend(name="blend")(features, counted.known)
        return Output(features, head, counted, gate, routing)


class Table(nn.Module):
    """A trainable table of rows, std 0.02."""

    shape: tuple[int, int]

    @nn.compact
    def __call__(self) -> Float[Array, "n d"]:
        return self.param("table", nn.initializers.normal(0.02), self.shape)


class Head(nn.Module):
    """The untied output matrix [D, V]."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> Float[Array, "d v"]:
        c = self.config
        return self.param("w", kernel_init(c, output=True), (c.width, c.vocab))


def _stacked(module, carry, is_first, segments):
    """All blocks, one after the other."""
    c = module.config
    axes: Any = (0, nn.broadcast)  # is_first per layer, segments for all
    scanned = nn.scan(
        nn.remat(Block, prevent_cse=False) if c.remat else Block,
        variable_axes={"params": 0, "gates": 0, "taps": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=axes,
        length=c.depth,
    )(c, name="blocks")
    return scanned(carry, is_first, segments)


def _above_frozen(module, carry, is_first, segments):
    """The same without derivatives of the frozen ones, dropout's draws aside."""
    c, keys, block = module.config, None, Block(module.config, parent=None)
    if c.dropout and module.has_rng("dropout"):
        keys = jax.random.split(module.make_rng("dropout"), c.depth)

    def step(carry, row):
        params, first, key = row
        rngs = None if key is None else {"dropout": key}
        return block.apply({"params": params}, carry, first, segments, rngs=rngs)

    step = jax.checkpoint(step, prevent_cse=False) if c.remat else step
    rows = (module.variables["params"]["blocks"], is_first, keys)
    return scan_above(step, carry, rows, c.frozen)


class Model(NamedTuple):
    """The functions that the rest of the house sees.

    init:    key -> params
    forward: (params, batch) -> (token_losses [B, L] in nats, Stats)
    logits:  (params, tokens [B, L]) -> [B, L, V]
    inspect: (params, batch, gates=None) -> (token_losses, Stats, Taps): what forward
             gives and what it passes by, with the `Gates` on heads and hidden units

    A key as third argument of `forward` and `logits` turns dropout on. With frozen
    blocks `forward` alone has no derivative below.
    """

    init: Callable[[Key[Array, ""]], Params]
    forward: Callable[..., tuple[Array, Stats]]
    logits: Callable[..., Array]
    inspect: Callable[..., tuple[Array, Stats, Taps]]


def make_model(config: ModelConfig) -> Model:
    """The pure functions of one architecture; `config.vocab` must be known."""
    whole = dataclasses.replace(config, frozen=0) if config.frozen else config
    module, trained = Transformer(whole), Transformer(config)

    def init(key: Key[Array, ""]) -> Params:
        tokens = jnp.zeros((1, 2), jnp.int32)
        return module.init(key, tokens, tokens, mutable=["params"])["params"]

    def apply(
        module: Transformer, params: Params, key: Any, tokens: Array, segments: Array
    ) -> Any:
        rngs = None if key is None else {"dropout": key}
        return module.apply({"params": params}, tokens, segments, rngs=rngs)

    def losses(out: Output, targets: Array) -> tuple[Float[Array, "b l"], Stats]:
        cap, chunks = config.softcap, config.head_chunks
        each, stats = head_losses(out.features, out.head, targets, cap, chunks)
        if out.counted is not None:
            each = mixed_losses(each, out.counted, out.gate, targets)
            stats = mixed_stats(stats, chances(out))  # left out where nobody reads it
        routed = out.routing is not None
        return each, _routed(config, stats, out.routing) if routed else stats

    def chances(out: Output) -> Logits:
        z = capped(raw_logits(out.features, out.head), config.softcap)
        return z if out.counted is None else mixed_logits(z, out.counted, out.gate)

    def forward(
        params: Params, batch: Batch, key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "b l"], Stats]:
        out = apply(trained, params, key, batch.tokens, batch.segments)
        return losses(out, batch.targets)

    def logits(
        params: Params, tokens: Int[Array, "b l"], key: Key[Array, ""] | None = None
    ) -> Logits:
        segments = jnp.zeros_like(tokens)
        out = apply(module, params, key, tokens, segments)
        return chances(out)

    def inspect(
        params: Params, batch: Batch, gates: Gates | None = None
    ) -> tuple[Float[Array, "b l"], Stats, Taps]:
        variables = {"params": params, **_gated(config, gates)}
        inputs = (batch.tokens, batch.segments)
        out, seen = module.apply(variables, *inputs, mutable=["taps"])
        return *losses(out, batch.targets), _tapped(config, seen["taps"]["blocks"])

    return Model(init, forward, logits, inspect)


def _routed(config: ModelConfig, stats: Stats, routing: Routing) -> Stats:
    """`stats` with the means of `routing` over layers."""
    return stats._replace(
        penalty=config.balance * routing.penalty.mean(),
        load=routing.load,
        dropped=routing.dropped.mean(),
    )


def _gated(config: ModelConfig, gates: Gates | None) -> dict[str, Any]:
    """The collection "gates", named as the modules are."""
    if gates is None:
        return {}
    own = {"attention": {"heads": gates.heads}}
    own[_hidden(config)] = {"hidden": gates.hidden}
    return {"gates": {"blocks": own}}


def _tapped(config: ModelConfig, seen: Any) -> Taps:
    attention, hidden = seen["attention"], seen[_hidden(config)]["hidden"]
    ends, looks = (seen["inputs"], seen["outputs"]), ("queries", "keys")
    return Taps(*ends, *(attention[name] for name in looks), hidden)


def _hidden(config: ModelConfig) -> str:
    """The submodule of a block that has the hidden units."""
    return "experts" if config.experts else "mlp"
