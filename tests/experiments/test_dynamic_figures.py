import xml.etree.ElementTree as ElementTree

import pytest

from experiments.dynamic_figures import ARMS, curve, main, stale, two_points
from experiments.records import RESULTS, write_record

RUNS = [
    {
        "arm": arm,
        "tokens_per_param": per_param,
        "share": share,
        "seed": seed,
        "total_flops": 1e11 * per_param * share,
        "bits_per_byte": 2.2 - 0.1 * share + 0.02 * seed,
    }
    for arm in ARMS
    for per_param in (10,)
    for share in (1.0, 1.5)
    for seed in (1, 2)
]
TARGET = [
    {
        "arm": arm,
        "tokens_per_param": per_param,
        "flops_least_budget": 1e11 * (number + 1),
        "bits_per_byte_least_budget": 2.2,
        "flops_to_target": 3e11,
        "bits_per_byte_equal_tokens": 2.1,
    }
    for number, arm in enumerate(ARMS)
    for per_param in (3, 10)
]
GAPS = [
    {"arm": arm, "step": step, "seeds": 2, "gap": 0.1 / step}
    for arm in ("muon reset", "adamw template")
    for step in (5, 10)
]


@pytest.fixture
def results(tmp_path):
    write_record("growth.target", TARGET, "x", {}, out=tmp_path)
    write_record("growth.target_runs", RUNS, "x", {}, out=tmp_path)
    write_record("growth.moments_curve", GAPS, "x", {}, out=tmp_path)
    return tmp_path


def test_a_curve_has_the_means_of_each_budget():
    [first, second] = curve(RUNS, "static")
    assert first == pytest.approx((1e12, 2.13))
    assert second == pytest.approx((1.5e12, 2.08))


def test_without_single_runs_a_curve_has_two_points():
    rows = [row for row in TARGET if row["tokens_per_param"] == 3]
    assert two_points(rows, "static") == [(1e11, 2.2), (3e11, 2.1)]
    assert two_points(rows, "grow_fixed") == [(3e11, 2.1), (4e11, 2.2)]
    assert two_points(rows[:1], "grow_fixed") == []


def test_every_arm_is_named_on_both_panels(results):
    assert main(["--results", str(results)]) == 0
    text = (results / "growth_target.svg").read_text()
    ElementTree.fromstring(text)
    for name in ("static, 4 layers", "1 layer", "grow_fixed", "grow_random"):
        assert text.count(f">{name}</text>") == 2
    for per_param in (3, 10):
        assert f">{per_param} tokens per parameter</text>" in text


def test_a_stale_figure_is_told_and_mended(results, capsys):
    assert main(["--results", str(results), "--check"]) == 1
    assert "growth_moments.svg: stale" in capsys.readouterr().out
    assert main(["--results", str(results)]) == 0
    assert main(["--results", str(results), "--check"]) == 0


def test_a_missing_record_is_one_line(tmp_path, capsys):
    assert main(["--results", str(tmp_path)]) == 2
    assert "growth.target" in capsys.readouterr().err


def test_the_figures_of_the_repository_are_those_of_its_records():
    assert stale(RESULTS) == []
