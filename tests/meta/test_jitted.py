import jax
import jax.numpy as jnp
import numpy as np

from uets_jax.meta import jitted
from uets_jax.meta.jitted import quick_jit


def double_sum(x, y):
    return {"sum": 2 * x + y, "max": jnp.max(y)}


def test_it_is_jit():
    x, y = jnp.arange(4.0), jnp.ones(4)
    found = quick_jit(double_sum)(x, y)
    np.testing.assert_allclose(found["sum"], 2 * x + y)
    assert float(found["max"]) == 1.0


def test_options_of_jit_are_passed_on():
    given = jnp.ones(4)
    np.testing.assert_allclose(quick_jit(jnp.sin, donate_argnums=0)(given), np.sin(1.0))
    assert given.is_deleted()
    keyword = quick_jit(lambda x, n: x * n, static_argnames="n")
    assert float(keyword(jnp.ones(()), n=3)) == 3.0


def test_other_machines_get_no_options_of_a_cpu(monkeypatch):
    given = []
    monkeypatch.setattr(jitted.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jitted.jax, "jit", lambda f, **more: given.append(more))
    quick_jit(jax.numpy.sin)
    assert given == [{"compiler_options": None}]
