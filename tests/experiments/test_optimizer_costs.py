import itertools

import pytest

from experiments import optimizer_costs
from experiments.optimizer_costs import frozen_rows, step_config, step_costs
from experiments.records import write_record
from experiments.step_times import StepTime
from uets_jax.measure.flops import block_flops


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    stores = tmp_path_factory.mktemp("stores")
    found = {}
    for name in ("muon", "learned", "adamw"):
        found[name] = step_costs(step_config(stores, {"name": name}, 32, 1))
    return found


def test_bytes_of_the_state(costs):
    """Adam: two floats; Muon: one for matrices in blocks; counts on top."""
    _, size, params = costs["adamw"]
    assert 8 <= size / params < 8.01
    assert size > costs["muon"][1]
    assert costs["learned"][1] > size
    assert all(params == other[2] for other in costs.values())


@pytest.mark.parametrize("name", ["learned", "soap"])
def test_what_is_due_every_few_steps_is_charged_as_often(name, tmp_path):
    """FLOPs lie between those of a rule that never and one that always does it."""
    own = {"gate_every": 10} if name == "learned" else {"soap_every": 10}
    always = {key: 1 for key in own}
    some, most = (
        step_costs(step_config(tmp_path, {"name": name, **more}, 32, 1))[0]
        for more in (own, always)
    )
    assert 0 < some["optimizer"] < most["optimizer"]


def test_the_gate_adds_little_to_a_step(costs):
    muon, learned = (sum(costs[n][0].values()) for n in ("muon", "learned"))
    assert 0 < learned / muon - 1 < 0.05
    assert (
        costs["learned"][0]["forward_backward"] == costs["muon"][0]["forward_backward"]
    )


def test_a_frozen_prefix_saves_backward_flops_alone(tmp_path, monkeypatch):
    timed = []

    def step_time(config):
        timed.append(config)
        return StepTime(1.0 - config.model.frozen / 4, 1.0, None)

    monkeypatch.setattr(optimizer_costs, "step_time", step_time)
    rows = frozen_rows(tmp_path, 32, 3)
    write_record("optimizer.frozen", rows, "python", {}, "note", tmp_path)
    assert [row["frozen"] for row in rows] == [0, 1, 2]
    assert [c.model.frozen for c in timed] == [0, 1, 2]
    assert [row["seconds_saved"] for row in rows] == [0, 0.25, 0.5]
    assert rows[0]["backward_saved"] == rows[0]["flops_saved"] == 0
    block = block_flops(timed[0].model, timed[0].model.context, 4096)
    backward = [row["backward_flops"] for row in rows]
    for more, less in itertools.pairwise(backward):
        assert more - less == pytest.approx(2 * block, rel=0.2)  # and elementwise ones
    for name in ("forward_flops", "params"):
        assert rows[2][name] == pytest.approx(rows[0][name], rel=1e-3)
    assert rows[2]["optimizer_flops"] == pytest.approx(
        rows[0]["optimizer_flops"], rel=1e-2
    )
