import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from uets_jax.errors import UserError
from uets_jax.uncertainty.ensemble import ensemble, stack

X = jax.random.normal(jax.random.key(0), (4, 3, 12))
MEMBERS = [{"w": jax.random.normal(jax.random.key(i), (12, 7))} for i in (1, 2, 3)]


def logits(params, x):
    return jnp.einsum("bli,iv->blv", x, params["w"])


def test_it_equals_a_loop_over_the_members():
    found = ensemble(logits, MEMBERS, X)
    p = [np.asarray(jax.nn.softmax(logits(m, X))) for m in MEMBERS]
    entropy = lambda q: stats.entropy(q, axis=-1)
    bald = entropy(np.mean(p, 0)) - np.mean([entropy(q) for q in p], 0)
    np.testing.assert_allclose(found.mean, np.mean(p, 0), rtol=1e-5)
    np.testing.assert_allclose(found.bald, bald, atol=1e-5)


def test_a_stacked_tree_is_a_list():
    listed, stacked = ensemble(logits, MEMBERS, X), ensemble(logits, stack(MEMBERS), X)
    chex.assert_trees_all_equal(listed, stacked)


@pytest.mark.parametrize(
    ("members", "culprit"),
    [([], "no members"), ([{"w": jnp.ones(3)}, {"w": jnp.ones(4)}], "member 1")],
)
def test_members_that_do_not_fit_are_refused(members, culprit):
    with pytest.raises(UserError, match=culprit):
        stack(members)
