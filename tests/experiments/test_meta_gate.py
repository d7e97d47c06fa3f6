import json
import lzma
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import meta_gate
from experiments.meta_gate import DOMAINS, read_texts
from experiments.meta_optimizer import main
from experiments.meta_stages import Learned, SetUp
from experiments.records import read_record
from uets_jax.errors import UserError
from uets_jax.meta.validate import Comparison
from uets_jax.optim.gate import init_theta
from uets_jax.optim.stored import load_theta


@pytest.fixture
def data(tmp_path):
    """A corpus with as much of each domain as is the least."""
    folder = tmp_path / "data" / "multidomain"
    folder.mkdir(parents=True)
    text = "é word " * (meta_gate.BYTES // 70)
    lines = [json.dumps({"domain": name, "text": text}) for name in (*DOMAINS, "other")]
    with lzma.open(folder / "train-00.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder.parent


def test_texts_are_bytes_of_the_domains_asked_for(data):
    found = read_texts(data)
    assert [*found.plain] == [*DOMAINS]
    assert [*found.coded] == [f"{name}-bpe" for name in DOMAINS]
    for ids in found.plain.values():
        assert ids.dtype == np.int32
        assert bytes(ids[:8].astype(np.uint8)).decode() == "é word "


def test_too_little_text_and_none_are_one_line(data, tmp_path):
    with pytest.raises(UserError, match=r"train-00.*give --data-dir"):
        read_texts(tmp_path / "nowhere")
    with lzma.open(data / "multidomain" / "train-00.jsonl.xz", "wt") as file:
        file.write(json.dumps({"domain": "code", "text": "x"}) + "\n")
    with pytest.raises(UserError, match="only 2 bytes of code"):
        read_texts(data)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """Meta-training that ends at once; where the weights go to."""

    def learn(variant, tasks, config, runs, told):
        theta = init_theta(jax.random.key(config.seed), variant.settings)
        result = SimpleNamespace(
            chosen=chosen[0],
            updates=7,
            inner_steps=100,
            seconds=2.0,
            core_seconds=3.0,
            flops=1e9,
            confirm=Comparison(-0.1, 0.01, (-0.3, 0.1)),
        )
        return Learned(theta, (result, result), SetUp(1.0, 1.5))

    chosen = ["best"]
    monkeypatch.setattr(meta_gate, "learn", learn)
    monkeypatch.setattr(meta_gate, "SHIPPED", tmp_path / "gate.npz")
    return SimpleNamespace(path=tmp_path / "gate.npz", chosen=chosen)


def test_what_was_learned_is_recorded_and_shipped_if_asked(shipped, data, tmp_path):
    given = ["--meta-train", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    given += ["--runs", str(tmp_path / "runs")]
    assert main(given) == 0
    record = read_record("optimizer.meta_cost", tmp_path / "out")
    setup, first, second = record["rows"]
    assert (setup["stage"], setup["core_seconds"]) == (0, 1.5)
    assert first["gain_families"] == "-0.300 +0.100"
    assert (first["chosen"], first["updates"], first["gain"]) == ("best", 7, -0.1)
    assert (first["stage"], second["stage"]) == (1, 2)
    assert not shipped.path.exists()
    own = load_theta(tmp_path / "runs" / "gate" / "seed-0" / "theta.npz")
    assert not own.card["meta_trained"]
    assert main([*given, "--ship"]) == 0
    found = load_theta(shipped.path)
    assert found.card["meta_trained"]
    assert found.card["core_seconds"] == 7.5
    least, most = found.card["horizon"]
    assert 0 < least < most
    assert len(found.card["tasks"]) >= 100


def test_weights_that_are_no_better_are_not_shipped(shipped, data, tmp_path, capsys):
    shipped.chosen[0] = "start"
    given = ["--meta-train", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert main([*given, "--runs", str(tmp_path / "runs"), "--ship"]) == 0
    assert not shipped.path.exists()
    assert "not shipped" in capsys.readouterr().err
