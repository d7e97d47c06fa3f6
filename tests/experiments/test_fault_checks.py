import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from experiments.fault_checks import (
    Failure,
    abstract,
    check_readable,
    check_same,
    figures,
    first_difference,
    newest,
    state_sha256,
)
from uets_jax.report.metrics import read_metrics
from uets_jax.train import checkpoint
from uets_jax.train.loop import train


@pytest.fixture(scope="module")
def config(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    return dataclasses.replace(tiny, data=data, model=model)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("checks") / "run"
    train(config, out)
    return out


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run, to be spoiled."""
    return shutil.copytree(run, tmp_path / "other")


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_run_repeated_is_the_same_whatever_the_clocks_say(config, run, tmp_path):
    train(config, tmp_path / "again")
    assert first_difference(run, tmp_path / "again") == ""
    clocks = [
        [record["seconds"] for record in read_metrics(out / "metrics.jsonl")]
        for out in (run, tmp_path / "again")
    ]
    assert clocks[0] != clocks[1]


def test_another_seed_is_noticed_at_the_first_step(config, run, tmp_path):
    seed = dataclasses.replace(config.train, seed=1)
    train(dataclasses.replace(config, train=seed), tmp_path / "other")
    with pytest.raises(Failure, match=r"metrics.jsonl: .*'step': 1.* became "):
        check_same(run, tmp_path / "other")


def test_one_bit_of_one_loss_is_noticed(run, other):
    last = [r for r in figures(run) if "loss" in r][-1]
    bit = json.dumps(float(jnp.nextafter(jnp.float32(last["loss"]), jnp.float32(9))))
    rewrite(other / "metrics.jsonl", f'"loss": {last["loss"]}', f'"loss": {bit}')
    assert f"'step': {last['step']}" in first_difference(run, other)


@pytest.mark.parametrize("spoil", ["lost", "twice"])
def test_a_step_lost_or_done_twice_is_noticed(spoil, run, other):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    spoiled = lines[:-1] if spoil == "lost" else [*lines, lines[-1]]
    (other / "metrics.jsonl").write_text("".join(spoiled))
    assert "metrics.jsonl" in first_difference(run, other)


def test_an_event_is_no_difference(run, other):
    with open(other / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "event": "resume", "detail": "x"}\n')
    assert first_difference(run, other) == ""


@pytest.mark.parametrize("key", ["params_sha256", "data_sha256", "tokens", "flops"])
def test_the_summaries_are_compared(key, run, other):
    summary = json.loads((other / "summary.json").read_text())
    summary[key] = {"train": 1} if key == "flops" else 0
    (other / "summary.json").write_text(json.dumps(summary))
    assert first_difference(run, other).startswith(f"summary.json: {key}: ")


def test_readable_means_that_all_verify_and_the_newest_loads(run, other, monkeypatch):
    check_readable(run)
    assert newest(run) == 8
    record = other / "checkpoints" / "00000004" / "record.json"
    record.unlink()
    with pytest.raises(Failure, match=r"unreadable: .*00000004/record.json"):
        check_readable(other)
    shutil.rmtree(other / "checkpoints" / "00000008")
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)
    monkeypatch.setattr(checkpoint, "load_newest", lambda *given: (None, ["lost"]))
    with pytest.raises(Failure, match="step 4 verifies, step None loads"):
        check_readable(other)


def test_a_run_without_checkpoints_is_readable(tmp_path):
    check_readable(tmp_path)
    assert newest(tmp_path) == 0


def test_the_hash_of_a_state_sees_every_leaf(run):
    path = run / "checkpoints" / "00000008"
    state = checkpoint.load(path, lambda record: abstract(run))[0]
    assert state_sha256(state) == state_sha256(
        checkpoint.load(path, lambda record: abstract(run))[0]
    )
    leaves, tree = jax.tree.flatten(state)
    seen = {state_sha256(state)}
    for number, leaf in enumerate(leaves):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        changed = jax.random.key(99) if is_key else leaf.at[(0,) * leaf.ndim].add(1)
        spoiled = [*leaves[:number], changed, *leaves[number + 1 :]]
        seen.add(state_sha256(jax.tree.unflatten(tree, spoiled)))
    assert len(seen) == len(leaves) + 1


def test_a_state_is_restored_on_other_devices(run):
    path = run / "checkpoints" / "00000008"
    hashes = {
        state_sha256(checkpoint.load(path, lambda _, n=n: abstract(run, n))[0])
        for n in (1, 2, 8)
    }
    assert len(hashes) == 1
