"""The model before it last grew, which the grown one's selection refers to."""

import json
import shutil
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest

from uets_jax.aql.reference import Snapshot, reference_losses
from uets_jax.build import build
from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.stages import ladder
from uets_jax.measure.jaxpr import count
from uets_jax.report.metrics import read_metrics
from uets_jax.selection.scores import row_mean
from uets_jax.train import loop
from uets_jax.train.cost import largest_stage, total_costs
from uets_jax.train.executable import abstract_batch, shapes, trace_step
from uets_jax.train.finished import open_run
from uets_jax.train.footprint import stage_assets
from uets_jax.train.mesh import make_mesh
from uets_jax.train.session import open_session
from uets_jax.train.snapshot import filled, restored

GROWN, STEPS, B = 3, 6, 8


@pytest.fixture(scope="module")
def config(config):
    """Grows after 3 of 6 steps, which a probe precedes; chooses 8 of 32 windows."""
    when = {"method": "probe", "earliest": 0.5, "every": 0.5, "probe_steps": 2}
    return replace_from_dict(
        config,
        {
            "train": {
                "checkpoint_every": 0,
                "eval_every": 0,
                "on_bad_step": "rollback",
                "samples": 0,
                "steps": STEPS,
            },
            "growth": {**when, "plan": "depth=3:0.5", "rewarm": 0},
            "select": {"method": "rho", "reference": "snapshot", "candidates": 4},
        },
    )


def saved(config, every):
    return replace_from_dict(config, {"train": {"checkpoint_every": every}})


class Step(NamedTuple):
    """What a step was given and gave, by its number, counted from 0."""

    before: dict
    pool: object
    after: dict
    metrics: dict


def watch(patch, last=None):
    """The steps of a run, as they are made; it is killed as step `last` begins."""
    real, steps = loop.stage_executable, {}

    def watched(*given):
        step = real(*given)

        def call(state, pool, assets):
            number, host = int(state.step), lambda tree: jax.tree.map(np.array, tree)
            if number == last:
                raise Killed
            before = host(state.params)
            state, metrics = step.call(state, pool, assets)
            found = Step(before, pool, host(state.params), host(dict(metrics)))
            steps[number] = found
            return state, metrics

        return step._replace(call=call)

    patch.setattr(loop, "stage_executable", watched)
    return steps


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is saved."""


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run that was never stopped: (result, folder, steps)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        steps = watch(patch)
        return loop.train(config, out), out, steps


def rows_of(config, params, pool):
    """(token losses, mean of each row) of a model."""
    losses = jax.jit(build(config).forward)(params, pool)[0]
    return np.asarray(losses), np.asarray(row_mean(losses, pool.targets))


def check_choice(step, now, before, reference):
    """The step was made on what is highest above the reference; the rows it took."""
    losses, mine = rows_of(now, step.before, step.pool)
    excess = mine - rows_of(before, reference, step.pool)[1]
    best = np.argsort(-excess)[:B]
    score = float(step.metrics["select_score"])
    assert score == pytest.approx(excess[best].mean(), rel=1e-3, abs=1e-5)
    counted = np.asarray(step.pool.targets)[best] >= 0
    loss = (losses[best] * counted).sum() / counted.sum()
    assert float(step.metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    return set(best), set(np.argsort(-mine)[:B])


# what is chosen


def test_a_grown_model_is_held_against_what_it_grew_from(whole, config):
    """(The first step after a growth that changes nothing has nothing to prefer.)"""
    before, now = ladder(config)
    steps = whole[2]
    for number in range(GROWN + 1, STEPS):
        reference = steps[GROWN - 1].after
        mine, plain = check_choice(steps[number], now, before, reference)
        assert mine != plain


def test_before_it_grows_the_choice_is_a_uniform_draw(whole, config):
    """Not of the highest losses; other places of the pool in each step."""
    taken = []
    for number in range(3):
        step = whole[2][number]
        assert "select_score" not in step.metrics
        session = open_session(config)
        key = jax.random.fold_in(session.initial_state().key, number)
        draw = jax.random.uniform(jax.random.fold_in(key, 1), step.pool.ids.shape)
        best = np.argsort(-np.asarray(draw))[:B]
        losses, _ = rows_of(config, step.before, step.pool)
        counted = np.asarray(step.pool.targets)[best] >= 0
        loss = (losses[best] * counted).sum() / counted.sum()
        assert float(step.metrics["loss"]) == pytest.approx(loss, rel=1e-5)
        taken.append(tuple(sorted(best)))
    assert len(set(taken)) == 3


# what it costs


def test_only_the_passes_of_grown_stages_are_charged(whole, config):
    summary = whole[0].summary
    program, rows = build(config), abstract_batch(4 * B, 32)
    params = jax.eval_shape(program.init, jax.random.key(0))
    snapshot = Snapshot(params, program.forward)
    traced = jax.jit(reference_losses).trace(snapshot, rows)
    once = count(traced.jaxpr).total()["reference"].total
    assert summary["flops"]["reference"] == (STEPS - GROWN) * once


def test_the_first_stage_costs_what_a_step_without_a_choice_does(config):
    plain = replace_from_dict(config, {"select": {"method": "none", "reference": ""}})
    mesh, assets = make_mesh(config.train.mesh), open_session(config).assets
    chosen, alone = (
        count(trace_step(build(c), mesh, shapes(c, a)).jaxpr).total()
        for c, a in ((config, assets), (plain, None))
    )
    assert "reference" not in chosen
    assert chosen["scoring"].matmul == 0
    assert chosen["scoring"].total < 1e-3 * alone["forward_backward"].total
    assert chosen["forward_backward"] == alone["forward_backward"]


def test_the_ledger_has_what_was_estimated(whole, config):
    """The probe, too, whose larger fork refers to the model as it is."""
    spent = {k: v for k, v in whole[0].summary["flops"].items() if k != "evaluation"}
    found = {k: v.total for k, v in total_costs(config).items() if v.total}
    assert {k: v for k, v in found.items() if k != "evaluation"} == spent
    assert found["probe"] > 0


def test_the_largest_stage_holds_two_models(config):
    stage, before = largest_stage(config)
    assert before is not None
    assert (stage.model.depth, before.model.depth) == (3, 2)
    found: Any = stage_assets(stage, None, before)
    alone: Any = stage_assets(stage)
    params = lambda c: build(c).init(jax.random.key(0))
    wanted = jax.eval_shape(lambda: params(before))
    chex.assert_trees_all_equal_shapes(found.reference.params, wanted)
    assert alone.reference is None


# going on


def test_a_killed_run_resumes_bit_identical(whole, config, tmp_path, monkeypatch):
    """Killed at 5, where the checkpoint of 4 is the last one."""
    out, config = tmp_path / "run", saved(config, 4)
    with monkeypatch.context() as patch:
        watch(patch, 5)
        with pytest.raises(Killed):
            loop.train(config, out)
    summary = loop.train(config, out, resume=True).summary
    for key in ("params_sha256", "data_sha256", "tokens", "flops", "final_loss"):
        assert summary[key] == whole[0].summary[key], key
    scores = [
        [r.get("select_score") for r in read_metrics(run / "metrics.jsonl")]
        for run in (out, whole[1])
    ]
    given = [[s for s in row if s is not None] for row in scores]
    assert given[0] == given[1]
    assert len(given[0]) == STEPS - GROWN


@pytest.mark.parametrize(("bad", "every"), [(4, 2), (5, 4)])
def test_a_rollback_refers_to_what_its_checkpoint_referred_to(
    bad, every, config, tmp_path, monkeypatch, one_is_bad
):
    """Step 4 goes back to 2, before the growth; step 5 to 4, after it."""
    one_is_bad(bad)
    steps = watch(monkeypatch)
    result = loop.train(saved(config, every), tmp_path / "run")
    assert result.summary["rollbacks"] == 1
    assert [entry["step"] for entry in result.summary["growth"]] == [GROWN]
    before, now = ladder(config)
    assert "select_score" not in steps[2].metrics
    check_choice(steps[4], now, before, steps[2].after)


def test_a_run_is_opened_without_its_snapshot(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    record = json.loads((out / "checkpoints/00000006/record.json").read_text())
    assert record["position"]["snapshot"] == GROWN
    shutil.rmtree(out / "snapshots")
    chex.assert_trees_all_equal(open_run(out).state.params, whole[0].state.params)


def test_a_snapshot_that_is_lost_or_damaged_is_one_clear_line(whole, config, tmp_path):
    out, session = tmp_path / "run", open_session(config)
    assert restored(session, out, 0) is session
    grown = session.reshaped(ladder(config)[1].model)
    with pytest.raises(UserError, match=r"00000003.*can't go on without it") as lost:
        restored(grown, out, 3)
    shutil.copytree(whole[1] / "snapshots", out / "snapshots")
    found: Any = restored(grown, out, 3).snapshot
    chex.assert_trees_all_equal(jax.device_get(found.params), whole[2][2].after)
    (out / "snapshots/00000003/record.json").write_text("{}")
    with pytest.raises(UserError, match=r"checksum differs.*restore it") as damaged:
        restored(grown, out, 3)
    assert "\n" not in str(lost.value) + str(damaged.value)


def test_a_snapshot_is_a_copy_that_every_device_has(config):
    mesh = {"train": {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}}
    session = open_session(replace_from_dict(config, mesh))
    state = session.initial_state()
    grown = session.reshaped(ladder(config)[1].model)
    assert all(
        isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(grown.snapshot)
    )
    full = filled(grown, session, state.params)
    assert full.assets.reference is full.snapshot
    assert full.windows is session.windows
    for new, old in zip(
        jax.tree.leaves(full.snapshot), jax.tree.leaves(state.params), strict=True
    ):
        assert new.sharding.is_fully_replicated
        np.testing.assert_array_equal(new, old)
        old.delete()
        assert not new.is_deleted()
    later = full.reshaped(ladder(config)[0].model)  # less of everything
    assert filled(later, full, {}).snapshot is full.snapshot


def test_a_plan_that_only_takes_away_leaves_nothing_to_refer_to(config):
    prunes = {"plan": "heads=1:0.3,frozen=1:0.5"}
    with pytest.raises(UserError, match=r"select\.reference: snapshot: .*nothing") as e:
        open_session(replace_from_dict(config, {"growth": prunes}))
    assert "\n" not in str(e.value)
