"""Text from a trained model: temperature and top-k sampling in one compiled loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from uets_jax.step import Program
from uets_jax.types import Params


@functools.lru_cache(maxsize=16)
def compile_sampler(program: Program, tokens: int, top_k: int, vocab: int):
    """Jits `(params, window [B, L], filled, temperature, key) -> [B, tokens]`.

    `window` holds the prompt in its first `filled` places; when it is full it slides.
    """

    def sample(
        params: Params,
        window: Int[Array, "b l"],
        filled: Int[Array, ""],
        temperature: Float[Array, ""],
        key: Key[Array, ""],
    ) -> Int[Array, "b t"]:
        length = window.shape[1]

        def step(carry, key):
            window, filled = carry
            last = program.logits(params, window)[:, filled - 1, :vocab]
            chosen = choose_token(last, temperature, top_k, key)
            full = filled == length
            window = jnp.where(full, jnp.roll(window, -1, axis=1), window)
            filled = jnp.where(full, length - 1, filled)
            return (window.at[:, filled].set(chosen), filled + 1), chosen

        _, out = jax.lax.scan(step, (window, filled), jax.random.split(key, tokens))
        return out.T

    return jax.jit(sample)


def choose_token(
    logits: Float[Array, "b v"],
    temperature: Float[Array, ""],
    top_k: int,
    key: Key[Array, ""],
) -> Int[Array, " b"]:
    """One token per row; temperature 0 is greedy, `top_k` 0 keeps all tokens."""
    if top_k and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    warm = jnp.maximum(temperature, 1e-6)
    drawn = jax.random.categorical(key, logits / warm, axis=-1)
    return jnp.where(temperature > 0, drawn, logits.argmax(-1)).astype(jnp.int32)


def generate(
    program: Program,
    params: Params,
    prompt: np.ndarray,
    *,
    context: int,
    vocab: int,
    tokens: int,
    rows: int = 1,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """`rows` continuations [rows, tokens] of the token ids `prompt`, of any length.

    Args:
      context: tokens that the model sees at once.
      vocab: ids that the tokenizer knows; a padded model may have more rows.
    """
    prompt = np.asarray(prompt, np.int32)[-context:]
    window = np.zeros((rows, context), np.int32)
    window[:, : len(prompt)] = prompt[None, :]
    sample = compile_sampler(program, tokens, top_k, vocab)
    out = sample(
        params,
        jnp.asarray(window),
        jnp.asarray(len(prompt), jnp.int32),
        jnp.asarray(temperature, jnp.float32),
        jax.random.key(seed),
    )
    return np.asarray(out)
