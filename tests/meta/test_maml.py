"""Learned initialisations against what theory and plain training give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.family import Family
from uets_jax.meta.maml import adaptation, learn_start
from uets_jax.meta.task_sine import sine


def parabolas():
    """|w - c|^2 / 2 with c ~ N(3, 1): the best start is the mean of the optima."""
    return Family(
        "parabolas",
        lambda key: 3.0 + jax.random.normal(key, (2,)),
        lambda instance, key: {"w": jax.random.normal(key, (2,))},
        lambda params, c, key, rows: 0.5 * jnp.square(params["w"] - c).sum(),
        lambda params, c: 0.5 * jnp.square(params["w"] - c).sum(),
        batch=1,
    )


@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile"])
def test_the_start_is_the_mean_optimum_of_quadratics(method):
    found = jax.jit(
        lambda key: learn_start(
            parabolas(), key, method, 400, 16, 0.1, 3, outer_rate=0.05
        )
    )(jax.random.key(0))
    np.testing.assert_allclose(found.params["w"], 3.0, atol=0.3)
    assert found.losses[-50:].mean() < 0.5 * found.losses[:5].mean()


def test_sgd_on_a_quadratic_is_its_closed_form():
    adapt = adaptation(parabolas(), 0.1, 3)
    at = adapt({"w": jnp.zeros(2)}, jnp.full(2, 3.0), jax.random.key(0))
    np.testing.assert_allclose(at["w"], 3 * (1 - 0.9**3), rtol=1e-5)


def test_first_order_leaves_out_the_factor_of_the_adaptation():
    """d loss / d w0 = (1 - rate)^(2 steps) (w0 - c), first order: ^(steps)."""
    c = jnp.full(2, 3.0)
    slopes = []
    for first in (False, True):
        adapt = adaptation(parabolas(), 0.1, 3, first)
        loss = lambda w, adapt=adapt: (
            0.5 * jnp.square(adapt({"w": w}, c, jax.random.key(0))["w"] - c).sum()
        )
        slopes.append(jax.grad(loss)(jnp.zeros(2))[0])
    np.testing.assert_allclose(slopes, [-3 * 0.9**6, -3 * 0.9**3], rtol=1e-5)


def test_a_learned_start_adapts_better_on_sinusoids():
    family = sine(16)
    adapt = adaptation(family, 0.02, 5)

    @jax.jit
    def losses(key):
        train, init, test = jax.random.split(key, 3)
        found = learn_start(family, train, "maml", 300, 8, 0.02, 5)
        own, init = jax.random.split(init)
        plain = family.init(family.instance(own), init)

        def after(params, key):
            own, steps = jax.random.split(key)
            instance = family.instance(own)
            return family.held(adapt(params, instance, steps), instance)

        def mean(params, n):
            keys = jax.random.split(jax.random.fold_in(test, n), 64)
            return jax.vmap(after, (None, 0))(params, keys).mean()

        return mean(found.params, 0), mean(plain, 1)

    learned, random = losses(jax.random.key(0))
    assert float(learned) < 0.8 * float(random)


def test_an_unknown_method_is_named():
    with pytest.raises(UserError, match="choose from maml"):
        learn_start(parabolas(), jax.random.key(0), "leap")
