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
    SEEDS,
    costs,
    few,
    learn,
    plan,
    rows,
    tuned,
)
from experiments.records import write_record
from uets_jax.errors import UserError

SETTINGS = {
    "muon": {"learning_rate": 0.02, "adam_ratio": 2.0},
    "adamw": {"learning_rate": 0.004},
}


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A folder in which two arms have been meta-trained."""
    called = []

    def trained(arm, variant, seed, config, data, runs, choose):
        called.append((arm, seed, config.minutes, len(variant.stages)))
        path = runs / arm / f"seed-{seed}" / "theta.npz"
        path.write_bytes(b"weights")
        cost = {"updates": 9, "core_seconds": 5.0, "gain": -0.1, "gain_error": 0.02}
        return SimpleNamespace(rows=[cost], path=path)

    monkeypatch.setattr(optimizer_ablation.meta_gate, "trained", trained)
    for arm in ("gate", "no_muon"):
        learn(arm, 0, 5.0, Path("data"), tmp_path)
        learn(arm, 0, 5.0, Path("data"), tmp_path)  # it is there: nothing is done
    return SimpleNamespace(folder=tmp_path, called=called)


def test_an_arm_is_learned_once(weights):
    stages = len(VARIANTS["gate"].stages)
    assert weights.called == [("gate", 0, 5.0, stages), ("no_muon", 0, 5.0, stages)]
    assert {*costs(weights.folder)} == {("gate", 0), ("no_muon", 0)}


def test_runs_of_what_has_weights_and_of_the_nominal_rules(weights):
    jobs = plan(Path("stores"), weights.folder, SETTINGS, {})
    assert len(jobs) == SEEDS * 4
    by = {dict(j.labels)["arm"]: j.config.optim for j in jobs}
    assert {*by} == {"muon", "adamw", "gate", "no_muon"}
    assert (by["gate"].name, by["gate"].learning_rate) == ("learned", 0.02)
    assert by["no_muon"].learning_rate == 0.004  # AdamW's
    assert by["gate"].weights.endswith("gate/seed-0/theta.npz")
    assert by["muon"].name == "muon"


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
            ("no_muon", "adamw", 2.45),
        )
        for seed in (1, 2, 3)
    ]
    spent = {("gate", 0): [{"updates": 9, "core_seconds": 5.0}]}
    spent["gate", 0][0] |= {"gain": -0.1, "gain_error": 0.02}
    found = {r["arm"]: r for r in rows(records, spent)}
    assert found["gate"]["difference_nominal"] == pytest.approx(-0.1)
    assert found["no_muon"]["difference_nominal"] == pytest.approx(-0.05)
    assert found["muon"]["difference_nominal"] is None
    assert (found["gate"]["updates"], found["muon"]["updates"]) == (9, None)
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
    assert len(names) == len(FAMILIES) + 1  # bytes and BPE
    assert any(family.name.endswith("/b-bpe") for family in tasks.valid)
