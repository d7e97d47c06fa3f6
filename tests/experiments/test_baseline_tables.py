import json

import pytest

from experiments import arms, search
from experiments.baseline_plan import SHARES, Baselines, Choice, Options, Row
from experiments.baseline_tables import (
    not_bracketed,
    on_an_edge,
    statistics,
    trials_on_disk,
    write_tables,
)
from experiments.records import read_record
from experiments.step_times import StepTime
from uets_jax.errors import UserError

TIME = StepTime(0.01, 2.0, 10**6)


def bits(labels):
    """A smooth bowl around settings inside the grids, falling with the budget."""
    rate = {"b0": 0.004, "b1": 0.004}.get(labels["recipe"], 0.02)
    off = (labels["learning_rate"] / rate - 1) ** 2 + (labels["batch"] / 8 - 1) ** 2
    worth = {"b0": 1, "b1": 2, "b2": 4, "b2m": 8}[labels["recipe"]]
    budget = worth * labels["budget_units"] / labels["depth"] ** 0.5
    return 1.5 + 0.5 * budget**-0.3 + 0.01 * off + 1e-4 * labels["seed"]


def record(job):
    """What a run would leave."""
    labels = dict(job.labels)
    labels.setdefault("stage", "final")
    flops = int(labels["budget_units"] * arms.UNIT)
    return {
        "name": job.name,
        **labels,
        "diverged": False,
        "bits_per_byte": bits(labels),
        "steps": job.config.train.steps,
        "tokens": job.config.train.steps * labels["batch"] * arms.LENGTH,
        "params": 1,
        "flops": {"forward_backward": flops, "evaluation": 1},
        "seconds": {"train": 1.0},
    }


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(plan of the track clean, the results of everything it wants)."""
    stores = tmp_path_factory.mktemp("stores")
    plan, results = Baselines(Options(stores, ("clean",), seeds=2)), {}
    with pytest.MonkeyPatch.context() as patch:  # the real one traces every program
        patch.setattr(
            arms, "step_flops", lambda arm, depth, batch: depth * batch * 10**8
        )
        while new := [job for job in plan(results) if job.name not in results]:
            results |= {job.name: record(job) for job in new}
        yield plan, results


def test_all_tables_are_written_from_the_runs(planned, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.baseline_tables.step_time", lambda config: TIME)
    plan, results = planned
    written = write_tables(plan, results, tmp_path / "runs", tmp_path, "command")
    assert [path.stem for path in written] == [
        f"foundation.{name}"
        for name in ("tuning", "baseline_runs", "baselines", "targets")
    ]
    rows = {row["arm"]: row for row in read_record(written[2].stem, tmp_path)["rows"]}
    assert set(rows) == {"b0", "b1", "b2", "b2m"}
    assert rows["b0"]["flops_ratio_b0"] == pytest.approx(1)
    for arm, worth in (("b1", 2), ("b2", 4), ("b2m", 8)):
        assert rows[arm]["depth"] == 1
        assert rows[arm]["flops_ratio_b0"] == pytest.approx(worth, rel=0.05)
        assert rows[arm]["t1_bracketed_within_2x"]
        trials = [r for r in results.values() if r["recipe"] == arm]
        assert rows[arm]["tuning_runs"] == sum(r["stage"] != "final" for r in trials)
        saved = rows["b0"]["flops_to_t1"] - rows[arm]["flops_to_t1"]
        repaid = rows[arm]["tuning_flops"] / saved
        assert rows[arm]["break_even_runs"] == pytest.approx(repaid)
    assert rows["b0"]["break_even_runs"] is None
    config = read_record(written[0].stem, tmp_path)["config"]
    assert config["on_an_edge"]["clean/b2"] == []
    assert config["unit_flops"] == arms.UNIT
    times = json.loads((tmp_path / "runs" / "step_times.json").read_text())
    assert times["b2_d1_b8"]["step_seconds"] == 0.01


def test_tuning_alone_writes_the_trials_alone(planned, tmp_path):
    plan, results = planned
    tuning = Baselines(Options(plan.options.stores, ("clean",), tune_only=True))
    trials = {n: r for n, r in results.items() if r["stage"] != "final"}
    written = write_tables(tuning, trials, tmp_path, tmp_path, "command")
    assert [path.stem for path in written] == ["foundation.tuning"]
    assert len(read_record(written[0].stem, tmp_path)["rows"]) == len(trials)


def test_open_ends_are_told():
    axes = arms.axes("b1")
    top = tuple(len(axis.values) - 1 for axis in axes)
    settings = search.settings(axes, top)
    choice = Choice("b1", 1, tuple(settings.items()))
    edge = on_an_edge(Row("b1", "clean", "", "clean", choice))
    assert edge == ["learning_rate", "batch", "weight_decay", "warmup"]
    for share, told in ((SHARES[0], True), (SHARES[1], False)):
        row = Row("b3", "mixture", "blind", f"b3.blind.{share:g}", choice)
        assert ("share" in on_an_edge(row)) == told
    lone = {"stage": "tune", "arm": "b1", "bits_per_byte": 2.0, **settings}
    assert "schedule" in not_bracketed("b1", {"x": lone})


def test_trials_of_an_earlier_grid_are_found(tmp_path):
    path = tmp_path / "tune" / "clean" / "b0_s0.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "tune/clean/b0_s0", "config_hash": ""}))
    assert list(trials_on_disk(tmp_path)) == ["tune/clean/b0_s0"]
    path.write_text("{")
    with pytest.raises(UserError, match=r"b0_s0\.json: .*delete it"):
        trials_on_disk(tmp_path)


def test_what_cleaning_has_cost_is_read_from_beside_its_text(planned, tmp_path):
    plan, results = planned
    rows = plan.rows(results, [])
    assert statistics(plan, rows) == {}
    said = plan.options.stores / "clean.json"
    said.write_text(json.dumps({"statistics_flops": 7}))
    assert statistics(plan, rows) == {"clean": 7}
    said.unlink()
