import dataclasses

import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.train.counting import AT_ONCE, counted_text
from uets_jax.train.loop import train
from uets_jax.train.session import open_session
from uets_jax.types import IGNORED


def counting(tiny, corpus, **model):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, **{"vocab": 0, **model})
    start = dataclasses.replace(tiny.train, start="counts")
    return dataclasses.replace(tiny, data=data, model=model, train=start)


@pytest.fixture(scope="module")
def session(tiny, corpus):
    return open_session(counting(tiny, corpus, memory_rows=64))


def test_every_token_is_a_target_of_the_counted_text_once(session):
    text = counted_text(session.config, session.store)
    _, rows, length = text.targets.shape
    assert length == session.config.model.context
    assert rows * length <= AT_ONCE
    flat = text.targets.ravel()
    tokens = session.store.tokens("train")
    np.testing.assert_array_equal(flat[flat != IGNORED], tokens[1:])


def test_the_start_beats_a_random_one_and_is_charged(tiny, session, tmp_path):
    """Before the first step, on text that was not counted."""
    plain = dataclasses.replace(
        session, config=dataclasses.replace(session.config, train=tiny.train)
    )
    batch = next(session.evaluation("valid"))
    forward = jax.jit(session.program.forward)
    losses = [
        float(forward(s.initial_state().params, batch)[0].sum())
        for s in (session, plain)
    ]
    assert losses[0] < 0.7 * losses[1]
    costs = session.start_costs()
    assert plain.start_costs() == {}
    square = session.config.model.vocab**2
    assert costs.keys() == {"statistics"}
    assert costs["statistics"].matmul > 20 * 6 * square * session.config.model.width
    result = train(session.config, tmp_path / "run")
    assert result.summary["flops"]["statistics"] == costs["statistics"].total


def test_seeds_differ_in_the_blocks_alone(session):
    other = dataclasses.replace(
        session,
        config=dataclasses.replace(
            session.config, train=dataclasses.replace(session.config.train, seed=1)
        ),
    )
    one, two = (s.initial_state().params for s in (session, other))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), one, two)
    assert same["embed"]["table"]
    assert same["head"]["w"]
    assert not same["blocks"]["mlp"]["up"]["w"]


def test_a_tied_head_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*tied"):
        open_session(counting(tiny, corpus, tied=True))


def test_an_own_model_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*own init"):
        open_session(counting(tiny, corpus), {"init": lambda key: {}})


def test_a_vocabulary_too_large_to_square_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*8,192"):
        open_session(counting(tiny, corpus, vocab=10_000))
