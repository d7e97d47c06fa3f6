import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql.assets import Assets, fit_text, knobs
from uets_jax.aql.merit import BARRED, merit
from uets_jax.config import KnobsConfig, SelectConfig

EOT, VOCAB, LENGTH, RUN = 0, 40, 16, 2
SELECT = SelectConfig(method="aql", run=RUN)


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    """Two languages of words (ids 1..19 and 20..39), each a chain of its own."""
    found = []
    for number in range(48):
        low = 1 if number % 4 else 20
        table = np.random.default_rng(low).dirichlet(np.full(19, 0.08), 19)
        rng = np.random.default_rng(number)
        tokens = [int(rng.integers(19))]
        for _ in range(126):
            tokens.append(int(rng.choice(19, p=table[tokens[-1]])))
        found.append(np.array(tokens, np.int32) + low)
    return found


def windows(documents) -> np.ndarray:
    """[n, L]: every 8 rows a document."""
    return np.stack([np.append(EOT, d) for d in documents]).reshape(-1, LENGTH)


def known(documents, target=None) -> Assets:
    text = fit_text(documents, EOT, np.ones(VOCAB, bool), LENGTH, RUN, target)
    return Assets(knobs(KnobsConfig()), text)


def scores(assets, tokens):
    return merit(SELECT, assets.text, assets.knobs, jnp.asarray(tokens))


def test_a_window_has_the_same_score_in_any_company(documents):
    assets, tokens = known(documents, documents[:16:4]), windows(documents)
    keys, kind, bar = scores(assets, tokens[:8])
    other, *_ = scores(assets, tokens[:32])
    np.testing.assert_allclose(keys, other[:8], rtol=1e-5, atol=1e-5)
    assert (kind >= 0).all()
    assert ((bar == 0) | (bar <= -BARRED)).all()


def test_with_a_sample_what_is_like_it_scores_higher(documents):
    assets, tokens = known(documents, documents[:16:4]), windows(documents)
    keys, *_ = scores(assets, tokens)
    like = (tokens >= 20).mean(1) > 0.5
    assert keys[like].min() > keys[~like].max()


def test_shuffled_text_is_barred_and_the_more_so_the_less_natural(documents):
    assets, tokens = known(documents), windows(documents)
    rng = np.random.default_rng(1)
    shuffled = windows([rng.permutation(d) for d in documents])
    plain, mixed = (np.asarray(scores(assets, t)[2]) for t in (tokens, shuffled))
    assert (plain == 0).mean() > 0.9
    assert (mixed == 0).mean() < 0.3


def test_scores_that_are_off_are_nought(documents):
    off = SelectConfig(method="aql", run=RUN, natural=False, lexical=False)
    assets = known(documents, documents[:16:4])
    found = merit(off, assets.text, assets.knobs, jnp.asarray(windows(documents)))
    assert not any(np.asarray(x).any() for x in found)
