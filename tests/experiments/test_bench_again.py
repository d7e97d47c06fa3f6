import pytest

from experiments import bench_again
from experiments.bench_again import again, find, on_record, spread
from experiments.bench_plan import Options
from experiments.records import write_record
from uets_jax.errors import UserError

SETTINGS = {"learning_rate": 0.01, "adam_ratio": 1.0, "batch": 16}
SETTINGS |= {"b1": 0.7, "momentum": 0.85}


pytestmark = pytest.mark.usefixtures("free_steps")


@pytest.fixture
def record(tmp_path):
    """Runs of clean/uets at two budgets."""
    rows = [
        {"track": "clean", "arm": "uets", "mode": "", "diverged": False, **SETTINGS}
        | {"budget_units": budget, "seed": seed, "bits_per_byte": 1.7 - budget}
        for budget in (0.125, 0.5)
        for seed in (1, 2, 3)
    ]
    write_record("bench.runs", rows, "a command", {"unit_flops": 1e12}, out=tmp_path)
    return tmp_path


def rerun(monkeypatch, off: float):
    """A queue whose runs miss the record by so much."""
    asked = []

    def queue(plan, runs, say):
        jobs = plan({})
        asked.extend(dict(job.labels) for job in jobs)
        return {
            job.name: {**dict(job.labels), "bits_per_byte": 1.7 - budget + off}
            for job in jobs
            for budget in [dict(job.labels)["budget_units"]]
        }

    monkeypatch.setattr(bench_again, "run_queue", queue)
    return asked


@pytest.mark.parametrize(("off", "same"), [(0.0, True), (0.001, True), (0.05, False)])
def test_a_row_is_run_again_and_compared(off, same, record, monkeypatch, capsys):
    asked = rerun(monkeypatch, off)
    options = Options(record, {("clean", ""): (2.0, 1.7)}, unit=1e12)
    found = again(find("clean/uets"), options, record, record, quick=False)
    assert found is same
    assert {(a["budget_units"], a["seed"]) for a in asked} == {
        (b, s) for b in (0.125, 0.5) for s in (1, 2, 3)
    }
    assert asked[0]["b1"] == 0.7
    assert ("OUTSIDE" in capsys.readouterr().out) is not same


def test_quick_is_one_seed_at_small_budgets_and_says_what_that_is_worth(
    record, monkeypatch, capsys
):
    asked = rerun(monkeypatch, 0.0)
    options = Options(record, {("clean", ""): (2.0, 1.7)}, unit=1e12)
    assert again(find("clean/uets"), options, record, record, quick=True)
    assert [(a["budget_units"], a["seed"]) for a in asked] == [(0.125, 1)]
    assert "not significant" in capsys.readouterr().out


def test_a_row_without_runs_is_named(record):
    with pytest.raises(UserError, match="clean/uets_core: no runs on record"):
        on_record(find("clean/uets_core"), record)


def test_a_row_is_found_by_track_name_and_mode():
    assert find("clean/uets").parts[-1] == "learned"
    assert find("mixture/uets/blind").mode == "blind"
    with pytest.raises(UserError, match=r"--row clean/uetz.*clean/uets"):
        find("clean/uetz")


def test_a_row_may_differ_as_its_seeds_do():
    low, high = spread([1.70, 1.72, 1.74])
    assert (low, high) == pytest.approx((1.658, 1.782))
    assert spread([1.7]) == pytest.approx((1.698, 1.702))
