import jax
import numpy as np
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.measure.jaxpr import count
from uets_jax.measure.ledger import Ledger
from uets_jax.measure.signals import look, removal
from uets_jax.report.metrics import read_metrics
from uets_jax.train import loop
from uets_jax.train.growing import next_batch
from uets_jax.train.growth_cost import growth_costs
from uets_jax.train.looking import SHOWN, in_use, looked, measured
from uets_jax.train.mesh import put_batch
from uets_jax.train.session import open_session
from uets_jax.train.start import begin

SCALARS = ("noise_scale", "slope", "slope_error")


def test_units_in_use_are_the_participation_ratio():
    scores = np.array([[2.0] * 4, [3, 0, 0, 0], [1, 1, 0, 0], [0] * 4])
    np.testing.assert_allclose(in_use(scores), [1, 0.25, 0.5, 0])


def started(config, out, mesh):
    """A run before its first step, its outputs no longer zero."""
    config = replace_from_dict(config, {"train": {"mesh": mesh}})
    run = begin(open_session(config), out, False, Ledger(), [])
    rng = np.random.default_rng(0)
    add = lambda x: x + np.asarray(0.1 * rng.normal(size=x.shape), x.dtype)
    shaken = jax.tree.map(
        lambda x: jax.device_put(add(x), x.sharding), run.state.params
    )
    run.state = run.state._replace(params=shaken)
    return run


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    found = started(config, tmp_path_factory.mktemp("one") / "run", {"data": 1})
    yield found
    found.metrics.close()


def test_a_look_shows_every_layer_and_is_charged(run):
    before = run.ledger.costs.get("growth")
    state = jax.tree.map(np.asarray, jax.device_get(run.state.params))
    found = looked(run, next_batch(run))
    shapes = {name: np.shape(value) for name, value in found.items()}
    layers = dict.fromkeys((*SHOWN, "units", "removal"), (2,))
    assert shapes == {**layers, "heads": (2, 2), **dict.fromkeys(SCALARS, ())}
    assert before is None
    session, batch = run.session, put_batch(next_batch(run), run.session.mesh)
    read = (
        (lambda p, b: look(session.program.inspect, p, b, False)),
        (lambda p, b: removal(session.program.inspect, p, b)),
    )
    given = (run.state.params, batch)
    costs = (count(jax.jit(one).trace(*given).jaxpr).most() for one in read)
    total = sum(cost.total for each in costs for cost in each.values())
    assert run.ledger.costs["growth"].total == total
    after = jax.tree.map(np.asarray, jax.device_get(run.state.params))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_removal_is_the_loss_without_a_layer(run):
    """Measured once more, by a model of one layer, for the last one."""
    batch = next_batch(run)
    found = measured(run, batch, "removal")
    whole, part = (
        run.session,
        run.session.reshaped(replace_from_dict(run.session.config.model, {"depth": 1})),
    )
    params = run.state.params
    less = {**params, "blocks": jax.tree.map(lambda x: x[:1], params["blocks"])}
    put = put_batch(batch, whole.mesh)
    losses = lambda session, p: jax.jit(session.program.forward)(p, put)[0]
    loss = lambda *given: np.asarray(losses(*given), np.float64).sum()
    rise = loss(part, less) - loss(whole, params)
    assert found[1] == pytest.approx(rise / (batch.targets >= 0).sum(), abs=2e-6)


def test_eight_devices_see_what_one_sees(run, config, tmp_path):
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    spread = started(config, tmp_path / "run", mesh)
    batch = next_batch(run)
    alone, found = looked(run, batch), looked(spread, batch)
    spread.metrics.close()
    for name in (*SHOWN, "units", "removal"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-3, atol=1e-4)


def test_a_run_looks_at_fixed_steps_and_pays(config, tmp_path):
    often = replace_from_dict(config, {"growth": {"look_every": 3}})
    result = loop.train(often, tmp_path / "run")
    lines = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    seen = [r for r in lines if "signals" in r]
    assert [r["step"] for r in seen] == [3, 6]
    assert {*seen[0]["signals"]} == {*SHOWN, "units", "removal", *SCALARS}
    assert np.isfinite(seen[1]["signals"]["slope"])
    assert len(seen[0]["signals"]["heads"]) == 2
    spent = {r["step"]: r["flops"] for r in lines if "loss" in r}
    look_cost = result.summary["flops"]["growth"] / 2
    assert growth_costs(often)["growth"].total == 2 * look_cost
    assert spent[4] - spent[3] == look_cost + spent[2] - spent[1]
    assert seen[0]["flops"] == spent[3] + look_cost
    plain = loop.train(config, tmp_path / "plain").summary
    assert plain["params_sha256"] == result.summary["params_sha256"]
