import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from uets_jax.uncertainty.samples import predictive

LOGITS = jax.random.normal(jax.random.key(0), (6, 4, 5, 9)) * 2


def test_it_equals_a_loop_over_the_draws():
    found = predictive(lambda z: z, LOGITS)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    entropy = np.mean([stats.entropy(q, axis=-1) for q in p], 0)
    np.testing.assert_allclose(found.mean, p.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        found.entropy, stats.entropy(p.mean(0), axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(found.bald, found.entropy - entropy, atol=1e-5)
    np.testing.assert_allclose(found.variance, p.var(0).sum(-1), atol=1e-6)


def test_draws_that_agree_have_no_information():
    found = predictive(lambda z: z, jnp.repeat(LOGITS[:1], 7, 0))
    assert found.bald.max() < 1e-5
    assert found.variance.max() < 1e-6


def test_draws_that_are_sure_and_differ_have_log_s():
    sure = 1e4 * jax.nn.one_hot(jnp.arange(8), 8)
    found = predictive(lambda z: z, sure)
    np.testing.assert_allclose(found.bald, np.log(8), rtol=1e-5)
    np.testing.assert_allclose(found.variance, 1 - 1 / 8, rtol=1e-5)


def test_memory_does_not_grow_with_the_draws():
    logits = lambda key: jax.random.normal(key, (64, 512))
    keys = lambda n: jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))
    run = jax.jit(lambda k: predictive(logits, k).bald)
    analysis = lambda n: run.lower(keys(n)).compile().memory_analysis()
    size = lambda n: getattr(analysis(n), "temp_size_in_bytes")  # noqa: B009
    assert size(64) < size(4) + 64 * 512 * 4
