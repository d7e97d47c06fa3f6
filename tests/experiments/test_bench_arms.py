import itertools

import pytest

from experiments import bench_arms
from experiments.bench_arms import PARTS, Rung, ladder
from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("free_steps")


def test_each_rung_of_the_ladder_adds_one_part():
    for track, without in (("clean", {"select"}), ("mixture", set())):
        rungs = [r for r in ladder(track) if r.mode != "blind"]
        chain = [r for r in rungs if r.name.startswith("+") or r.name == "uets"]
        for before, rung in itertools.pairwise(chain):
            assert rung.parts[:-1] == before.parts
            assert rung.after == before.name
        assert set(chain[-1].parts) == set(PARTS) - without
        alone = [r for r in rungs if r.name.startswith("b2m +")]
        parts = set(chain[-1].parts) - {"memories"}
        counted = ("rows", "backoff")
        wanted = {("start", p) if p in counted else (p,) for p in parts}
        assert {r.parts for r in alone} == wanted
        assert {r.name.split(" + ")[-1] for r in alone} == parts
        [core] = [r for r in rungs if r.name == "uets_core"]
        assert core.base == "b2"
        assert not {"start", "rows", "backoff"} & set(core.parts)
        assert len({r.key for r in rungs}) == len(rungs)


def test_only_what_selects_has_modes():
    for rung in ladder("mixture"):
        assert (rung.mode != "") == ("select" in rung.parts)
    modes = {r.mode for r in ladder("mixture") if r.name == "uets"}
    assert modes == {"target", "blind"}
    assert {r.mode for r in ladder("clean")} == {""}


def test_a_part_switches_on_what_it_names(tmp_path):
    rung = Rung("x", "clean", "", "b2m", ("start", "rows", "lengths", "learned"))
    settings = {"learning_rate": 0.01, "adam_ratio": 1.0, "batch": 16}
    config = bench_arms.configure(tmp_path, rung, settings, 1e11)
    assert config.train.start == "counts"
    assert config.model.memory_rows == bench_arms.ROWS
    assert config.curriculum.lengths
    assert config.optim.name == "learned"
    plain = bench_arms.configure(tmp_path, Rung("y", "clean"), settings, 1e11)
    usual = ExperimentConfig()
    assert plain.train.start == "random"
    assert plain.curriculum == usual.curriculum
    assert plain.growth == usual.growth
    # statistics are paid out of the same budget
    assert plain.train.steps - config.train.steps == 20


def test_a_budget_below_the_statistics_is_refused(tmp_path):
    rung = Rung("x", "clean", "", "b2m", ("start",))
    settings = {"learning_rate": 0.01, "adam_ratio": 1.0, "batch": 16}
    with pytest.raises(UserError, match=r"x: flops: too few; give a larger --unit"):
        bench_arms.configure(tmp_path, rung, settings, 2e10)
