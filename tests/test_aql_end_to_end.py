"""Runs that choose their data: stopped and resumed, on many devices, opened again."""

import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import StoppedError, UserError
from uets_jax.measure.devices import find
from uets_jax.report.metrics import read_metrics
from uets_jax.train import loop
from uets_jax.train.assets import asset_costs
from uets_jax.train.cost import estimate
from uets_jax.train.finished import evaluate_run, generate_run, open_run
from uets_jax.train.growing import parts

CLOCK = ("seconds", "joules")  # what a clock decides


def story(rng, after: np.ndarray, words: int) -> str:
    """Text in which each word may be followed by three others."""
    word, text = int(rng.integers(len(after))), []
    for _ in range(words):
        text.append(f"{'bcdfghklmnprst'[word % 14]}{'aeiou'[word // 14]}n")
        word = int(after[word, rng.integers(3)])
    return " ".join(text)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder of stories, some of them in random order, and one of a sample."""
    folder, rng = tmp_path_factory.mktemp("stories"), np.random.default_rng(0)
    after = rng.integers(0, 70, (70, 3))
    for number in range(60):
        words = story(rng, after, 150).split()
        if number % 3 == 0:
            words = rng.permutation(words)
        (folder / f"{number:02d}.txt").write_text(" ".join(words))
    sample = folder / "sample"
    sample.mkdir()
    for number in range(3):
        (sample / f"{number}.txt").write_text(story(rng, after[:40] % 40, 100))
    return folder


@pytest.fixture(scope="module")
def configs(tiny, text):
    """One run of eight steps in each mode."""
    own = {
        "data": {"source": f"files:{text}/*.txt", "tokenizer": "bpe:320"},
        "model": {"vocab": 0},
        "select": {
            "method": "aql",
            "candidates": 4,
            "run": 4,
            "buffer": 64,
            "policy": True,
        },
        "train": {"checkpoint_every": 3, "eval_every": 0, "samples": 0},
    }
    blind = replace_from_dict(tiny, own)
    sample = {"mode": "target", "target": f"files:{text}/sample/*.txt"}
    lengths = {"lengths": "8:0.3,16:0.6"}
    return {
        "blind": blind,
        "target": replace_from_dict(blind, {"select": sample}),
        "pool": replace_from_dict(blind, {"select": {"mode": "pool"}}),
        "short first": replace_from_dict(blind, {"curriculum": lengths}),
    }


@pytest.fixture(scope="module")
def whole(configs, tmp_path_factory):
    """name -> (result, folder) of a run that was never stopped."""
    found = {}

    def run(name):
        if name not in found:
            out = tmp_path_factory.mktemp("whole") / "run"
            found[name] = loop.train(configs[name], out), out
        return found[name]

    return run


def curve(out):
    """All records of steps, less what a clock decides."""
    records = [r for r in read_metrics(out / "metrics.jsonl") if "event" not in r]
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in records]


def identical(result, out, expected):
    """A run ended bit-identical to one that was never stopped, all parts of it."""
    never, folder = expected
    chex.assert_trees_all_equal(
        *(
            s._replace(key=jax.random.key_data(s.key))
            for s in (result.state, never.state)
        )
    )
    summary = json.loads((out / "summary.json").read_text())
    for key in ("params_sha256", "data_sha256", "tokens", "flops", "final_loss"):
        assert summary[key] == json.loads(json.dumps(never.summary[key])), key
    assert curve(out) == curve(folder)


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is saved."""


def killed_at(monkeypatch, last):
    """Lets a run die before the given step is called."""
    real = loop.stage_executable

    def dying(*given):
        step = real(*given)

        def once(state, pool, assets):
            if int(state.step) == last:
                raise Killed
            return step.call(state, pool, assets)

        return step._replace(call=once)

    monkeypatch.setattr(loop, "stage_executable", dying)


def signal_at(monkeypatch, step):
    """Lets a signal come during the given step of a run."""
    real, steps = loop.chain_ids, []

    def chain(previous, ids):
        steps.append(None)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(previous, ids)

    monkeypatch.setattr(loop, "chain_ids", chain)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        pytest.param("blind", 5, marks=pytest.mark.slow),
        ("target", 7),
        pytest.param("pool", 4, marks=pytest.mark.slow),
        pytest.param("short first", 6, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_bit_identical(
    name, last, whole, configs, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_at(patch, last)
        with pytest.raises(Killed):
            loop.train(configs[name], out)
    result = loop.train(configs[name], out, resume=True)
    identical(result, out, whole(name))


@pytest.mark.parametrize(
    ("name", "step", "saved"),
    # of the last: rows of 8 up to step 2, of 16 up to step 5; the stop at a border
    # comes a step later
    [("blind", 4, 4), ("target", 2, 2), ("short first", 2, 3), ("short first", 4, 4)],
)
def test_a_stopped_run_resumes_bit_identical(
    name, step, saved, whole, configs, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, step)
        with pytest.raises(StoppedError, match=f"SIGTERM at step {saved}"):
            loop.train(configs[name], out)
    assert open_run(out).record["step"] == saved
    result = loop.train(configs[name], out, resume=True)
    identical(result, out, whole(name))


def test_all_parts_have_learned_something(whole):
    state = whole("blind")[0].state.parts["select"]
    assert int(state.now) == 8
    assert int((state.buffer.keys > -np.inf).sum()) == 64 - 8
    assert int((state.novelty.table > 0).sum()) > 50
    assert float(state.buckets.seen.sum()) == 8 * 8
    assert int(state.posterior.calls) == 8
    assert int(state.policy.held) == 7  # nothing was pulled before the first step


def test_the_metrics_tell_of_the_selection(whole):
    steps = [r for r in curve(whole("blind")[1]) if "loss" in r]
    assert len(steps) == 8
    told = {"score", "age", "temperature", "seen", "barred", "entropy", "bald", "arm"}
    for record in steps:
        assert {f"select_{name}" for name in told} <= set(record)
    temperatures = [r["select_temperature"] for r in steps]
    assert temperatures == sorted(temperatures, reverse=True)
    assert all(r["select_weight"] >= 1 for r in curve(whole("pool")[1]) if "loss" in r)


def test_length_warm_up_has_its_phases(configs, whole):
    assert [*parts(loop.open_session(configs["short first"]))] == [
        (2, 8),
        (5, 16),
        (8, 32),
    ]
    steps = [r for r in curve(whole("short first")[1]) if "loss" in r]
    assert [r["tokens"] for r in steps] == [256 * (i + 1) for i in range(8)]
    each = np.diff([0, *(r["flops"] for r in steps)])
    assert each[1] < each[4] < each[7]  # attention over more tokens


def test_the_cost_is_told_beforehand(configs, whole):
    result = whole("blind")[0]
    config = result.config  # with its vocabulary
    told, spent = estimate(config, find("cpu")).flops, result.summary["flops"]
    assert told["scoring"] == spent["scoring"] > 0
    assert told["forward_backward"] == spent["forward_backward"]
    once = asset_costs(config, loop.open_session(config).store)["statistics"].total
    refreshes = sum(r.get("taken/laplace_refresh", 0) for r in curve(whole("blind")[1]))
    assert once > 0
    assert spent["statistics"] >= told["statistics"] + once
    assert spent["statistics"] < told["statistics"] + once + 8 * 32**3, refreshes


def test_eight_devices_choose_and_learn_as_one_does(configs, whole, tmp_path):
    eight = replace_from_dict(configs["target"], {"train": {"mesh": {"data": 8}}})
    result = loop.train(eight, tmp_path / "run")
    alone = whole("target")[0]
    ids = lambda r: np.asarray(r.state.parts["select"].drawn.batch.ids)
    np.testing.assert_array_equal(ids(result), ids(alone))
    names = ("loss", "select_score", "select_entropy", "select_bald", "select_seen")
    for one, many in zip(
        curve(whole("target")[1]), curve(tmp_path / "run"), strict=True
    ):
        for name in names:
            if name in one:
                assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
    chex.assert_trees_all_close(
        jax.device_get(result.state.params),
        jax.device_get(alone.state.params),
        atol=1e-4,
    )


def test_a_run_can_be_evaluated_and_writes_text(whole):
    result, out = whole("target")
    found = evaluate_run(out, tokens=2048)
    assert found["valid_loss"] == pytest.approx(result.summary["final_loss"], rel=1e-5)
    assert generate_run(out, "ban", tokens=4).startswith("ban")


@pytest.fixture
def other_sample(text):
    """The target sample is another one while a test runs."""
    path = text / "sample" / "1.txt"
    before = path.read_text()
    path.write_text("something else altogether, of other words. " * 20)
    yield
    path.write_text(before)


@pytest.mark.usefixtures("other_sample")
def test_a_sample_that_changed_is_refused_or_allowed(configs, whole, tmp_path):
    whole_out, out = whole("target")[1], tmp_path / "run"
    shutil.copytree(whole_out, out)
    longer = replace_from_dict(configs["target"], {"train": {"steps": 10}})
    refused = r"another target sample or reference .* --allow select\)"
    with pytest.raises(UserError, match=refused):
        loop.train(longer, out, resume=True, allow=("train.steps",))
    allow = ("train.steps", "select")
    assert loop.train(longer, out, resume=True, allow=allow).summary["steps"] == 10
    told = [r["detail"] for r in read_metrics(out / "metrics.jsonl") if "event" in r]
    assert any("another target sample or reference than before" in t for t in told)
    assert evaluate_run(whole_out)["step"] == 8  # nothing is selected there


def test_a_sample_that_is_gone_is_one_clear_line(configs, tmp_path):
    gone = {"select": {"target": f"files:{tmp_path}/*.txt"}}
    with pytest.raises(UserError, match=r"select\.target: .*\*\.txt"):
        loop.train(replace_from_dict(configs["target"], gone), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lengths_that_cannot_be_read_are_named_before_anything(configs, tmp_path):
    for lengths, why in (("8", "write length:share"), ("9:0.5", "must divide 32")):
        wrong = replace_from_dict(
            configs["blind"], {"curriculum": {"lengths": lengths}}
        )
        with pytest.raises(UserError, match=rf"curriculum\.lengths: .*{why}"):
            loop.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()
