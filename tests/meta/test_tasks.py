"""Families: distinct instances, losses that learn, held-out data apart, batch rows."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.errors import UserError
from uets_jax.meta import task_text
from uets_jax.meta.family import distinct
from uets_jax.meta.nets import conv, mlp
from uets_jax.meta.task_gpt import gpt
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.task_vision import digits, has_digits, shapes, vision
from uets_jax.meta.tasks import default_tasks, listing, named_instance


def text(seed, n=8192, vocab=40):
    return np.random.default_rng(seed).integers(0, vocab, n)


SMALL = {
    "quadratic": lambda: quadratic(4, 3),
    "vector": lambda: quadratic(6, 1),
    "shapes": lambda: vision(shapes(8), mlp((8,), "tanh"), 8),
    "conv": lambda: vision(shapes(8), conv((4, 4), "gelu"), 8),
    "markov": lambda: gpt(task_text.markov(16), 8, 1, 8, 4),
    "words": lambda: gpt(task_text.words(16, 12), 8, 1, 8, 4),
    "echo": lambda: gpt(task_text.echo(16), 8, 2, 12, 4),
    "texts": lambda: gpt(task_text.texts({"a": text(0), "b": text(1)}), 8, 1, 8, 4),
}
if has_digits():
    SMALL["digits"] = lambda: vision(digits(8), mlp((8,)), 8)


@pytest.mark.parametrize("name", SMALL)
def test_instances_are_finite_distinct_and_learn(name):
    family = SMALL[name]()

    rule = optax.adam(1e-2)

    @jax.jit
    def go(key):
        own, init, train = jax.random.split(key, 3)
        instance = family.instance(own)
        first = family.init(instance, init)

        def step(carry, k):
            params, opt = carry
            rows = jnp.asarray(family.batch)
            grads = jax.grad(family.loss)(params, instance, k, rows)
            updates, opt = rule.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt), None

        start, keys = (first, rule.init(first)), jax.random.split(train, 60)
        (params, _), _ = jax.lax.scan(step, start, keys)
        return instance, family.held(first, instance), family.held(params, instance)

    one, two = go(jax.random.key(1)), go(jax.random.key(2))
    for _, before, after in (one, two):
        assert 0 < float(after) < float(before)
    same = [
        np.array_equal(_plain(a), _plain(b))
        for a, b in zip(*map(jax.tree.leaves, (one[0], two[0])), strict=True)
    ]
    assert not all(same)


def _plain(x):
    key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if key else x)


def test_a_hundred_listed_instances_differ_and_validation_is_apart():
    tasks = default_tasks({"a": text(0), "b": text(1), "c": text(2)})
    names = listing(tasks)
    assert len(names) == len(set(names)) >= 100
    seen = set()
    for name in names:
        family, instance = named_instance(tasks, name)
        leaves = [_plain(x).tobytes() for x in jax.tree.leaves(instance)]
        seen.add((family.name, b"".join(leaves)))
    assert len(seen) == len(names)
    train, valid = ({f.name for f in part} for part in tasks)
    assert not train & valid
    assert not any("c" in n.split("/")[-1].split("+") for n in train)
    assert any(n.endswith("/c") for n in valid)


def test_default_tasks_need_no_data():
    tasks = default_tasks()
    assert len(tasks.train) >= 7
    assert len(tasks.valid) == 2


def test_rows_repeat_the_first_ones():
    draws = jnp.arange(10, 18)
    np.testing.assert_array_equal(
        distinct(jnp.asarray(3), 8, draws), [10, 11, 12, 10, 11, 12, 10, 11]
    )
    np.testing.assert_array_equal(distinct(jnp.asarray(99), 8, draws), draws)


def test_held_rows_of_a_text_are_never_trained_on():
    ids = np.arange(8192)
    source = task_text.texts({"a": ids})
    instance = source.instance(jax.random.key(0))
    held = {int(i) for i in np.asarray(source.held(instance, 9)).ravel()}
    drawn = source.draw(instance, jax.random.key(1), 4096, 9, jnp.asarray(4096))
    drawn = set(np.asarray(drawn).ravel().tolist())
    assert not held & drawn
    first = int(instance.first)
    assert min(drawn) >= first
    assert max(held) < first + 2048


def test_a_markov_chain_has_its_transition_frequencies():
    source = task_text.markov(4)
    chain = source.instance(jax.random.key(0))
    rows = np.asarray(
        source.draw(chain, jax.random.key(1), 2000, 20, jnp.asarray(2000))
    )
    counts = np.zeros((4, 4))
    np.add.at(counts, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    wanted = np.diff(np.asarray(chain.cumulative), axis=1, prepend=0)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), wanted, atol=0.02)


def test_an_echo_is_the_code_of_what_was():
    source = task_text.echo(16, 5)
    own = source.instance(jax.random.key(0))
    rows = source.draw(own, jax.random.key(1), 4, 14, jnp.asarray(4))
    np.testing.assert_array_equal(rows[:, 5:], own.code[rows[:, :-5]])


def test_a_quadratic_has_its_optimum_and_condition():
    family = quadratic(6, 1, condition=100.0)
    instance = family.instance(jax.random.key(0))
    at = family.held({"w": instance.goal}, instance)
    np.testing.assert_allclose(at, instance.floor)
    grown = np.linalg.eigvalsh(np.asarray(instance.left))
    assert 1 < (grown.max() / grown.min()) ** 2 <= 101


def test_bad_texts_are_named():
    with pytest.raises(UserError, match="at least one"):
        task_text.texts({})
    with pytest.raises(UserError, match="a has 100 tokens"):
        task_text.texts({"a": text(0, 100)})
    with pytest.raises(UserError, match="vocab of 8"):
        task_text.texts({"a": text(0)}, 8)
    with pytest.raises(UserError, match="did you mean 'relu'"):
        mlp((8,), "rellu")


def test_the_package_imports_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.datasets'] = "
        "None\nfrom uets_jax.meta.tasks import default_tasks\n"
        "from uets_jax.meta.task_vision import digits\n"
        "assert len(default_tasks().train) >= 7\n"
        "try:\n    digits()\nexcept ValueError as e:\n    print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install scikit-learn" in done.stdout
