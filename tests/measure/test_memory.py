"""The oracle is XLA: `memory_analysis()` of the same program, compiled."""

import jax
import jax.numpy as jnp
import pytest

from uets_jax.measure.memory import peak

# the buffers are given out before machine code is made: it may be slow
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
N = 256
X = jax.ShapeDtypeStruct((N, N), jnp.float32)
SIZE = 4 * N * N
TABLE = jax.ShapeDtypeStruct((8, N, N), jnp.float32)


def both(traced, widened=False):
    """(our account, XLA's) of a traced program."""
    gifts = [leaf.donated for leaf in jax.tree.leaves(traced.args_info)]
    exact = traced.lower().compile(compiler_options=QUICK).memory_analysis()
    assert exact is not None
    return peak(traced.jaxpr, gifts, widened=widened), exact


def heavy(x):
    return (x @ x) @ (x @ x).T


CASES = {
    "elementwise": (lambda x: jnp.tanh(jnp.exp(x) * 2 + x), (X,), 0),
    "reduced": (lambda x: jnp.square(x - 1).sum(), (X,), 0),
    "matmuls": (lambda x: jnp.exp(x @ x) @ x, (X,), 1),
    "transposed": (lambda x: jnp.exp(x).T @ x, (X,), 1),
    "carried": (
        lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, 5),
        (X,),
        1,
    ),
    "stacked": (
        lambda t, x: jax.lax.scan(lambda c, y: (c @ y, c.sum()), x, t)[1].sum(),
        (TABLE, X),
        3,
    ),
    "unused": (lambda x: (heavy(x), x)[1] + 1, (X,), 0),
    "scattered": (lambda x: jnp.exp(x).at[3, 4].add(1.0) @ x, (X,), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_temporaries_of_small_programs_equal_xlas(case):
    function, shapes, buffers = CASES[case]
    ours, xla = both(jax.jit(function).trace(*shapes))
    assert ours.arguments == xla.argument_size_in_bytes
    assert ours.outputs == pytest.approx(xla.output_size_in_bytes, abs=64)
    assert ours.temporaries == pytest.approx(buffers * SIZE, rel=0.02, abs=4096)
    assert xla.temp_size_in_bytes == pytest.approx(buffers * SIZE, rel=0.05, abs=8192)


def test_donated_arguments_lend_their_buffers():
    step = lambda x, y: (x + y, (x * y).sum())
    ours, xla = both(jax.jit(step, donate_argnums=0).trace(X, X))
    assert ours.aliased == xla.alias_size_in_bytes == SIZE
    assert ours.peak == 2 * SIZE + 4 + ours.temporaries
    assert ours.temporaries < 64
    assert peak(jax.make_jaxpr(step)(X, X)).aliased == 0


def test_a_branch_needs_what_the_costlier_arm_needs():
    def program(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x + 1, heavy, x)

    alone = peak(jax.make_jaxpr(heavy)(X)).temporaries
    assert peak(jax.make_jaxpr(program)(X)).temporaries == pytest.approx(alone, abs=64)


def test_what_a_fused_kernel_never_writes_is_left_out():
    program = jax.make_jaxpr(lambda q, k: jax.nn.softmax(q @ k.T) @ k)
    q = jax.ShapeDtypeStruct((N, 16), jnp.float32)
    whole, fused = peak(program(q, q)), peak(program(q, q), (), [N * N])
    assert whole.temporaries >= SIZE
    assert fused.temporaries < SIZE / 4


@pytest.mark.parametrize(
    ("preset", "optimizer", "fields"),
    [  # the first four as in test_jaxpr
        ("modern", "adamw", {"rows": 16}),
        ("modern", "muon", {"rows": 16, "parts": 4, "depth": 4, "remat": True}),
        ("gpt2", "adamw", {"rows": 16, "parts": 2, "vocab": 1031, "remat": True}),
        ("gpt2", "lion", {"parts": 2, "activation": "swiglu", "kv_heads": 1}),
        ("modern", "adamw", {"rows": 16, "dtype": "bfloat16"}),
    ],
)
def test_the_peak_of_a_train_step_is_within_a_quarter_of_xlas(
    step_of, preset, optimizer, fields
):
    ours, xla = both(step_of(preset, optimizer, **fields)[1], widened=True)
    exact = (
        xla.argument_size_in_bytes
        + xla.output_size_in_bytes
        - xla.alias_size_in_bytes
        + xla.temp_size_in_bytes
    )
    assert ours.peak == pytest.approx(exact, rel=0.25)
    assert ours.arguments == pytest.approx(xla.argument_size_in_bytes, rel=0.02)
    assert ours.aliased == pytest.approx(xla.alias_size_in_bytes, rel=0.02)
