"""Tiny transformers on tokens: they learn, and their loss is that of the house."""

import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.meta.task_gpt import gpt, gpt_config
from uets_jax.meta.task_text import echo, markov


def test_instances_are_finite_distinct_and_learn(learns):
    learns(gpt(echo(16), 8, 2, 12, 4))


def test_an_untrained_model_is_near_the_entropy_of_guessing(key):
    family = gpt(markov(16), 8, 1, 8, 4)
    assert family.name == "gpt-8x1x8/markov-16"
    assert family.weight_decay == 0.1

    @jax.jit
    def losses(key):
        one, two, three = jax.random.split(key, 3)
        own = family.instance(one)
        params, rows = family.init(own, two), jnp.asarray(4)
        return family.held(params, own), family.loss(params, own, three, rows)

    np.testing.assert_allclose(losses(key), np.log(16), rtol=0.1)


def test_heads_are_of_width_8_and_blocks_are_stacked(key):
    config = gpt_config(32, 24, 3, 16)
    assert (config.heads, config.head_dim, config.width) == (3, 8, 24)
    assert gpt_config(32, 4, 1, 16).heads == 1
    family = gpt(echo(32), 24, 3, 16)
    shapes = jax.eval_shape(family.init, None, key)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes["blocks"])} == {3}
