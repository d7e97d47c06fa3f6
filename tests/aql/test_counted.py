import dataclasses

import jax
import numpy as np
import pytest

from uets_jax.aql.assets import Assets, fit_text, knobs
from uets_jax.aql.counted import worth_counting
from uets_jax.config import KnobsConfig, SelectConfig
from uets_jax.types import Batch

EOT, VOCAB, LENGTH, RUN, ROWS = 0, 40, 16, 2, 4
SELECT = SelectConfig(method="aql", run=RUN, candidates=4)


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    """Two languages of words (ids 1..19 and 20..39), each a chain of its own."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(64):
        low = 1 if number % 4 else 20
        table = np.random.default_rng(low).dirichlet(np.full(19, 0.08), 19)
        tokens = [int(rng.integers(19))]
        for _ in range(126):
            tokens.append(int(rng.choice(19, p=table[tokens[-1]])))
        found.append(np.array(tokens, np.int32) + low)
    return found


def windows(documents) -> Batch:
    flat = np.concatenate([np.append(EOT, d) for d in documents])
    flat = flat[: len(flat) // (ROWS * LENGTH) * ROWS * LENGTH].astype(np.int32)
    cut = flat.reshape(-1, ROWS, LENGTH)
    return Batch(cut, np.roll(flat, -1).reshape(cut.shape), cut[..., 0], cut * 0)


def assets(documents, target=None) -> Assets:
    starts = np.ones(VOCAB, bool)
    text = fit_text(documents, EOT, starts, LENGTH, RUN, target)
    return Assets(knobs(KnobsConfig()), text)


def test_with_a_sample_the_share_that_is_chosen_is_most_like_it(documents):
    known = assets(documents, documents[::4][:8])
    batch = windows(documents)
    select = dataclasses.replace(SELECT, natural=False, novelty=False)
    keep = np.asarray(jax.jit(lambda a, t: worth_counting(select, a, t))(known, batch))
    assert keep.mean() == pytest.approx(1 / 4, abs=0.02)
    like = np.asarray(batch.tokens) >= 20
    assert like.mean(-1)[keep].mean() > 0.9
    assert like.mean(-1)[~keep].mean() < 0.1


def test_without_a_sample_only_bars_and_copies_are_left_out(documents):
    known = assets(documents)
    twice = windows([*documents, *documents])
    select = dataclasses.replace(SELECT, natural=False)
    keep = np.asarray(worth_counting(select, known, twice))
    half = len(keep) // 2
    assert keep[:half].mean() > 0.9
    assert keep[half + 1 :].mean() < 0.1
    every = dataclasses.replace(select, novelty=False)
    assert worth_counting(every, known, twice).all()


def test_shuffled_text_is_barred(documents):
    rng = np.random.default_rng(1)
    shuffled = [rng.permutation(d) for d in documents[:32]]
    known = assets(documents)
    select = dataclasses.replace(SELECT, novelty=False)
    plain = worth_counting(select, known, windows(documents)).mean()
    mixed = worth_counting(select, known, windows(shuffled)).mean()
    assert plain > mixed + 0.5


def test_without_a_text_there_is_nothing_to_judge_by(documents):
    with pytest.raises(ValueError, match="no text"):
        worth_counting(SELECT, Assets(knobs(KnobsConfig())), windows(documents))
