import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql.alone import selector
from uets_jax.config import SelectConfig
from uets_jax.data.windows import Windows
from uets_jax.errors import UserError
from uets_jax.models.head import head_losses
from uets_jax.types import Moment

LENGTH, WORDS = 16, 40
NAMES = [b" w%d" % i for i in range(WORDS)] + [b"x%d" % i for i in range(WORDS)]
PIECES = [b"", *NAMES]
HOW = SelectConfig(method="aql", candidates=4, run=4, buffer=16, novelty=True)


def text(documents=60, seed=0):
    """Documents of phrases: a word is followed by the same two others."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(documents):
        first = rng.integers(0, WORDS, 40)
        phrase = np.stack([first, (3 * first + 1) % WORDS, (5 * first + 2) % WORDS], 1)
        found += [np.zeros(1, np.int64), 1 + phrase.ravel()]
    return np.concatenate(found)


@pytest.fixture(scope="module")
def made():
    ids = text()
    return ids, selector(ids, 0, PIECES, batch=4, length=LENGTH, config=HOW, width=8)


def test_it_chooses_in_a_plain_loop(made):
    ids, (select, assets) = made
    windows = Windows(ids, 0, LENGTH, 16, seed=0, piece=4)
    params = {"embed": jnp.ones((len(PIECES), 8)), "head": jnp.zeros((8, len(PIECES)))}

    @jax.jit
    def step(state, pool, i):
        key = jax.random.fold_in(jax.random.key(0), i)
        moment = Moment(params, assets, i / 4, key)
        batch, weights, told, state = select.choose(state, pool, moment)
        assert weights is None
        found = params["embed"][batch.tokens], params["head"], batch.targets
        seen, state = select.observe(state, batch, *head_losses(*found, 0.0), moment)
        return batch.ids, told | seen, state

    state, drawn = select.init(params), []
    for i in range(4):
        ids_drawn, metrics, state = step(state, windows[i], i)
        drawn += np.asarray(ids_drawn).tolist()
    assert len(set(drawn)) == 16
    assert set(drawn) <= {int(j) for i in range(4) for j in windows[i].ids}
    assert np.isfinite([float(v) for v in metrics.values()]).all()


@pytest.mark.parametrize(
    ("changes", "sample", "message"),
    [
        ({"run": 3}, None, "multiple of select.run"),
        ({"buffer": 2}, None, "buffer hold a batch"),
        ({"mode": "target"}, None, "sample of target text"),
        ({}, [np.ones(5, np.int64)], "sample of target text"),
    ],
)
def test_what_does_not_fit_is_named(changes, sample, message):
    how = SelectConfig(**{**vars(HOW), **changes})
    with pytest.raises(UserError, match=message):
        selector(text(8), 0, PIECES, 4, LENGTH, how, sample)
