import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import arms, curriculum_synthesis
from experiments.curriculum_plan import Options
from experiments.curriculum_synthesis import (
    ARMS,
    EVERY,
    TOKENS,
    SynthesisState,
    overrides,
    run_all,
    synthesis,
    synthesis_jobs,
)
from experiments.runner import QUIET, Job
from uets_jax.build import build
from uets_jax.config import replace_from_dict
from uets_jax.errors import NonFiniteLossError
from uets_jax.measure.jaxpr import count
from uets_jax.selection.synthesis import SYNTHETIC
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.loop import Result
from uets_jax.train.mesh import make_mesh
from uets_jax.types import Moment

ALL = (0.0, 1e9)


@pytest.fixture
def chosen(program, state, batch, monkeypatch):
    """(way, calls, progress, bands) -> (batch, metrics, state)."""
    monkeypatch.setattr(curriculum_synthesis, "TOKENS", 4)

    def choose(way, calls, progress, band=ALL):
        monkeypatch.setattr(curriculum_synthesis, "LOSS", band)
        monkeypatch.setattr(curriculum_synthesis, "ENTROPY", ALL)
        part = synthesis(way, program.forward, program.logits, 8)
        own = SynthesisState(jnp.int32(calls), jnp.float32(1), jnp.float32(1))
        moment = Moment(state.params, None, jnp.float32(progress), jax.random.key(1))
        found, weights, metrics, after = jax.jit(part.choose)(own, batch, moment)
        assert weights is None
        assert after.calls == calls + 1
        return found, metrics

    return choose


@pytest.mark.parametrize("way", ARMS)
def test_a_quarter_of_every_eighth_batch_is_made_up(way, chosen, batch):
    found, metrics = chosen(way, EVERY - 1, 0.5)
    assert found.ids.tolist() == [SYNTHETIC] * 2 + [2, 3, 4, 5, 6, 7]
    same = lambda a, b: bool((a == b).all())
    assert same(found.tokens[2:], batch.tokens[2:])
    assert not same(found.tokens[:2], batch.tokens[:2])
    half = batch.tokens.shape[1] // 2
    if way == "recombinations":
        assert same(found.tokens[:2, :half], batch.tokens[:2, :half])
        assert same(found.tokens[:2, half:], batch.tokens[:2, half:][::-1])
    assert metrics["taken/synthesis"] == 1
    assert metrics["synthetic_accepted"] == 1


@pytest.mark.parametrize(("calls", "progress"), [(EVERY - 1, 0.4), (EVERY, 0.9)])
def test_all_other_batches_stay(calls, progress, chosen, batch):
    found, metrics = chosen("recombinations", calls, progress)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, batch))
    assert {float(value) for value in metrics.values()} == {0.0}


def test_a_rejected_row_leaves_the_real_one(chosen, batch):
    found, metrics = chosen("recombinations", EVERY - 1, 0.9, band=(1e8, 1e9))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, batch))
    assert metrics["taken/synthesis"] == 1
    assert metrics["synthetic_accepted"] == 0


def test_means_are_of_what_was_trained_on(program, state, batch):
    part = synthesis(ARMS[0], program.forward, program.logits, 8)
    losses, stats = program.forward(state.params, batch)
    known = np.asarray(batch.targets) >= 0
    seen = (batch, losses, stats, None)
    first = part.init(None)._replace(calls=jnp.int32(1))
    metrics, now = part.observe(first, *seen)
    assert metrics == {}
    assert now.loss == pytest.approx(np.asarray(losses)[known].mean(), rel=1e-5)
    entropy = np.asarray(stats.entropy)[known].mean()
    assert now.entropy == pytest.approx(entropy, rel=1e-5)
    again = SynthesisState(jnp.int32(2), jnp.float32(0), now.entropy)
    _, later = part.observe(again, *seen)
    assert later.loss == pytest.approx(0.1 * float(now.loss), rel=1e-4)


@pytest.fixture(scope="module")
def config(tiny, corpus):
    values = {
        "data": {"source": f"files:{corpus}/*.txt"},
        "model": {"vocab": 257},
        "train": QUIET,
    }
    return replace_from_dict(tiny, values)


@pytest.mark.parametrize("way", ARMS)
def test_making_rows_is_paid_for_where_it_happens(way, config):
    """Rows are judged by a forward pass; a sampled token takes one more."""
    program = build(config, overrides(way, config))
    mesh = make_mesh(config.train.mesh)
    found = count(trace_step(program, mesh, shapes(config)).jaxpr)
    assert {*found.branches} == {"synthesis"}
    flops = lambda taken, name: found.total({"synthesis": taken})[name].total
    step = flops(0, "forward_backward")
    assert flops(1, "forward_backward") == step
    spent = flops(1, "scoring") - flops(0, "scoring")
    forwards = 1 if way == "recombinations" else 2 + TOKENS
    row = step / 3 / config.train.batch  # of a forward pass, about
    assert spent == pytest.approx(2 * forwards * row, rel=0.3)
    assert flops(0, "scoring") < row / 10


def test_a_run_is_given_its_part_measured_and_run_once(config, tmp_path, monkeypatch):
    calls = []

    def trained(own, folder, resume, overrides):
        calls.append((own, folder, resume, overrides))
        print("told")
        folder.mkdir()
        (folder / "checkpoints").mkdir()
        return Result(own, None, {"bits_per_byte": 2.0, "steps": 9})  # type: ignore

    monkeypatch.setattr(curriculum_synthesis, "train", trained)
    read = lambda result: {"read": result.summary["steps"] + 1}
    jobs, said = [Job("synthesis/x", config, (("arm", ARMS[1]),), read)], []
    results = run_all(jobs, tmp_path, said.append)
    folder = tmp_path / "synthesis/x"
    assert calls == [(config, folder, False, overrides(ARMS[1], config))]
    record = results["synthesis/x"]
    assert (record["bits_per_byte"], record["read"], record["steps"]) == (2.0, 10, 9)
    assert not record["diverged"]
    assert not (folder / "checkpoints").exists()
    assert folder.with_suffix(".log").read_text() == "told\n"
    assert run_all(jobs, tmp_path, said.append) == results
    assert (len(said), len(calls)) == (1, 1)


def test_a_run_that_diverges_is_a_result(config, tmp_path, monkeypatch):
    def fails(*given, **more):
        raise NonFiniteLossError("loss is nan")

    monkeypatch.setattr(curriculum_synthesis, "train", fails)
    job = Job("synthesis/y", config, (("arm", "recombinations"),))
    record = run_all([job], tmp_path, lambda line: None)["synthesis/y"]
    assert record["diverged"]
    assert record["bits_per_byte"] is None
    assert record == json.loads((tmp_path / "synthesis/y.json").read_text())


def test_seeds_share_a_program(config):
    other = dataclasses.replace(config.train, seed=9)
    one, two = (
        overrides(ARMS[0], dataclasses.replace(config, train=t))
        for t in (config.train, other)
    )
    assert one["select"] is two["select"]


def test_every_arm_has_every_seed(monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8)
    jobs = synthesis_jobs(Options(Path("x"), 3, 1e11))
    assert len({job.name for job in jobs}) == len({j.config for j in jobs}) == 6
    assert {dict(job.labels)["arm"] for job in jobs} == {*ARMS}
