import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import aql_uncertainty
from experiments.aql_uncertainty import Options, configs, main
from experiments.arms import step_flops
from uets_jax.config import DataConfig, MeshConfig, TrainConfig
from uets_jax.data.store import write_store
from uets_jax.models.transformer import make_model

TRAINED = aql_uncertainty.trained
OPTIONS = vars(aql_uncertainty.parser().parse_args([]))


def options(**changes):
    return Options(**{**OPTIONS, **changes})


def test_the_runs_differ_in_seed_and_dropout_alone():
    found = configs(options(steps=7, members=3))
    assert list(found) == ["plain", "dropout", "member1", "member2", "member3"]
    assert [c.train.seed for c in found.values()] == [0, 0, 1, 2, 3]
    assert found["dropout"].model.dropout == 0.1
    plain = found["plain"]
    for name, config in found.items():
        assert config.train.steps == 7, name
        model = dataclasses.replace(config.model, dropout=0.0)
        assert model == plain.model, name
        assert config.data.source.endswith("mixture.a"), name


def test_the_budget_pays_for_the_steps():
    flops = 100 * step_flops("b2", 1, 8)
    assert configs(options(flops=flops))["plain"].train.steps == 100


@pytest.fixture(scope="module")
def folders(tmp_path_factory, corpus):
    """(stores, data) of a mixture of one text."""
    root = tmp_path_factory.mktemp("mixture")
    stores, data = root / "stores", root / "data"
    (stores / "pool").mkdir(parents=True)
    data.mkdir()
    recipe = {"recipe": {"target": "t", "near": []}}
    (stores / "pool" / "pool.json").write_text(json.dumps(recipe))
    texts = [path.read_text() for path in sorted(corpus.glob("*.txt"))[:4]]
    rows = [{"id": str(i), "domain": "t", "text": t} for i, t in enumerate(texts)]
    rows += [{"id": "x", "domain": "digits", "text": "31415926535 " * 40}]
    lines = [json.dumps(row) + "\n" for row in rows]
    (stores / "mixture.valid_a.jsonl").write_text("".join(lines[:4]))
    for name in ("train", "valid"):
        (data / f"{name}.jsonl").write_text("".join(lines))
    source = f"files:{corpus}/*.txt"
    write_store(stores / "mixture.a", DataConfig(source=source, tokenizer="bytes"))
    return stores, data


@pytest.fixture
def small(monkeypatch, tiny, folders):
    """The experiment on tiny models, untrained, and a store that is there."""

    def runs(given):
        data = DataConfig(source=f"tokens:{folders[0] / 'mixture.a'}")
        train = TrainConfig(
            steps=given.steps,
            batch=8,
            eval_every=0,
            eval_tokens=512,
            checkpoint_every=0,
            samples=0,
            mesh=MeshConfig(data=1),
        )
        model = dataclasses.replace(tiny.model, vocab=0)
        plain = dataclasses.replace(tiny, data=data, model=model, train=train)
        noisy = dataclasses.replace(model, dropout=given.dropout)
        other = dataclasses.replace(train, seed=1)
        return {
            "plain": plain,
            "dropout": dataclasses.replace(plain, model=noisy),
            "member1": dataclasses.replace(plain, train=other),
            "member2": dataclasses.replace(plain, train=train),
        }

    def untrained(config, folder, name):
        model = dataclasses.replace(config.model, vocab=257)
        init = jax.jit(make_model(model).init)
        params = init(jax.random.key(config.train.seed))
        draw = np.random.default_rng(config.train.seed).normal
        noise = lambda x: x + jnp.asarray(0.2 * draw(size=x.shape), x.dtype)
        return jax.tree.map(noise, params)

    monkeypatch.setattr(aql_uncertainty, "configs", runs)
    monkeypatch.setattr(aql_uncertainty, "trained", untrained)
    monkeypatch.setattr(aql_uncertainty.tracks, "mixture", lambda data, stores: None)
    return runs


@pytest.mark.slow
def test_the_table_has_a_row_for_each_score(small, folders, tmp_path, capsys):
    stores, data = folders
    words = ["--steps", "6", "--fit", "3", "--windows", "6", "--rows", "4"]
    words += ["--passes", "2", "--dropout", "0.2", "--stores", str(stores)]
    words += ["--runs", str(tmp_path / "runs"), "--data-dir", str(data)]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "aql.uncertainty.json").read_text())
    diagrams = [r for r in record["rows"] if r["score"] == "reliability"]
    scores = [r for r in record["rows"] if r not in diagrams]
    rows = {(r["method"], r["features"], r["score"]): r for r in scores}
    assert len(rows) == len(scores) == 12
    predictive = {"softmax", "laplace", "mc_dropout", "ensemble"}
    assert {r["method"] for r in diagrams} == predictive
    assert set(record["config"]) == {"plain", "dropout", "member1", "member2"}
    drawn, lever = rows["mc_dropout", "", "bald"], rows["laplace", "final", "bald"]
    forward = rows["softmax", "", "loss"]
    assert drawn["extra_flops_per_token"] > lever["extra_flops_per_token"] > 0
    assert forward["extra_seconds"] == forward["extra_flops_per_token"] == 0
    assert -1 <= lever["spearman_ensemble"] <= 1
    assert 0 <= lever["auroc_digits"] == lever["auroc_unseen"] <= 1
    assert lever["nll_target"] > 0
    assert rows["laplace", "mean embedding", "leverage"]["flops_per_token"] > 0


@pytest.mark.slow
def test_a_run_that_is_there_is_not_run_again(small, tmp_path):
    config = small(options(steps=2))["dropout"]
    first = TRAINED(config, tmp_path, "dropout")
    [folder] = tmp_path.iterdir()
    before = (folder / "metrics.jsonl").read_bytes()
    chex.assert_trees_all_equal(first, TRAINED(config, tmp_path, "dropout"))
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_the_command_line_refuses_what_cannot_work(capsys):
    assert main(["--passes", "0"]) == 2
    assert "--passes: must be at least 1" in capsys.readouterr().err
