"""The search against a made-up world: a bowl around its best settings."""

import json
import math
from pathlib import Path

import pytest

from experiments import aql_meta, arms
from experiments.aql_meta import SEARCHED, START, Search, finite, main, write
from experiments.aql_plan import EVAL_TOKENS, Options
from uets_jax.meta import knobs as assets
from uets_jax.meta.strategy import EvolutionConfig
from uets_jax.validation import validate

SMALL = EvolutionConfig(runs=24, pairs=3, check=2)


@pytest.fixture(autouse=True)
def cheap(monkeypatch, tmp_path):
    """FLOPs of a step without a trace; nothing is shipped."""
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    monkeypatch.setattr(assets, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()


def make():
    return Search(Options(Path("stores"), ()), SMALL)


def bowl(it):
    """Less novelty and a later gate are better; a seed shifts all alike."""
    return 2.0 + 0.1 * math.log(it["novelty"] / 2) ** 2 + 0.01 * it["seed"]


def run(search, world=bowl):
    """Every wanted job at once, until there is none."""
    results = {}
    while left := [job for job in search(results) if job.name not in results]:
        for job in left:
            it = dict(job.labels)
            bits, flops = world(it), {"forward_backward": 100, "evaluation": 7}
            record = {"bits_per_byte": bits, "diverged": bits is None}
            results[job.name] = {**it, **record, "flops": flops}
    return search(results), results


@pytest.fixture
def whole():
    return run(make())


def test_it_depends_on_the_results_alone(whole):
    jobs, results = whole
    assert results.keys() == {job.name for job in jobs}
    names = list(results)
    assert len(jobs) == len({job.name for job in jobs}) <= SMALL.runs
    for share in (0.0, 0.3, 0.7, 1.0):
        some = names[: round(share * len(names))]
        asked = [make()({n: results[n] for n in order}) for order in (some, some[::-1])]
        assert asked[0] == asked[1]


def test_every_run_is_of_the_arm_with_other_knobs(whole):
    for job in whole[0]:
        validate(job.config)
        it, config = dict(job.labels), job.config
        assert config.select.mode == "target"
        assert not config.select.policy
        assert config.data.source == "tokens:stores/mixture.a"
        assert config.train.eval_tokens == EVAL_TOKENS
        assert config.train.seed == it["seed"]
        for knob in SEARCHED:
            value = getattr(config.select.knobs, knob.name)
            assert value == it[knob.name]
            assert knob.low <= value <= knob.high
            assert knob.start == getattr(START, knob.name)


def test_what_is_reported_was_not_read_by_the_search(whole):
    seeds = {}
    for job in whole[0]:
        it = dict(job.labels)
        seeds.setdefault(it["phase"], set()).add(it["seed"])
    assert seeds.keys() == {"search", "choose", "confirm"}
    assert not seeds["confirm"] & (seeds["search"] | seeds["choose"])
    assert not seeds["choose"] & seeds["search"]


def test_what_was_found_is_shipped_with_its_cost(whole, tmp_path):
    path = write(make(), whole[1], tmp_path, "a command")
    record = json.loads(path.read_text())
    rows = {row["settings"]: row for row in record["rows"]}
    assert set(rows) == {"start", "mean", "incumbent"}
    first = record["rows"][0]
    assert first["runs"] == len(whole[0])
    assert first["total_flops"] == 100 * len(whole[0])
    assert first["bits_per_byte"] <= first["start_bits_per_byte"]
    asset = assets.read(tmp_path / "shipped" / "aql.json")
    assert asset.flops == first["total_flops"]
    assert asset.values == pytest.approx(
        {knob.name: rows[first["chosen"]][knob.name] for knob in SEARCHED}, rel=1e-3
    )


def test_runs_that_diverge_are_the_worst_and_a_figure_less(tmp_path):
    jobs, results = run(make(), lambda it: None if it["novelty"] > 5 else bowl(it))
    assert results[jobs[0].name]["bits_per_byte"] is None or len(jobs) > 1
    [*rows] = json.loads(write(make(), results, tmp_path, "c").read_text())["rows"]
    assert rows[0]["chosen"] != "start"
    assert rows[0]["start_bits_per_byte"] is None  # the start has novelty 6
    assert rows[0]["standard_error"] is None
    assert rows[0]["bits_per_byte"] < 3
    sound = sum(not record["diverged"] for record in results.values())
    assert rows[0]["total_flops"] == 100 * sound


def test_a_number_that_is_none_is_not_written():
    assert finite(1.5) == 1.5
    assert finite(math.nan) is finite(math.inf) is None


def test_a_worker_serves_the_queue_and_writes_nothing(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(aql_meta, "pin", called.append)
    monkeypatch.setattr(aql_meta, "run_queue", lambda plan, runs: called.append(runs))
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert main([*words, "--worker", "1"]) == 0
    assert called == [1, tmp_path / "runs"]
    assert not (tmp_path / "out").exists()
