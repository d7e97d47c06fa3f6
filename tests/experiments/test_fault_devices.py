import json

import pytest

from experiments import fault_devices
from experiments.fault_checks import Failure
from experiments.fault_devices import (
    COUNTS,
    PAIRS,
    check_losses,
    check_order,
    check_restored,
    moved,
    uninterrupted,
)
from experiments.fault_runs import Bench
from uets_jax.cli import main


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    return Bench(folder, folder / "cache")


def in_process(bench, out, flags=(), devices=1):
    """As `complete`, but on some of the devices that this process has."""
    begun = (out / "config.json").exists()
    words = ["--resume", out] if begun else [*bench.flags, *flags, "--out", out]
    assert main(["train", *map(str, words), f"--train.mesh.data={devices}"]) == 0


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices_and_a_wrong_hash_is_noticed(
    bench, monkeypatch
):
    monkeypatch.setattr(fault_devices, "complete", in_process)
    facts = moved(bench, bench.folder / "run", 2, 1)
    assert 0 <= facts["loss"] <= 1e-5
    reference = uninterrupted(bench, 2)
    check_restored(reference, 2, 8)
    summary = json.loads((reference / "summary.json").read_text())
    (reference / "summary.json").write_text(json.dumps({**summary, "params_sha256": 0}))
    with pytest.raises(Failure, match="step 20 is not as saved"):
        check_restored(reference, 2, 8)


def test_every_ordered_pair_is_there_once():
    assert len(PAIRS) == len({*PAIRS}) == len(COUNTS) * (len(COUNTS) - 1) == 12


def sketch(out, losses, chain="a"):
    """What stands for a finished run."""
    out.mkdir(exist_ok=True)
    lines = [json.dumps({"step": i, "loss": x}) for i, x in enumerate(losses, start=1)]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (out / "summary.json").write_text(json.dumps({"data_sha256": chain}))
    return out


def test_other_losses_or_samples_are_a_failure(tmp_path):
    whole = sketch(tmp_path / "whole", [2.0, 1.5])
    near = sketch(tmp_path / "near", [2.0, 1.500005])
    check_order(whole, near)
    assert check_losses(whole, near) == pytest.approx(5e-6)
    far = sketch(tmp_path / "far", [2.0, 1.50002], chain="b")
    with pytest.raises(Failure, match=r"step 2: loss 1.5 became 1.50002"):
        check_losses(whole, far)
    with pytest.raises(Failure, match="data_sha256: a became b"):
        check_order(whole, far)
    with pytest.raises(Failure, match="other steps"):
        check_losses(whole, sketch(tmp_path / "short", [2.0]))
