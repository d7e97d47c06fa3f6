"""The pieces of a block: norms, rotary positions, attention, MLP."""

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


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm, in float32, over the last axis.

    Epsilon is 1e-6 or, for LayerNorm, GPT-2's 1e-5.
    """

    kind: str
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        y = x.astype(jnp.float32)
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
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)


class Project(nn.Module):
    """An einsum with a named kernel `w` (and bias `b`) in the dtype of its input."""

    equation: str
    shape: tuple[int, ...]
    bias_shape: tuple[int, ...] | None
    init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = self.param("w", self.init, self.shape).astype(x.dtype)
        y = jnp.einsum(self.equation, x, w)
        if self.bias_shape is not None:
            b = self.param("b", nn.initializers.zeros, self.bias_shape)
            b = b.astype(x.dtype)
            y = y + b.reshape((1,) * (y.ndim - b.ndim) + b.shape)
        return y


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
            bias = (n, k) if c.bias else None
            return Project("bld,dhk->blhk", (d, n, k), bias, init, name=name)(x)

        q, keys, v = heads("query", h), heads("key", g), heads("value", g)
        if c.qk_norm:
            q, keys = (
                Norm("rms", name="query_norm")(q),
                Norm("rms", name="key_norm")(keys),
            )
        if c.position == "rope":
            q, keys = rotate(q), rotate(keys)
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
        bias = (d,) if c.bias else None
        project = Project(
            "blhk,hkd->bld", (h, k, d), bias, kernel_init(c, output=True), name="output"
        )
        return project(out), first_values


class MLP(nn.Module):
    """Two matrices around ReLU^2 (So et al. 2021) or GELU, or three with SwiGLU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        c = self.config
        d, f = c.width, c.hidden
        bias = (f,) if c.bias else None

        def into(name: str) -> Float[Array, "b l f"]:
            return Project("bld,df->blf", (d, f), bias, kernel_init(c), name=name)(x)

        up = into("up")
        if c.activation == "relu2":
            up = jnp.square(jax.nn.relu(up))
        elif c.activation == "gelu":
            up = jax.nn.gelu(up)
        else:
            up = jax.nn.silu(into("gate")) * up
        bias = (d,) if c.bias else None
        init = kernel_init(c, output=True)
        return Project("blf,fd->bld", (f, d), bias, init, name="down")(up)
