import jax
import numpy as np
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.growth.stages import Op
from uets_jax.measure.ledger import Ledger
from uets_jax.train.choosing import completed
from uets_jax.train.growing import next_batch
from uets_jax.train.looking import measured
from uets_jax.train.session import open_session
from uets_jax.train.start import begin


@pytest.fixture(scope="module")
def make(config, tmp_path_factory):
    """prune, model fields -> a run before its first step, with outputs drawn."""

    def started(prune, **model):
        values = {"growth": {"prune": prune}, "model": model}
        session = open_session(replace_from_dict(config, values))
        out = tmp_path_factory.mktemp("run") / "run"
        run = begin(session, out, False, Ledger(), [])
        run.metrics.close()
        rng = np.random.default_rng(0)
        draw = lambda x: np.asarray(0.1 * rng.normal(size=x.shape), x.dtype)
        params = jax.tree.map(lambda x: x + draw(x), run.state.params)
        run.state = run.state._replace(params=params)
        return run

    return started


def best(scores, n):
    """Indices of the n greatest, rising."""
    return tuple(sorted(np.argsort(-np.asarray(scores), kind="stable")[:n].tolist()))


def test_an_op_that_grows_stays_as_it_is(make):
    run, op = make("importance"), Op("depth", 3, "identity")
    assert completed(run, next_batch(run), op) is op
    assert not run.ledger.costs


def test_importance_keeps_what_the_loss_leans_on(make):
    run = make("importance", depth=3, heads=4, kv_heads=4, head_dim=8)
    batch = next_batch(run)
    seen = measured(run, batch, "look")
    spent = run.ledger.costs["growth"].total
    keep = completed(run, batch, Op("hidden", 5, "new")).keep
    assert keep == tuple(best(row, 5) for row in seen.hidden)
    heads = completed(run, batch, Op("heads", 2, "new")).keep
    assert heads == (best(seen.heads.sum(0), 2),) * 3  # of the value residual
    assert run.ledger.costs["growth"].total == 3 * spent
    loss = measured(run, batch, "removal")
    layers = completed(run, batch, Op("depth", 2, "identity")).keep
    assert layers == ((0, 1 + int(loss[2] > loss[1])),)


def test_without_a_value_residual_each_layer_keeps_its_own_best_groups(make):
    groups = {"heads": 6, "kv_heads": 3, "head_dim": 8, "depth": 3}
    run = make("magnitude", value_residual=False, **groups)
    keep = completed(run, next_batch(run), Op("heads", 4, "new")).keep
    w = np.asarray(run.state.params["blocks"]["attention"]["output"]["w"])
    size = np.sqrt(np.square(w).sum((2, 3))).reshape(3, 3, 2).sum(2)
    pairs = lambda row: tuple(h for g in best(row, 2) for h in (2 * g, 2 * g + 1))
    assert keep == tuple(map(pairs, size))
    assert not run.ledger.costs


def test_magnitude_weighs_layers_by_what_they_write(make):
    run = make("magnitude", depth=4)
    blocks = run.state.params["blocks"]
    for room, name in (("attention", "output"), ("mlp", "down")):
        w = blocks[room][name]["w"]
        blocks[room][name]["w"] = w.at[2].mul(9.0).at[1].mul(3.0)
    [keep] = completed(run, next_batch(run), Op("depth", 3, "identity")).keep
    assert keep == (0, 1, 2)
    [keep] = completed(run, next_batch(run), Op("depth", 2, "identity")).keep
    assert keep == (0, 2)


def test_chance_depends_on_seed_and_step_alone(make):
    run, op = make("random"), Op("hidden", 64, "new")
    first = completed(run, next_batch(run), op).keep
    assert completed(run, next_batch(run), op).keep == first
    assert first[0] != first[1]
    assert [len(row) for row in first] == [64, 64]
    run.at.step += 1
    assert completed(run, next_batch(run), op).keep != first
    assert completed(run, next_batch(run), Op("depth", 1, "identity")).keep == ((0,),)
