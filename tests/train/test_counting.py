import dataclasses

import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.train.counting import AT_ONCE, counted_text, offered_first
from uets_jax.train.executable import shapes as shapes_of
from uets_jax.train.executable import trace_step
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


def test_every_token_that_is_not_trained_on_first_is_counted_once(session):
    windows = session.windows
    text = counted_text(windows, session.config.train.steps)
    _, rows, length = text.targets.shape
    assert length == session.config.model.context
    assert rows * length <= AT_ONCE
    tokens = session.store.tokens("train")
    steps = session.config.train.steps
    offered = {int(i) for s in range(steps) for i in windows.order(s)}
    assert 0 < len(offered) <= windows.count / 2
    kept = [
        tokens[i * length + 1 : (i + 1) * length + 1]
        for i in range(windows.count)
        if i not in offered
    ]
    flat = text.targets.ravel()
    np.testing.assert_array_equal(flat[flat != IGNORED], np.concatenate(kept))


def test_a_long_run_leaves_half_of_the_text_to_be_counted(session):
    found = offered_first(session.windows, 10**6)
    assert len(set(found.tolist())) == session.windows.count // 2
    assert set(session.windows.order(0).tolist()) <= set(found.tolist())


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


def test_a_seed_begins_alike_and_another_counts_other_text(session):
    """What is held out follows the order of the data."""
    other = dataclasses.replace(
        session,
        config=dataclasses.replace(
            session.config, train=dataclasses.replace(session.config.train, seed=1)
        ),
    )
    begin = lambda s: jax.tree.map(np.asarray, s.initial_state().params)
    one, again, two = map(begin, (session, session, other))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    for name in ("embed", "head", "memory"):
        same = jax.tree.map(np.array_equal, one[name], two[name])
        assert not any(jax.tree.leaves(same))


def test_a_tied_head_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*tied"):
        open_session(counting(tiny, corpus, tied=True))


def test_an_own_model_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*own init"):
        open_session(counting(tiny, corpus), {"init": lambda key: {}})


def test_a_vocabulary_too_large_to_square_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"train\.start.*8,192"):
        open_session(counting(tiny, corpus, vocab=10_000))


@pytest.mark.parametrize(
    "rule", [pytest.param("adamw", marks=pytest.mark.slow), "muon"]
)
def test_tables_that_are_not_trained_cost_nothing_and_stay(
    rule, tiny, corpus, tmp_path
):
    """No gradient, no moments, no decay; the rest of the model learns."""
    config = counting(tiny, corpus, memory_rows=64, memory_trained=False)
    optim = dataclasses.replace(config.optim, name=rule, weight_decay=0.5)
    train_config = dataclasses.replace(config.train, steps=3, checkpoint_every=0)
    config = dataclasses.replace(config, optim=optim, train=train_config)
    session = open_session(config)
    begun = session.initial_state()
    tables = jax.tree.map(np.asarray, begun.params["memory"])
    assert jax.tree.leaves(tables)[0].any()
    shapes = [x.shape for x in jax.tree.leaves(begun.opt)]
    assert (64, config.model.width) not in shapes
    result = train(config, tmp_path / "run")
    after = result.state.params
    jax.tree.map(np.testing.assert_array_equal, tables, after["memory"])
    assert not np.array_equal(after["embed"]["table"], begun.params["embed"]["table"])
    trained = open_session(
        dataclasses.replace(
            config, model=dataclasses.replace(config.model, memory_trained=True)
        )
    )
    held, moved = (
        sum(c.total for c in step_cost(s).values()) for s in (session, trained)
    )
    assert held < moved


def step_cost(session):
    """FLOPs of a step by category."""
    traced = trace_step(session.program, session.mesh, shapes_of(session.config))
    return count(traced.jaxpr).total()


def test_tables_that_nobody_fills_are_refused(tiny, corpus):
    config = counting(tiny, corpus, memory_rows=64, memory_trained=False)
    config = dataclasses.replace(config, train=tiny.train)
    with pytest.raises(UserError, match=r"memory_trained.*counts"):
        open_session(config)
