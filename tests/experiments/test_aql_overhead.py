import dataclasses
import itertools
import json

import numpy as np
import pytest

from experiments import aql_overhead
from experiments.aql_overhead import Options, Side, main, measured_arms, overhead, row
from uets_jax.config import SelectConfig
from uets_jax.data.builtin import read_builtin
from uets_jax.measure.branches import Branch, Count
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.session import open_session
from uets_jax.validation import validate


@pytest.fixture(scope="module")
def bare(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i, text in enumerate(itertools.islice(read_builtin(), 40)):
        (folder / f"{i}.txt").write_text(text[:1500])
    data = dataclasses.replace(tiny.data, source=f"files:{folder}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=257, depth=1, dropout=0.1)
    train = dataclasses.replace(tiny.train, batch=2)
    return dataclasses.replace(tiny, data=data, model=model, train=train)


@pytest.fixture(scope="module")
def options():
    return Options("", "", (), 1, steps=8, block=2, limit=60.0)


@pytest.fixture(scope="module")
def empty(bare):
    return Side(bare)


@pytest.fixture(scope="module")
def chooses(bare):
    few = {"candidates": 8, "buffer": 16}
    return Side(aql_overhead.with_choice(bare, few))


@pytest.mark.slow
def test_the_figures_of_an_arm_fit_together(empty, chooses, options):
    found = row([empty, chooses], options)
    whole, bare = found["step_flops"], found["bare_step_flops"]
    assert found["flops_overhead"] == pytest.approx(whole / bare - 1)
    added = found["scoring_flops"] + found["statistics_flops"]
    added += found["by_product_flops"]
    assert found["by_product_flops"] > 0
    assert whole - bare == pytest.approx(added)
    assert found["pairs"] == 4
    assert found["seconds_overhead_ci_low"] <= found["seconds_overhead"]
    assert found["seconds_overhead"] <= found["seconds_overhead_ci_high"]
    assert 0 < found["bare_windows_seconds"] < 1


@pytest.mark.slow
def test_mc_dropout_pays_ten_passes_for_each_candidate(bare):
    def scoring(method):
        select = SelectConfig(method=method, candidates=4)
        session = open_session(dataclasses.replace(bare, select=select))
        fed = shapes(session.config, session.assets)
        traced = trace_step(session.program, session.mesh, fed)
        return count(traced.jaxpr).total()["scoring"].matmul

    assert scoring("mc_dropout") == 10 * scoring("loss") > 0


@pytest.mark.slow
def test_aql_is_charged_what_its_branches_were_taken(empty, chooses):
    side = chooses
    assert side.made.count.branches
    side.run(6)
    before = side.flops()
    assert before["scoring"] > 0
    assert before["statistics"] > 0
    side.run(100)  # the refreshes of the beginning thin out
    assert side.flops()["statistics"] < before["statistics"]
    empty.run(1)
    assert side.flops()["optimizer"] == empty.flops()["optimizer"]


def test_the_flops_of_a_step_follow_the_branch():
    arms = {}, {"statistics": Cost(elementwise=30)}
    whole = Count({"scoring": Cost(matmul=5)}, {"it": Branch(1, None, arms)})
    found = aql_overhead.step_flops(whole, {"it": 2}, 10)
    assert found == {"scoring": 5.0, "statistics": 6.0}


def test_the_overhead_is_the_median_of_pairs():
    seconds = np.array([[1.0, 1.1], [2.0, 2.4], [1.0, 1.1], [1.0, 9.0]])
    found = overhead(seconds)
    assert found["seconds_overhead"] == pytest.approx(0.15)
    assert found["mean_seconds_overhead"] == pytest.approx(13.6 / 5 - 1)
    low, high = found["seconds_overhead_ci_low"], found["seconds_overhead_ci_high"]
    assert low == pytest.approx(0.1)
    assert 0.2 <= high <= 8


def test_arms_differ_from_the_default_in_what_their_name_says(tiny):
    plain = measured_arms("")
    assert plain["aql_v2"].changes == {}
    assert plain["aql_v2 without policy"].changes == {"policy": False}
    more = measured_arms("jsonl:x")
    assert set(more) - set(plain) == {
        "aql_v2 target",
        "aql_v2 target without lexical",
    }
    for name, arm in more.items():
        changed = aql_overhead.with_choice(tiny, arm.changes)
        model = dataclasses.replace(tiny.model, dropout=arm.dropout)
        validate(dataclasses.replace(changed, model=model))
        off = {f for f, value in arm.changes.items() if value is False}
        assert all(part in name for part in off)


def test_the_record_holds_every_arm(corpus, tmp_path, monkeypatch):
    seen = []

    def shown(sides, options):
        seen.append(options)
        return {"flops_overhead": 0.5, "seconds_overhead": 0.25}

    monkeypatch.setattr(aql_overhead, "row", shown)
    monkeypatch.setattr(aql_overhead, "Side", lambda config: config)
    words = [f"--source=files:{corpus}/*.txt", "--recipes", "b2:4", "--steps=6"]
    only = ["--only", "aql_v2", "mc_dropout"]
    assert main([*words, *only, f"--out={tmp_path}"]) == 0
    record = json.loads((tmp_path / "aql.overhead.json").read_text())
    assert [r["arm"] for r in record["rows"]] == ["aql_v2", "mc_dropout"]
    assert all(r["recipe"] == "b2" and r["batch"] == 4 for r in record["rows"])
    assert record["config"]["b2 mc_dropout"]["method"] == "mc_dropout"
    assert seen[0].steps == 6


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--source=builtin", "--only", "aql_v3"], "--only: 'aql_v3'"),
        (["--data-dir=nowhere", "--runs=nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, culprit, capsys, tmp_path):
    assert main([*words, f"--out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert culprit in error
    assert error.count("\n") == 1
