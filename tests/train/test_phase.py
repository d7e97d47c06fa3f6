import gzip
import json

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.measure.flops import block_flops, forward_flops, train_flops
from uets_jax.train.loop import train
from uets_jax.train.phase import model_flops


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A run of 8 steps of which two were traced: (summary, folder)."""
    out = tmp_path_factory.mktemp("phase") / "run"
    return train(config, out, profile=2).summary, out


def test_a_phase_has_its_place_under_the_roofline(run):
    summary, _ = run
    (phase,) = summary["phases"]
    assert (phase["phase"], phase["end"]) == (1, 8)
    assert phase["steps"] == 6  # the first two set things up
    work = sum(
        summary["matmul_flops"][name] for name in ("forward_backward", "optimizer")
    )
    speed = work / 8 / phase["seconds_per_step"]
    assert phase["achieved_flops"] == pytest.approx(speed)
    share = summary["matmul_flops"]["forward_backward"] / work
    assert phase["mfu"] == pytest.approx(speed * share / phase["peak_flops"])
    assert 0 < phase["mfu"] < 1
    assert phase["line"].endswith("-bound")
    seconds = summary["seconds"]["train"] + summary["seconds"]["data"]
    assert 0 < 6 * phase["seconds_per_step"] < seconds


def test_a_trace_of_a_few_steps_is_written(run):
    _, out = run
    (path,) = (out / "profile").rglob("perfetto_trace.json.gz")
    trace = json.loads(gzip.decompress(path.read_bytes()))
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    names = [e.get("name", "") for e in events]
    assert sum("train_step" in name for name in names) > 0
    assert list((out / "profile").rglob("*.xplane.pb"))


def test_recomputation_is_not_work_of_the_model(tiny):
    again = replace_from_dict(tiny, {"model": {"remat": True}})
    tokens = 8 * 32
    counted = train_flops(again.model, 32) * tokens
    wanted = 3 * forward_flops(again.model, 32) * tokens
    assert counted > wanted
    assert model_flops(again, counted) == wanted
    assert model_flops(tiny, 123) == 123
    part = replace_from_dict(again, {"model": {"frozen": 1}})
    block = block_flops(tiny.model, 32, tokens)
    assert model_flops(part, counted) == wanted - 2 * block
