"""The table on quadratics of a few steps; the record by the command."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import meta_optimizer, optimizer_small, optimizer_small_starts
from experiments.optimizer_small import row, rows, scored, state_bytes
from experiments.optimizer_small_rules import Arm, by_hand
from experiments.optimizer_small_tuning import GRID, TUNING
from experiments.records import read_record
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.validate import WORST

SGD, ADAM = by_hand(optax.identity()), by_hand(optax.scale_by_adam())
ARMS = (
    Arm("sgd", SGD),
    Arm("given", lambda theta: ADAM(theta), (), ("quadratic-2x2",)),
)


@pytest.fixture(scope="module")
def family():
    return quadratic(2, 2, horizon=10)


@pytest.fixture(scope="module")
def table(family):
    """Rows of both arms, two seeds each."""
    return rows(ARMS, (family,), seeds=2, tune=2)


def test_every_arm_has_a_row_as_it_is_and_one_tuned(table):
    found = [(r["arm"], r["tuned"], r["seen"]) for r in table]
    assert found == [
        ("sgd", False, None),
        ("sgd", True, None),
        ("given", False, "yes"),
        ("given", True, "yes"),
    ]
    for r in table:
        assert {*r} == {*table[0]}
        assert r["family"] == "quadratic-2x2"
        assert (r["seeds"], r["steps"]) == (2, 10)
        assert np.isfinite([r["log_loss"], r["standard_error"]]).all()
        assert r["rate_factor"] == 1.0 or r["tuned"]


def test_the_factor_is_the_best_on_other_seeds(table, family):
    score = scored(ARMS[0], family, 2)
    found = {3.0**k: score(TUNING, 2, 3.0**k).mean() for k in range(-2, 9)}
    [best] = [r["rate_factor"] for r in table if r["tuned"] and r["arm"] == "sgd"]
    assert best == min(found, key=found.get)
    [told] = [r["log_loss"] for r in table if r["tuned"] and r["arm"] == "sgd"]
    assert told == pytest.approx(score(0, 2, best).mean())
    assert best > 3.0 ** GRID[-1] or best in [3.0**k for k in GRID]


def test_scores_of_seeds_do_not_hang_on_how_many_run_at_once(family):
    four, two = (scored(ARMS[0], family, n)(0, 4, 3.0) for n in (4, 2))
    np.testing.assert_allclose(four, two, rtol=1e-5)


def test_runs_that_diverge_are_counted(family):
    away = Arm("away", by_hand(optax.stateless(grow)))
    told = row(away, family, scored(away, family, 2)(0, 2, 1.0))
    assert (told["diverged"], told["log_loss"]) == (1.0, WORST)
    told = row(ARMS[0], family, np.array([WORST, -1.0, -1.0, -3.0]))
    assert (told["diverged"], told["log_loss"]) == (0.25, -1.0)
    assert told["standard_error"] == pytest.approx(np.sqrt(8 / 3 / 4))


def grow(updates, params):
    """Steps away from everything."""
    return jax.tree.map(lambda p: 9 * p + 1e3, params)


def test_bytes_of_the_state_are_those_of_a_parameter(family):
    assert state_bytes(ARMS[0], family) == 0.0
    assert state_bytes(ARMS[1], family) == (2 * 4 * 4 + 4) / 4  # moments and a counter


def test_the_command_writes_the_record(monkeypatch, tmp_path, family):
    asked = []

    def learned(name, config, on, folder):
        asked.append((name, config.minutes, config.updates, folder.name))
        return ARMS[1]._replace(name=name, core_seconds=9.0)

    def starts(family, updates):
        asked.append((family.name, updates))
        return [{**row(ARMS[0], quad, np.zeros(2)), "tuned": True, "rate_factor": 1.0}]

    quad = family
    monkeypatch.setattr(optimizer_small, "learned", learned)
    monkeypatch.setattr(optimizer_small, "hand_written", lambda: [ARMS[0]])
    monkeypatch.setattr(optimizer_small, "shipped", lambda: ARMS[1])
    monkeypatch.setattr(optimizer_small, "families", lambda: (quad,))
    told = lambda arms, families: rows(arms, families, 2, 2)
    monkeypatch.setattr(optimizer_small, "rows", told)
    monkeypatch.setattr(optimizer_small_starts, "rows", starts)
    given = ["--small", "--minutes", "3", "--updates", "7", "--out", str(tmp_path)]
    assert meta_optimizer.main([*given, "--runs", str(tmp_path / "runs")]) == 0
    assert asked == [("mlp", 3.0, 7, "mlp"), ("lstm", 3.0, 7, "lstm"), ("sine", 7)]
    found = read_record("optimizer.small", tmp_path)
    assert len(found["rows"]) == 2 * 4 + 1
    assert found["rows"][-2]["core_seconds"] == 9.0
    assert jnp.isfinite(found["rows"][0]["log_loss"])


def test_a_worker_of_the_comparison_leaves_it_alone(monkeypatch):
    called = []
    monkeypatch.setattr(optimizer_small, "run", lambda *given: called.append(given))
    assert meta_optimizer.main(["--small", "--worker", "0"]) == 0
    assert not called
