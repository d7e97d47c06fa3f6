import numpy as np
import pytest

from experiments import growth_policy_ladder
from experiments.growth_policy_ladder import LADDERS, TOKENS
from experiments.growth_policy_train import QUICK, fitted, trained
from uets_jax.errors import UserError
from uets_jax.growth.fit import Curve, predicted
from uets_jax.growth.law import Law
from uets_jax.growth.learned import load_policy, save_policy
from uets_jax.growth.score import FEATURES

STEPS, LADDER = 60, LADDERS["depth"]
DEPTHS = LADDER.sizes
TRUE = Law(
    floor=np.array([3.2, 3.0, 2.7]),
    height=np.array([0.9, 0.8, 0.7]),
    power=np.array([0.35, 0.35, 0.35]),
    drop=np.array([0.2, 0.2, 0.3]),
    cost=np.array([1e6, 2e6, 4e6]),
    jump=0.0,
    lag=5e3,
    noise=0.02,
    start=np.log(1024),
    unit=float(STEPS * TOKENS),
    batch=float(TOKENS),
)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    flops = lambda ladder, depth: int(1e6 * depth * TOKENS)
    monkeypatch.setattr(growth_policy_ladder, "step_flops", flops)


def record(depth, growth=(), seed=0, **more):
    """A finished run whose losses follow the law."""
    path = [(DEPTHS.index(depth), 0.0)]
    path += [(DEPTHS.index(size), TOKENS * step) for step, size in growth]
    steps = np.arange(1, STEPS + 1)
    curve = Curve(tuple(path), steps, steps, float(STEPS * TOKENS))
    losses = predicted(TRUE, curve, (steps - 1) * TOKENS)
    losses = losses + 0.02 * np.random.default_rng(seed).normal(size=STEPS)
    final = predicted(TRUE, curve, curve.end) - TRUE.drop[path[-1][0]]
    found = {
        "horizon": STEPS,
        "diverged": False,
        "final_loss": float(final),
        "flops": {"forward_backward": 1e9},
        "seconds": {"train": 2.0, "compile": 1.0},
        "curve": {"step": steps.tolist(), "loss": losses.tolist()},
        "growth": [{"step": s, "size": d, "why": ""} for s, d in growth],
        "config": {
            "train": {"steps": STEPS, "batch": 8},
            "optim": {"decay": 0.4},
            "data": {"length": 0},
            "model": {"depth": depth, "context": 128},
        },
    }
    return found | more


@pytest.fixture(scope="module")
def records():
    found = [record(depth, seed=depth) for depth in DEPTHS]
    found += [record(1, [(at, 4)], at) for at in (10, 15, 20, 25)]
    return [*found, record(1, [(8, 2), (20, 4)], 99)]


def test_the_law_of_the_records(records):
    wild = record(1, diverged=True, final_loss=None, curve=None)
    found = fitted([*records, wild], LADDER)
    np.testing.assert_allclose(found.law.cost, TRUE.cost)
    assert found.residual == pytest.approx(0.02, rel=0.15)
    assert found.missed < 0.01
    assert found.final_error < 0.05
    with pytest.raises(UserError, match="no curve of size 1"):
        fitted(records[:1], LADDER)


def test_a_policy_is_learned_and_tells_what_it_cost(records, tmp_path):
    effort = QUICK._replace(generations=2, updates=2)
    found = trained(records, LADDER, "python -m x", effort)
    rows = {row["arm"]: row for row in found.rows}
    assert {"start", "cem", "reinforce", "never", "at once"} <= {*rows}
    assert [row["shipped"] for row in rows.values()].count(True) == 1
    assert all(np.isfinite(row["value"]) for row in rows.values())
    policy = found.policy
    assert len(policy.weights) == len(FEATURES)
    surrogate = sum(row["surrogate_flops"] for row in rows.values())
    assert surrogate > 1e5
    assert policy.flops == pytest.approx(8e9 + surrogate)
    assert policy.core_seconds > 8 * 3
    assert policy.config["rollouts"] == 8
    save_policy(tmp_path / "p.json", policy)
    assert load_policy(tmp_path / "p.json").weights == policy.weights
