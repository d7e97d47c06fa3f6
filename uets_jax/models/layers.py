"""The pieces of a block: norms, rotary positions, attention, MLP.

Two collections of variables stand beside the parameters and are empty in training:
"gates", factors on heads and hidden units, and "taps", what was seen inside.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uets_jax.config import ModelConfig

Hidden = Float[Array, "b l d"]
Heads = Float[Array, "b l h k"]


def kernel_init(config: ModelConfig, output: bool = False):
    """Initializer of a matrix: normal, std 1/sqrt(fan in), or GPT-2's 0.02.

    Matrices that write to the residual stream (`output`) start at zero with
    `zero_init`, else 1/sqrt(2 depth) smaller (Radford et al. 2019).
    """
    if output and config.zero_init:
        return nn.initializers.zeros
    std = 0.02 if config.preset == "gpt2" else config.width**-0.5
    return nn.initializers.normal(std * (2 * config.depth) ** -0.5 if output else std)


def wide(x: Array) -> Array:
    """In float32, or in float64 as it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def gates_of(module: nn.Module, name: str, like: Array) -> Float[Array, "n u"] | None:
    """The module's factors on its units in the dtype of `like`, where there are any."""
    if not module.has_variable("gates", name):
        return None
    return module.get_variable("gates", name).astype(like.dtype)


def tap(module: nn.Module, name: str, value: Array) -> None:
    """Shows a value to who reads the collection "taps"."""
    module.sow("taps", name, value, reduce_fn=lambda old, new: new, init_fn=tuple)


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm, in float32, over the last axis.

    Epsilon is 1e-6 or, for LayerNorm, GPT-2's 1e-5.
    """

    kind: str
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        y = wide(x)
        if self.kind == "layer":
            y = y - y.mean(-1, keepdims=True)
        eps = 1e-5 if self.kind == "layer" else 1e-6
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)
        ones = (1,) * (x.ndim - 1)
        d = x.shape[-1:]
        y = y * self.param("scale", nn.initializers.ones, d).reshape(*ones, *d)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, d).reshape(*ones, *d)
        return y.astype(x.dtype)


class Dropout(nn.Module):
    """Zeroes a share `rate` of the entries and scales the rest by 1 / (1 - rate).

    Without an rng of the collection "dropout" the input passes unchanged.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        if not self.rate or not self.has_rng("dropout"):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def rotate(x: Heads, base: float = 10_000.0) -> Heads:
    """Rotary positions (Su et al. 2021): halves of each head turn by position."""
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * frequency[None, :]
    cos, sin = jnp.cos(angle)[None, :, None, :], jnp.sin(angle)[None, :, None, :]
    a, b = jnp.split(wide(x), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)


class Project(nn.Module):
    """An einsum with a named kernel `w` in the dtype of its input.

    With a bias, `b` has the axes of the output that the kernel has, too; it counts
    `share` times.
    """

    equation: str
    shape: tuple[int, ...]
    bias: bool
    init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, share: Array | None = None) -> Array:
        w = self.param("w", self.init, self.shape).astype(x.dtype)
        y = jnp.einsum(self.equation, x, w)
        if not self.bias:
            return y
        kernel, out = self.equation.split(",")[1].split("->")
        sizes = dict(zip(kernel, self.shape, strict=True))
        shape = tuple(sizes[axis] for axis in out if axis in sizes)
        b = self.param("b", nn.initializers.zeros, shape).astype(x.dtype)
        b = b.reshape([sizes.get(axis, 1) for axis in out])
        return y + (b if share is None else share * b)


def implementation(config: ModelConfig) -> Literal["xla", "cudnn"]:
    """cudnn where it can run: bfloat16 on an NVIDIA GPU without a document mask."""
    if config.attention != "auto":
        return config.attention
    fused = config.dtype == "bfloat16" and not config.mask_documents
    return "cudnn" if fused and jax.default_backend() == "gpu" else "xla"


class Attention(nn.Module):
    """Causal self-attention, grouped if kv_heads < heads."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Hidden,
        segments: Int[Array, "b l"],
        first_values: Heads | None,
        is_first: Float[Array, ""],
    ) -> tuple[Hidden, Heads | None]:
        c = self.config
        d, h, g, k = c.width, c.heads, c.kv_heads, c.head_dim
        init = kernel_init(c)

        def heads(name: str, n: int) -> Heads:
            return Project("bld,dhk->blhk", (d, n, k), c.bias, init, name=name)(x)

        q, keys, v = heads("query", h), heads("key", g), heads("value", g)
        if c.qk_norm:
            q, keys = (
                Norm("rms", name="query_norm")(q),
                Norm("rms", name="key_norm")(keys),
            )
        if c.position == "rope":
            q, keys = rotate(q), rotate(keys)
        tap(self, "queries", q)
        tap(self, "keys", keys)
        if first_values is not None:
            mix = self.param("value_mix", nn.initializers.constant(0.5), ())
            first = is_first.astype(v.dtype)
            first_values = first * v + (1 - first) * first_values
            mix = mix.astype(v.dtype)
            v = (1 - mix) * v + mix * first_values
        mask = None
        if c.mask_documents:
            mask = segments[:, None, :, None] == segments[:, None, None, :]
        out = jax.nn.dot_product_attention(
            q, keys, v, mask=mask, is_causal=True, implementation=implementation(c)
        )
        init = kernel_init(c, output=True)
        project = Project("blhk,hkd->bld", (h, k, d), c.bias, init, name="output")
        gates, share = gates_of(self, "heads", out), None
        if gates is not None:
            out = out * gates[:, None, :, None]
            share = gates.mean(-1)[:, None, None]
        return project(out, share), first_values


class MLP(nn.Module):
    """Two matrices around ReLU^2 (So et al. 2021) or GELU, or three with SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        gates = gates_of(self, "hidden", x)
        y, hidden = feed_forward(
            self.config, x, None if gates is None else gates[:, None, :]
        )
        tap(self, "hidden", hidden)
        return y


def feed_forward(
    c: ModelConfig, x: Array, gates: Array | None = None, experts: int = 0
) -> tuple[Array, Array]:
    """(output, what the last matrix reads) of one MLP, or of one per expert.

    The matrices belong to the module that calls.

    Args:
      c: widths and activation.
      x: [B, L, D], or the rows of each expert, [E, C, D].
      gates: factors on the hidden units [B, L, F] or [E, C, F], or 1 for a size.
      experts: their number, 0: one MLP.
    """
    d, f = c.width, c.hidden
    rows, own, first = ("ec", "e", (experts,)) if experts else ("bl", "", ())

    def into(name: str) -> Array:
        equation, shape = f"{rows}d,{own}df->{rows}f", (*first, d, f)
        return Project(equation, shape, c.bias, kernel_init(c), name=name)(x)

    up = into("up")
    if c.activation == "relu2":
        up = jnp.square(jax.nn.relu(up))
    elif c.activation == "gelu":
        up = jax.nn.gelu(up)
    else:
        up = jax.nn.silu(into("gate")) * up
    share = None
    if gates is not None:
        up, share = up * gates, gates.mean(-1, keepdims=True)
    equation, shape = f"{rows}f,{own}fd->{rows}d", (*first, f, d)
    init = kernel_init(c, output=True)
    return Project(equation, shape, c.bias, init, name="down")(up, share), up
