import dataclasses
import shutil

import numpy as np
import pytest

from experiments import fault_damage
from experiments.fault_checks import Failure
from experiments.fault_damage import outcome, saved, spoil
from experiments.fault_runs import Bench, Whole
from uets_jax.errors import UserError
from uets_jax.train import checkpoint
from uets_jax.train.loop import train


@pytest.fixture(scope="module")
def run(tiny, corpus, tmp_path_factory):
    """A short run with checkpoints of steps 4, 8 and 12."""
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    often = dataclasses.replace(tiny.train, steps=12, keep=3)
    out = tmp_path_factory.mktemp("damage") / "run"
    train(dataclasses.replace(tiny, data=data, model=model, train=often), out)
    return out


@pytest.fixture
def copy(run, tmp_path):
    """What was saved, and a copy of it to be spoiled."""
    root = shutil.copytree(run / "checkpoints", tmp_path / "copy")
    return saved(run)._replace(root=root)


def test_no_damage_is_loaded_in_silence(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fault_damage, "whole", lambda bench: Whole(run, 1.0))
    row = fault_damage.damage(Bench(tmp_path, tmp_path), 20)
    assert row["failures"] == 0
    assert row["fell_back"] + row["refused"] + row["harmless"] == 20
    assert row["fell_back"] > 10


def test_each_kind_of_damage_is_done_to_one_file(run, tmp_path):
    kinds = set()
    for seed in range(12):
        copy = tmp_path / str(seed)
        shutil.copytree(run / "checkpoints" / "00000012", copy)
        kind, file = spoil(copy, np.random.default_rng(seed)).split(" ")
        kinds.add(kind)
        before = files(run / "checkpoints" / "00000012")
        after = files(copy)
        changed = {n for n in before if before[n] != after.get(n)}
        assert changed == {file.removeprefix(f"{copy}/")}
    assert kinds == {"flip", "truncate", "delete"}


def files(path):
    found = (p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}


def test_a_wrong_record_without_a_check_is_a_silent_load(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)
    record = copy.root / "00000012" / "record.json"
    record.write_text(record.read_text().replace('"chain": "', '"chain": "0'))
    with pytest.raises(Failure, match="step 12: wrong content was loaded in silence"):
        outcome(copy, [12], "flip")


def test_flipped_parameters_without_a_check_are_a_silent_load(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)
    largest = max(
        (p for p in (copy.root / "00000012").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    whole, silent = largest.read_bytes(), 0
    for place in range(len(whole) // 20, len(whole), len(whole) // 10):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1
        largest.write_bytes(spoiled)
        try:
            outcome(copy, [12], "flip")
        except Failure as error:
            silent += "in silence" in str(error)
        except Exception:
            continue  # orbax itself noticed
    assert silent > 0


def test_going_back_in_silence_is_a_failure(copy, monkeypatch):
    (copy.root / "00000012" / "record.json").unlink()
    assert outcome(copy, [12], "delete") == {"fell_back": 1}
    real = checkpoint.load_newest
    monkeypatch.setattr(checkpoint, "load_newest", lambda *a: (real(*a)[0], []))
    with pytest.raises(Failure, match="went back to step 8 without saying why"):
        outcome(copy, [12], "delete")


def test_going_back_too_far_is_a_failure(copy):
    for step in (8, 12):
        (copy.root / f"{step:08d}" / "record.json").unlink()
    with pytest.raises(Failure, match="step 8 was intact but not loaded"):
        outcome(copy, [12], "delete")


def test_nothing_is_loaded_where_nothing_is_intact(copy, monkeypatch):
    for step in (4, 8, 12):
        (copy.root / f"{step:08d}" / "manifest.json").unlink()
    assert outcome(copy, [4, 8, 12], "delete") == {"refused": 1}

    def refuse(*_):
        raise UserError("00000012, 00000008 and 00000004 are damaged")

    monkeypatch.setattr(checkpoint, "load_newest", refuse)
    assert outcome(copy, [4, 8, 12], "delete") == {"refused": 1}
    with pytest.raises(Failure, match="step 8 was intact but not loaded"):
        outcome(copy, [12], "delete")


def test_a_flip_that_changes_nothing_is_harmless(copy):
    assert outcome(copy, [], "nothing") == {"harmless": 1}
