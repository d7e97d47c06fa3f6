import json

import chex
import jax
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.stages import Op
from uets_jax.train.mesh import abstract_state
from uets_jax.train.session import open_session
from uets_jax.train.shapes import abstract_at, model_at, ops_of, session_at

WIDER = {"field": "hidden", "size": 160, "how": "split", "keep": []}
DEEPER = {"field": "depth", "size": 4, "how": "stack", "keep": []}
LESS = {"field": "heads", "size": 1, "how": "", "keep": [[0], [0], [1], [1]]}
HISTORY = [{"step": 3, "ops": [DEEPER, WIDER]}, {"step": 5, "ops": [LESS]}]


def record(*history):
    return json.loads(json.dumps({"step": 8, "position": {"growth": history}}))


def test_ops_are_read_back_as_they_were_done():
    [event] = record(HISTORY[1])["position"]["growth"]
    assert ops_of(event) == (Op("heads", 1, "", ((0,), (0,), (1,), (1,))),)
    assert hash(ops_of(event))


def test_a_checkpoint_has_the_model_that_its_history_made(tiny):
    model = model_at(tiny.model, record(*HISTORY))
    sizes = (model.depth, model.hidden, model.heads, model.kv_heads)
    assert sizes == (4, 160, 1, 1)
    assert model_at(tiny.model, record(HISTORY[0])).heads == 2


@pytest.mark.parametrize("old", [{}, {"position": {}}, record()])
def test_without_a_history_the_model_is_that_of_the_start(tiny, old):
    assert model_at(tiny.model, old) is tiny.model


def test_a_history_that_does_not_fit_is_refused(tiny):
    with pytest.raises(UserError, match="depth=4: the model has 4 already"):
        model_at(tiny.model, record(HISTORY[0], HISTORY[0]))


def test_the_session_is_the_same_run_in_other_shapes(config):
    session = open_session(config)
    assert session_at(session, record()) is session
    grown = session_at(session, record(*HISTORY))
    assert grown.config.model.depth == 4
    assert grown.windows is session.windows
    assert grown.store is session.store
    found = abstract_at(session, record(*HISTORY))
    chex.assert_trees_all_equal(found, abstract_state(grown.program, session.mesh))
    assert found.params["blocks"]["mlp"]["up"]["w"].shape == (4, 32, 160)
    assert all(x.sharding is not None for x in jax.tree.leaves(found))


def test_selection_refers_to_the_model_before_the_last_growth(config):
    """As shapes, for the run's own are stored apart; pruning is no growth."""
    values = {
        "select": {"method": "rho", "reference": "snapshot", "candidates": 2},
        "growth": {"method": "fixed", "plan": "depth=4:0.5"},
    }
    session = open_session(replace_from_dict(config, values))
    assert session_at(session, record()).assets.reference is None
    wider = {"step": 6, "ops": [{**WIDER, "size": 200}]}
    for history, hidden in ((HISTORY, 128), ([*HISTORY, wider], 160)):
        snapshot = session_at(session, record(*history)).assets.reference
        assert snapshot.params["blocks"]["mlp"]["up"]["w"].shape[-1] == hidden
