import json
import lzma
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import meta_gate
from experiments.meta_gate import DOMAINS, read_texts
from experiments.meta_optimizer import main
from experiments.meta_stages import make
from experiments.records import read_record
from uets_jax.errors import UserError
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.gate import GateSettings, init_theta
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
    assert [*found] == [*DOMAINS]
    for ids in found.values():
        assert ids.dtype == np.int32
        assert bytes(ids[:8].astype(np.uint8)).decode() == "é word "


def test_too_little_text_and_none_are_one_line(data, tmp_path):
    with pytest.raises(UserError, match=r"train-00.*give --data-dir"):
        read_texts(tmp_path / "nowhere")
    with lzma.open(data / "multidomain" / "train-00.jsonl.xz", "wt") as file:
        file.write(json.dumps({"domain": "code", "text": "x"}) + "\n")
    with pytest.raises(UserError, match="only 2 bytes of code"):
        read_texts(data)


def test_a_gate_that_trusts_the_nominal_rule_is_near_it(batch):
    """On the house's transformer and on a plain tree."""
    settings = GateSettings()
    theta = init_theta(jax.random.key(0), settings)
    model = make_model(model_config("modern", "tiny", vocab=64))
    trees = (
        jax.jit(model.init)(jax.random.key(0)),
        {"w": jnp.ones((8, 4)), "b": jnp.ones(4)},
    )
    for params in trees:
        grads = jax.tree.map(lambda p: 0.01 * jnp.cos(p + 0.3), params)
        steps = []
        for weights in (None, theta):
            tx = make(weights, settings)
            step = jax.jit(lambda g, p, tx=tx: tx.update(g, tx.init(p), p)[0])
            steps.append(step(grads, params))
        chex.assert_trees_all_close(*steps, rtol=0.3, atol=2e-3)


@pytest.fixture
def learned(monkeypatch, tmp_path):
    """Meta-training that ends at once with weights of its own."""

    def trained(rule, theta, tasks, config, out, nominal):
        return SimpleNamespace(
            chosen="best",
            theta=jax.tree.map(lambda x: x + 1, theta),
            updates=7,
            core_seconds=3.0,
            flops=1e9,
            confirm=SimpleNamespace(mean=0.1, error=0.01),
        )

    monkeypatch.setattr(meta_optimizer, "meta_train", trained)
    monkeypatch.setattr(meta_optimizer, "SHIPPED", tmp_path / "gate.npz")
    return tmp_path / "gate.npz"


def test_what_was_learned_is_recorded_and_shipped_if_asked(learned, data, tmp_path):
    given = ["--meta-train", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    [row] = read_record("optimizer.meta_cost", tmp_path / "out")["rows"]
    assert (row["chosen"], row["updates"], row["gain"]) == ("best", 7, 0.1)
    assert not learned.exists()
    assert main([*given, "--ship"]) == 0
    found = load_theta(learned)
    assert found.card["meta_trained"]
    least, most = found.card["horizon"]
    assert 0 < least < most
    assert len(found.card["tasks"]) >= 100


def test_nothing_to_do_is_one_line(capsys):
    assert main([]) == 2
    assert "--meta-train" in capsys.readouterr().err
