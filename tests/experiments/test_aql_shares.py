import dataclasses
import json
from types import SimpleNamespace as Space

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import aql_shares, arms
from experiments.aql_shares import Trail, configs, followed, main
from uets_jax.config import CurriculumConfig, DataConfig
from uets_jax.data.store import write_store
from uets_jax.validation import validate


class Number(int):
    """A state."""

    parts: dict


@pytest.fixture(scope="module")
def stores(tmp_path_factory, corpus):
    """A pool of the small corpus."""
    folder = tmp_path_factory.mktemp("stores")
    source = f"files:{corpus}/*.txt"
    words = DataConfig(source=source, valid_source=source, tokenizer="bytes")
    write_store(folder / "mixture.a", words)
    (folder / "pool").mkdir()
    kinds = ["unique", "boilerplate"] * 20
    lines = [json.dumps({"kind": k, "origin": str(i)}) for i, k in enumerate(kinds)]
    (folder / "pool" / "provenance.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def small(tiny, stores):
    """A run without a choice on that pool."""
    data = dataclasses.replace(tiny.data, source=f"tokens:{stores}/mixture.a")
    model = dataclasses.replace(tiny.model, vocab=257)
    train = dataclasses.replace(tiny.train, steps=4)
    return dataclasses.replace(tiny, data=data, model=model, train=train)


def test_what_is_drawn_is_seen_after_every_step(tiny, monkeypatch):
    """A step that draws the windows of its number, and keeps its number as scores."""

    def call(step, pool, assets):
        assert (pool, assets) == (10 * step, "assets")
        batch = Space(ids=jnp.arange(8) + pool)
        keys = jnp.full(4, step + 1.0)
        part = Space(drawn=Space(batch=batch), buffer=Space(keys=keys))
        state = Number(step + 1)
        state.parts = {"select": part}
        return state, {"curriculum_stage": jnp.float32(2.0), "loss": jnp.float32(9.0)}

    session = Space(
        program=None,
        mesh=None,
        config=tiny,
        assets="assets",
        windows=range(0, 1000, 10),
        initial_state=lambda: Number(0),
    )
    monkeypatch.setattr(aql_shares, "open_session", lambda config: session)
    monkeypatch.setattr(aql_shares, "executable", lambda *given: Space(call=call))
    monkeypatch.setattr(aql_shares, "put_batch", lambda batch, mesh: batch)
    steps = dataclasses.replace(tiny.train, steps=100)
    trail = followed(dataclasses.replace(tiny, train=steps))
    assert trail.ids.tolist() == [[10 * i + j for j in range(8)] for i in range(100)]
    assert {n: keys.tolist() for n, keys in trail.scores.items()} == {
        n: [n] * 4 for n in (2, 50, 100)
    }
    assert trail.metrics == [{"curriculum_stage": 2.0}] * 100


def test_the_stages_of_a_curriculum_are_kept(small):
    order = CurriculumConfig(difficulty="rarity", candidates=2)
    trail = followed(dataclasses.replace(small, curriculum=order))
    assert len(trail.metrics) == 4
    highs = [step["curriculum_stage_high"] for step in trail.metrics]
    assert highs == sorted(highs)
    assert highs[-1] > highs[0]
    assert trail.scores == {}
    assert trail.metrics[0]["curriculum_threshold_hard"] == 0.5


def test_the_runs_are_those_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    found = configs(tmp_path, 1e12)
    assert [*found] == ["target", "blind", "curriculum"]
    for name, config in found.items():
        validate(config)
        assert config.data.source == f"tokens:{tmp_path}/mixture.a"
        assert (config.select.method == "aql") == (name != "curriculum")
    assert found["target"].select.mode == "target"
    assert found["blind"].select.target == ""
    assert found["target"].train.steps == 2 * found["curriculum"].train.steps
    assert found["curriculum"].curriculum.difficulty == "rarity"


def test_the_record_and_the_page_are_written(small, stores, tmp_path, monkeypatch):
    runs = dict.fromkeys(("target", "blind", "curriculum"), small)
    ids = np.arange(32).reshape(4, 8)
    trail = Trail(ids, {2: np.arange(5.0), 4: np.arange(5.0)}, [{}])
    monkeypatch.setattr(aql_shares, "configs", lambda stores, unit: runs)
    monkeypatch.setattr(aql_shares, "followed", lambda config: trail)
    words = ["--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main([*words, "--stores", str(stores)]) == 0
    record = json.loads((tmp_path / "aql.shares.json").read_text())
    pool, *rows = record["rows"]
    assert pool["unique_share"] + pool["boilerplate_share"] == 1.0
    assert 0.4 < pool["unique_share"] < 0.6
    assert [row["tenth"] for row in rows] == [*range(1, 11), None] * 2
    assert "Scores in the buffer" in (tmp_path / "runs" / "report.html").read_text()


def test_bad_words_end_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    assert main(["--unit", "0"]) == 2
    assert "--unit: must be above 0" in capsys.readouterr().err
    words = ["--stores", str(tmp_path), "--out", str(tmp_path)]
    assert main(words) == 2
    assert "aql_shares: error: " in capsys.readouterr().err
