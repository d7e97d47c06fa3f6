import pytest

from experiments import baseline_quick
from experiments.baseline_quick import again, job, recorded
from experiments.records import write_record
from uets_jax.errors import UserError

SETTINGS = {
    "learning_rate": 0.004,
    "batch": 4,
    "weight_decay": 0.1,
    "schedule": "wsd",
    "warmup": 0.05,
}


@pytest.fixture
def results(tmp_path):
    """A record of two rows, two budgets and two seeds."""
    rows = [
        {
            "arm": arm,
            "recipe": "b1",
            "track": "clean",
            "mode": mode,
            "text": "clean",
            "depth": 1,
            "seed": seed,
            "budget_units": budget,
            "bits_per_byte": 2.0 + budget,
            **SETTINGS,
        }
        for arm, mode in (("b1", ""), ("b3", "blind"))
        for seed in (1, 2)
        for budget in (0.25, 0.5, 1.0)
    ]
    config = {"unit_flops": 1e9}
    write_record("foundation.baseline_runs", rows, "x", config, out=tmp_path)
    return tmp_path


def test_seed_1_of_the_smaller_budgets_is_run_again(results):
    runs = recorded("clean/b3_blind", results)
    assert [run["budget_units"] for run in runs] == [0.25, 0.5]
    assert {run["seed"] for run in runs} == {1}
    with pytest.raises(UserError, match=r"--quick clean/b9: .*clean/b1"):
        recorded("clean/b9", results)


def test_the_run_is_the_recorded_one(results, tmp_path):
    run = recorded("clean/b1", results)[0]
    config = job(run, tmp_path, 1e9).config
    assert config.data.source == f"tokens:{tmp_path}/clean.b"
    assert config.train.seed == 1
    assert config.train.batch == 4
    assert config.optim.weight_decay == 0.1
    twice = job({**run, "budget_units": 0.5}, tmp_path, 1e9).config.train.steps
    assert twice == pytest.approx(2 * config.train.steps, abs=1)


@pytest.mark.parametrize(("off", "close"), [(0.0, True), (0.03, False)])
def test_it_says_both_figures_and_whether_they_agree(
    results, tmp_path, monkeypatch, off, close
):
    def run_queue(plan, runs, say):
        jobs = plan({})
        budget = lambda one: dict(one.labels)["budget_units"]
        return {one.name: {"bits_per_byte": 2 + budget(one) + off} for one in jobs}

    monkeypatch.setattr(baseline_quick, "run_queue", run_queue)
    said = []
    assert again("clean/b1", tmp_path, results, said.append) == close
    assert said[0] == f"clean/b1 0.25 U: {2.25 + off:.4f} now, 2.2500 recorded"
