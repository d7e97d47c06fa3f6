import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.models.axes import hidden_matrix, map_axes
from uets_jax.optim.soap import scale_by_soap

MATRICES = functools.partial(map_axes, hidden_matrix)
STEPS, EVERY = 11, 3
RATE = optax.linear_schedule(0.1, 0.0, 100)


def tree(seed, dtype=jnp.float32, m=5, n=5):
    """A stack of two matrices, one with two output axes, and a vector."""
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    blocks = {
        "mlp": {"up": {"w": make(2, m, n)}, "down": {"b": make(2, 4)}},
        "attention": {"query": {"w": make(2, 4, 2, 2)}},
    }
    return {"blocks": blocks, "final_norm": {"scale": make(3)}}


def run(tx, steps=STEPS, make=tree):
    """(updates of each step, last state)."""
    state, update, found = tx.init(make(0)), jax.jit(tx.update), []
    for seed in range(steps):
        u, state = update(make(seed), state)
        found.append(u)
    return found, state


def reference(gradients, b1=0.9, b2=0.95, eps=1e-8, every=EVERY, sides=(True, True)):
    """SOAP on one matrix, in NumPy: algorithm 3 of the paper, with the first step and
    the order of columns as in the authors' code.
    """
    m = np.zeros_like(gradients[0])
    v, age, found = np.zeros_like(m), 0, []
    factors = [np.zeros((n, n)) for n in m.shape]
    bases = [np.eye(n) for n in m.shape]
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        began = t > 1
        if began:
            age += 1
            turned = bases[0].T @ g @ bases[1]
            v = b2 * v + (1 - b2) * turned**2
            step = bases[0].T @ (m / (1 - b1**t)) @ bases[1]
            step = step / (np.sqrt(v / (1 - b2**age)) + eps)
            found.append(bases[0] @ step @ bases[1].T)
        else:
            found.append(np.zeros_like(g))
        for side, outer in enumerate((g @ g.T, g.T @ g)):
            factors[side] = b2 * factors[side] + (1 - b2) * outer
            if not sides[side]:
                continue
            if not began:
                bases[side] = np.linalg.eigh(factors[side])[1][:, ::-1]
            elif t % every == 0:
                q = bases[side]
                order = np.argsort(-np.diag(q.T @ factors[side] @ q))
                v = np.take(v, order, side)
                bases[side] = np.linalg.qr(factors[side] @ q[:, order])[0]
    return found


def checked(found, pick, make, **settings):
    for layer in range(2):
        one = lambda t, i=layer: np.asarray(pick(t)[i], np.float64)
        gradients = [one(make(seed)) for seed in range(len(found))]
        shape = gradients[0].shape
        flat = lambda x, s=shape: x.reshape(s[0], -1)
        expected = reference(list(map(flat, gradients)), **settings)
        for u, v in zip(found, expected, strict=True):
            np.testing.assert_allclose(flat(one(u)), v, rtol=1e-5, atol=1e-5)


def test_updates_equal_the_paper_s_algorithm_matrix_by_matrix():
    with jax.enable_x64(True):
        make = functools.partial(tree, dtype=jnp.float64)
        found, _ = run(scale_by_soap(MATRICES, every=EVERY), make=make)
        checked(found, lambda t: t["blocks"]["mlp"]["up"]["w"], make)
        checked(found, lambda t: t["blocks"]["attention"]["query"]["w"], make)


@pytest.mark.parametrize(("m", "n"), [(3, 6), (6, 3)])
def test_a_long_side_keeps_the_identity(m, n):
    with jax.enable_x64(True):
        make = functools.partial(tree, dtype=jnp.float64, m=m, n=n)
        tx = scale_by_soap(MATRICES, every=EVERY, max_dim=4)
        found, state = run(tx, make=make)
        pick = lambda t: t["blocks"]["mlp"]["up"]["w"]
        checked(found, pick, make, sides=(m < 5, n < 5))
    sides = state.sides["blocks"]["mlp"]["up"]["w"]
    assert (sides.left is None, sides.right is None) == (m > 4, n > 4)


def test_single_precision_stays_near_double():
    single, _ = run(scale_by_soap(MATRICES, every=EVERY))
    with jax.enable_x64(True):
        make = functools.partial(tree, dtype=jnp.float64)
        double, _ = run(scale_by_soap(MATRICES, every=EVERY), make=make)
        for a, b in zip(single, double, strict=True):
            chex.assert_trees_all_close(
                a, jax.tree.map(lambda x: np.float32(x), b), rtol=1e-3, atol=1e-3
            )


def test_without_bases_it_is_adam():
    ours, _ = run(scale_by_soap(MATRICES, max_dim=0))
    adam, _ = run(optax.scale_by_adam(b1=0.9, b2=0.95))
    chex.assert_trees_all_close(ours, adam, rtol=1e-5, atol=1e-7)


def test_with_identity_bases_it_is_adam():
    """Also where there are factors: their bases are held at the identity."""
    tx = scale_by_soap(MATRICES, every=1000)
    adam = optax.scale_by_adam(b1=0.9, b2=0.95)
    state, theirs = tx.init(tree(0)), adam.init(tree(0))
    begun = lambda x: x._replace(left=x.left_basis, right=x.right_basis)
    is_sides = lambda x: hasattr(x, "left_basis")
    sides = jax.tree.map(
        lambda x: x if x.age is None else begun(x), state.sides, is_leaf=is_sides
    )
    state = state._replace(sides=sides)
    for seed in range(4):
        ours, state = jax.jit(tx.update)(tree(seed), state)
        expected, theirs = adam.update(tree(seed), theirs)
        chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_leaves_that_are_no_matrices_get_adam():
    ours, _ = run(scale_by_soap(MATRICES))
    adam, _ = run(optax.scale_by_adam(b1=0.9, b2=0.95))
    pick = lambda t: (t["final_norm"], t["blocks"]["mlp"]["down"])
    for a, b in zip(ours, adam, strict=True):
        chex.assert_trees_all_close(pick(a), pick(b), rtol=1e-5, atol=1e-7)


def test_bases_stay_orthogonal_and_in_the_order_of_their_eigenvalues():
    _, state = run(scale_by_soap(MATRICES, every=1), steps=8)
    for s in (
        state.sides["blocks"]["mlp"]["up"]["w"],
        state.sides["blocks"]["attention"]["query"]["w"],
    ):
        for q in (s.left_basis, s.right_basis):
            eye = np.broadcast_to(np.eye(q.shape[-1]), q.shape)
            np.testing.assert_allclose(np.swapaxes(q, 1, 2) @ q, eye, atol=1e-5)


def test_it_is_equivariant_to_rotations_of_inputs_and_outputs():
    """W -> A W B: what Adam is not."""
    rng = np.random.default_rng(9)
    a, b = (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2))

    def turned(seed):
        up = lambda w: jnp.einsum("ij,ljk,km->lim", a, w, b)
        t = tree(seed, jnp.float64)
        mlp = {**t["blocks"]["mlp"], "up": {"w": up(t["blocks"]["mlp"]["up"]["w"])}}
        return {**t, "blocks": {**t["blocks"], "mlp": mlp}}

    with jax.enable_x64(True):
        plain, _ = run(
            scale_by_soap(MATRICES, every=EVERY),
            make=functools.partial(tree, dtype=jnp.float64),
        )
        rotated, _ = run(scale_by_soap(MATRICES, every=EVERY), make=turned)
        for u, v in zip(plain, rotated, strict=True):
            w = u["blocks"]["mlp"]["up"]["w"]
            expected = jnp.einsum("ij,ljk,km->lim", a, w, b)
            np.testing.assert_allclose(
                v["blocks"]["mlp"]["up"]["w"], expected, rtol=1e-6, atol=1e-8
            )


def test_a_matrix_without_gradient_begins_when_it_has_one():
    """As a block whose output is zero at first; its neighbour is not held up."""

    def late(seed):
        t = tree(seed)
        w = t["blocks"]["mlp"]["up"]["w"]
        up = {"w": w.at[0].multiply(seed >= 2)}
        return {"blocks": {"mlp": {"up": up}}}

    found, state = run(scale_by_soap(MATRICES, every=EVERY), steps=5, make=late)
    norms = [np.linalg.norm(u["blocks"]["mlp"]["up"]["w"], axis=(1, 2)) for u in found]
    assert [bool(n[0] > 0) for n in norms] == [False, False, False, True, True]
    assert [bool(n[1] > 0) for n in norms] == [False, True, True, True, True]
    ages = state.sides["blocks"]["mlp"]["up"]["w"].age
    assert ages.tolist() == [2, 4]


def test_the_state_says_which_branches_were_taken():
    tx = scale_by_soap(MATRICES, every=EVERY)
    state, seen = tx.init(tree(0)), []
    for seed in range(6):
        _, state = jax.jit(tx.update)(tree(seed), state)
        taken = {k: int(v) for k, v in state.taken.items()}
        seen.append((taken["soap_begin"], taken["soap_refresh"]))
    assert seen == [(1, 0), (0, 0), (0, 1), (0, 0), (0, 0), (0, 1)]


def test_it_learns_what_adam_finds_hard():
    """A quadratic whose curvature is a Kronecker product in a turned basis."""
    rng = np.random.default_rng(0)
    make = lambda: np.linalg.qr(rng.normal(size=(8, 8)))[0]
    spectrum = np.diag(np.logspace(0, -2, 8))
    a, b = (jnp.asarray(q @ spectrum @ q.T, jnp.float32) for q in (make(), make()))
    target = jnp.asarray(rng.normal(size=(1, 8, 8)), jnp.float32)
    loss = lambda p: 0.5 * jnp.square(a @ (p["blocks"]["up"]["w"] - target) @ b).sum()

    def final(direction):
        tx = optax.chain(direction, optax.scale_by_learning_rate(RATE))
        params = {"blocks": {"up": {"w": jnp.zeros((1, 8, 8))}}}

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = params, tx.init(params)
        (params, _), _ = jax.lax.scan(step, start, length=100)
        return float(loss(params))

    soap = final(scale_by_soap(MATRICES, every=5))
    assert soap < 0.5 * final(optax.scale_by_adam(b1=0.9, b2=0.95))


def test_eigenvectors_are_taken_of_one_matrix_at_a_time():
    """LAPACK's call for a stack waits for the pool of threads that it runs in."""
    tx = scale_by_soap(MATRICES, every=EVERY)
    text = str(jax.make_jaxpr(tx.update)(tree(0), tx.init(tree(0))))
    shapes = re.findall(r"f32\[([\d,]+)\] \w+:f32\[[\d,]+\] = eigh\[", text)
    assert {*shapes} == {"4,4", "5,5"}
