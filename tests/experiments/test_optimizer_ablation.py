import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import optimizer_ablation
from experiments.meta_gate import Texts
from experiments.meta_stages import VARIANTS
from experiments.optimizer_ablation import (
    ARMS,
    FAMILIES,
    HYBRID,
    SEEDS,
    costs,
    few,
    learn,
    plan,
    rows,
    tuned,
)
from experiments.records import write_record
from uets_jax.config import OptimConfig
from uets_jax.errors import UserError
from uets_jax.validation import validate

SETTINGS = {
    "muon": {"learning_rate": 0.02, "adam_ratio": 4.0, "momentum": 0.7, "b1": 0.3},
    "adamw": {"learning_rate": 0.004, "rest_ratio": 8.0, "b1": 0.7, "b2": 0.9},
}
PLAIN = optimizer_ablation.PLAIN


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A folder in which two arms have been meta-trained."""
    called = []

    def trained(arm, variant, seed, config, data, runs, choose):
        called.append((arm, seed, config.updates, len(variant.stages)))
        path = runs / arm / f"seed-{seed}" / "theta.npz"
        path.write_bytes(b"weights")
        cost = {"updates": 9, "core_seconds": 5.0, "gain": -0.1, "gain_error": 0.02}
        cost |= {"chosen": "best", "stage": 1}
        return SimpleNamespace(rows=[cost], path=path)

    monkeypatch.setattr(optimizer_ablation.meta_gate, "trained", trained)
    for arm in ("gate", "no_muon"):
        learn(arm, 0, 9, Path("data"), tmp_path)
        learn(arm, 0, 9, Path("data"), tmp_path)  # it is there: nothing is done
    return SimpleNamespace(folder=tmp_path, called=called)


def test_an_arm_is_learned_once(weights):
    stages = len(VARIANTS["gate"].stages)
    assert weights.called == [("gate", 0, 9, stages), ("no_muon", 0, 9, stages)]
    assert {*costs(weights.folder)} == {("gate", 0), ("no_muon", 0)}


def test_runs_of_what_has_weights_and_of_the_nominal_rules(weights):
    jobs = plan(Path("stores"), weights.folder, SETTINGS, {})
    assert len(jobs) == SEEDS * 6
    by = {dict(j.labels)["arm"]: j.config.optim for j in jobs}
    by_hand = {"muon", "adamw", f"muon{PLAIN}", f"adamw{PLAIN}"}
    assert {*by} == {*by_hand, "gate", "no_muon"}
    for job in jobs:
        validate(job.config)
    assert (by["gate"].name, by["gate"].learning_rate) == ("learned", 0.02)
    assert by["no_muon"].learning_rate == 0.004  # AdamW's
    assert by["gate"].weights.endswith("gate/seed-0/theta.npz")
    assert by["muon"].name == "muon"
    assert (by["gate"].gate_every, by["gate"].gate_between) == (1, "held")


def test_a_hybrid_runs_as_it_was_learned(weights):
    for arm, seed in HYBRID:
        learn(arm, seed, 9, Path("data"), weights.folder)
    jobs = plan(Path("stores"), weights.folder, SETTINGS, {}, HYBRID)
    by = {dict(j.labels)["arm"]: j.config.optim for j in jobs}
    assert {*by} == {"muon", f"muon{PLAIN}", *(arm for arm, _ in HYBRID)}
    between = {arm: by[arm].gate_between for arm, _ in HYBRID}
    assert between == {
        "every_4": "held",
        "every_4_nominal": "nominal",
        "every_4_learned": "learned",
        "skip": "held",
    }
    assert (by["every_4"].gate_every, by["skip"].gate_every) == (4, 1)
    assert {*costs(weights.folder, HYBRID)} == {*HYBRID}


def test_a_gate_multiplies_the_memories_that_it_was_learned_with(weights):
    jobs = plan(Path("stores"), weights.folder, SETTINGS, {})
    by = {dict(j.labels)["arm"]: j.config.optim for j in jobs}
    usual = OptimConfig()
    assert (by["muon"].momentum, by["muon"].b1) == (0.7, 0.3)
    for arm in ("gate", f"muon{PLAIN}"):
        assert (by[arm].momentum, by[arm].b1) == (usual.momentum, usual.b1)
        assert by[arm].adam_ratio == 4.0
    assert by["no_muon"].adam_ratio == by[f"adamw{PLAIN}"].rest_ratio == 8.0
    assert by["no_muon"].b2 == usual.b2


def test_rows_compare_with_the_rule_that_was_departed_from():
    records = [
        {
            "arm": arm,
            "meta_seed": 0,
            "rule": rule,
            "seed": seed,
            "bits_per_byte": bits + 0.1 * seed,
            "diverged": False,
        }
        for arm, rule, bits in (
            ("muon", "muon", 2.0),
            ("adamw", "adamw", 2.5),
            ("gate", "muon", 1.9),
            (f"muon{PLAIN}", "muon", 2.2),
            (f"adamw{PLAIN}", "adamw", 2.6),
            ("no_muon", "adamw", 2.45),
        )
        for seed in (1, 2, 3)
    ]
    spent = {("gate", 0): [{"updates": 9, "core_seconds": 5.0}]}
    spent["gate", 0][0] |= {"gain": -0.1, "gain_error": 0.02}
    spent["gate", 0][0] |= {"chosen": "best", "stage": 1}
    spent["gate", 0] += [{**spent["gate", 0][0], "chosen": "start", "stage": 2}]
    found = {r["arm"]: r for r in rows(records, spent)}
    assert found["gate"]["difference_nominal"] == pytest.approx(-0.3)
    assert found["gate"]["difference_tuned"] == pytest.approx(-0.1)
    assert found["no_muon"]["difference_nominal"] == pytest.approx(-0.15)
    assert found[f"muon{PLAIN}"]["difference_tuned"] == pytest.approx(0.2)
    assert found["muon"]["difference_nominal"] is None
    assert (found["gate"]["updates"], found["muon"]["updates"]) == (18, None)
    assert (found["gate"]["kept_stages"], found["gate"]["gain"]) == ("1", -0.1)
    records[6]["bits_per_byte"], records[6]["diverged"] = None, True
    row = {r["arm"]: r for r in rows(records, spent)}["gate"]
    assert (row["diverged"], row["bits_per_byte"]) == (1, None)


def test_settings_are_those_of_the_best_trial(tmp_path):
    trial = lambda arm, bits, rate: {
        "task": "narrow",
        "arm": arm,
        "settings": f"learning_rate={rate:g} warmup=0.05",
        "bits_per_byte": bits,
    }
    made = [trial("muon", 2.0, 0.02), trial("muon", 1.9, 0.04), trial("muon", None, 1)]
    write_record("optimizer.trials", made, "python", {}, "note", tmp_path)
    with pytest.raises(UserError, match="no trial of adamw"):
        tuned(tmp_path)
    made.append(trial("adamw", 2.2, 0.004))
    write_record("optimizer.trials", made, "python", {}, "note", tmp_path)
    assert tuned(tmp_path)["muon"] == {"learning_rate": 0.04, "warmup": 0.05}
    json.dumps(tuned(tmp_path))


def test_arms_are_variants_on_few_families():
    assert len({*ARMS}) == len(ARMS)
    assert {arm for arm, _ in ARMS} <= {*VARIANTS}
    ids = np.random.default_rng(0).integers(0, 256, 20_000).astype(np.int32)
    tasks = few(Texts({"a": ids, "b": ids}, {"a-bpe": ids, "b-bpe": ids}))
    names = [family.name for family in tasks.train]
    assert all(name.startswith(FAMILIES) for name in names)
    assert len(names) == len(FAMILIES)
    assert tasks.valid[-1].name.endswith("/b")
