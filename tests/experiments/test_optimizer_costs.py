import pytest

from experiments.optimizer_costs import step_config, step_costs


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


def test_the_gate_adds_little_to_a_step(costs):
    muon, learned = (sum(costs[n][0].values()) for n in ("muon", "learned"))
    assert 0 < learned / muon - 1 < 0.05
    assert (
        costs["learned"][0]["forward_backward"] == costs["muon"][0]["forward_backward"]
    )
