import dataclasses
import itertools
import shutil

import chex
import jax
import numpy as np
import optax
import pytest

from uets_jax.build import build
from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.learned import load_policy, save_policy
from uets_jax.growth.stages import Op, Stage, ladder, parse
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import read_metrics
from uets_jax.train import growing, loop
from uets_jax.train.cost import total_costs
from uets_jax.train.executable import evaluation_cost, executable
from uets_jax.train.finished import evaluate_run, generate_run, open_run
from uets_jax.train.growth_cost import growth_costs
from uets_jax.train.mesh import abstract_state, make_mesh
from uets_jax.train.session import open_session

PLAN = "depth=3:0.3,heads=4:0.55"  # of 8 steps: after 3 and after 5


@pytest.fixture(scope="module")
def config(config):
    """With a growth by plan and a guard; validated and saved at its end."""
    train = {"on_bad_step": "rollback", "checkpoint_every": 0, "eval_every": 0}
    growth = {"method": "fixed", "plan": PLAN, "rewarm": 4}
    return replace_from_dict(config, {"train": train, "growth": growth})


def grows(config, **growth):
    return replace_from_dict(config, {"growth": growth})


def saved(config, every):
    return replace_from_dict(config, {"train": {"checkpoint_every": every}})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run that was never stopped: (result, folder)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return loop.train(config, out), out


def records(out, *kinds):
    found = read_metrics(out / "metrics.jsonl")
    return [r for r in found if r.get("event") in (kinds or (None,))]


def same(summary, whole):
    """The run ended bit-identical to the one that was never stopped."""
    for key in ("params_sha256", "data_sha256", "tokens", "flops", "final_loss"):
        assert summary[key] == whole[key], key
    assert summary["growth"] == whole["growth"]


def losses(out):
    return [(r["step"], r["loss"], r["flops"]) for r in records(out) if "loss" in r]


# a plan


def test_each_stage_comes_at_its_share_and_keeps_the_loss(whole):
    first, second = whole[0].summary["growth"]
    assert (first["step"], second["step"]) == (3, 5)
    for entry in (first, second):
        assert entry["exact"]
        assert entry["loss_after"] == pytest.approx(entry["loss_before"], abs=1e-6)
        assert entry["begun_anew"] == 0
        assert entry["step_flops"] > entry["step_flops_before"]
    assert first["step_flops"] == second["step_flops_before"]
    [op] = second["ops"]
    assert (op["field"], op["size"], op["how"]) == ("heads", 4, "new")
    assert second["params"] == whole[0].summary["params"]
    assert whole[0].config.model.depth == 3
    assert whole[0].config.model.heads == 4


def test_metrics_tell_of_each_stage(whole):
    first, second = records(whole[1], "growth")
    assert first["detail"] == "depth 2 -> 3 (share 0.3 is reached at 0.375)"
    assert second["detail"] == "heads 2 -> 4 (share 0.55 is reached at 0.625)"
    assert (first["step"], second["step"]) == (3, 5)
    steps = [r["step"] for r in records(whole[1]) if "loss" in r]
    assert steps == list(range(1, 9))


def test_a_step_costs_what_its_model_costs(whole, config):
    spent = {step: flops for step, _, flops in losses(whole[1])}
    mesh = make_mesh(config.train.mesh)
    for rung, steps in zip(ladder(config), [(2, 3), (5,), (7, 8)], strict=True):
        step = executable(build(rung), mesh, rung, None)
        cost = sum(c.total for c in step.count.most().values())
        for number in steps:  # the first one after a growth has its cost in it
            assert spent[number] - spent[number - 1] == cost


def test_what_a_growth_reads_is_charged(whole):
    summary = whole[0].summary
    assert summary["flops"]["growth"] > 0
    spent = {step: flops for step, _, flops in losses(whole[1])}
    entry = summary["growth"][0]
    assert spent[4] - spent[3] > entry["step_flops"]
    assert set(summary["seconds"]) >= {"growth"}


def test_the_ledger_has_what_was_estimated(whole, config):
    found = {k: v.total for k, v in total_costs(config).items() if v.total}
    spent = whole[0].summary["flops"]
    assert {k: v for k, v in found.items() if k != "evaluation"} == {
        k: v for k, v in spent.items() if k != "evaluation"
    }


def test_the_stored_config_is_that_of_the_start(whole, config):
    assert read_config(whole[1] / "config.json").model == config.model
    opened = open_run(whole[1])
    assert opened.config.model == whole[0].config.model
    chex.assert_trees_all_equal(opened.state.params, whole[0].state.params)


def test_a_grown_run_can_be_evaluated_and_generates(whole):
    found = evaluate_run(whole[1], tokens=2048)
    assert found["valid_loss"] == pytest.approx(whole[0].summary["final_loss"])
    assert generate_run(whole[1], "the", tokens=4).startswith("the")


def test_each_stage_is_traced_once_and_an_own_optimizer_grows(config, tmp_path):
    traces = []

    def counted(hypers, step):
        traces.append(None)  # runs when the step is traced, never when it is called
        return hypers.learning_rate

    own = {"schedule": counted, "tx": optax.adam(1e-3)}
    once = grows(config, plan="depth=3:0.3")
    summary = loop.train(once, tmp_path / "run", overrides=own).summary
    assert len(traces) == 2
    [entry] = summary["growth"]
    assert (entry["step"], entry["begun_anew"]) == (3, 0)


# going on


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is saved."""


def kill_at(patch, last):
    """Ends the run as step `last` + 1 begins."""
    real = loop.stage_executable

    def dying(*given):
        step = real(*given)

        def once(state, pool, assets):
            if int(state.step) == last:
                raise Killed
            return step.call(state, pool, assets)

        return step._replace(call=once)

    patch.setattr(loop, "stage_executable", dying)


@pytest.mark.parametrize(("last", "every"), [(3, 3), (4, 4), (7, 3)])
def test_a_killed_run_resumes_bit_identical(
    last, every, whole, config, tmp_path, monkeypatch
):
    """At 3, whose checkpoint is older than its growth; between the two; after both."""
    out, config = tmp_path / "run", saved(config, every)
    with monkeypatch.context() as patch:
        kill_at(patch, last)
        with pytest.raises(Killed):
            loop.train(config, out)
    same(loop.train(config, out, resume=True).summary, whole[0].summary)
    assert losses(out) == losses(whole[1])


def test_a_resume_with_another_plan_is_refused(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    other = grows(config, plan="depth=4:0.3")
    with pytest.raises(UserError, match=r"growth\.plan is .* another --out"):
        loop.train(other, out, resume=True)


@pytest.mark.parametrize("bad", [5, 6])
def test_a_rollback_behind_a_growth_grows_again(
    bad, whole, config, tmp_path, one_is_bad
):
    """Step 5 goes back to step 4; step 6 to step 5, saved before it grew."""
    one_is_bad(bad)
    result = loop.train(saved(config, bad - 1), tmp_path / "run")
    summary = result.summary
    assert summary["rollbacks"] == 1
    assert [entry["step"] for entry in summary["growth"]] == [3, 5]
    assert result.config.model == whole[0].config.model
    assert [step for step, *_ in losses(tmp_path / "run")] == list(range(1, 9))
    [event] = records(tmp_path / "run", "rollback")
    assert f"back to step {bad - 1}" in event["detail"]


# when


TRIGGER = {"method": "trigger", "plan": "depth=3:0.6,heads=4:0.85", "every": 0.25}


def test_a_trigger_reads_the_slope_and_a_resumed_one_reads_the_same(
    config, tmp_path, monkeypatch
):
    eager = grows(config, slope=1e9, earliest=0.25, **TRIGGER)
    out, again = tmp_path / "run", tmp_path / "again"
    whole = loop.train(eager, out).summary
    first, second = whole["growth"]
    assert first["step"] == 4  # at 2 there are too few points
    assert first["why"].startswith("fall ")
    assert second["step"] == 7  # at 6 too few again: its share
    assert second["why"].startswith("share 0.85")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(Killed):
            loop.train(saved(eager, 4), again)
    same(loop.train(eager, again, resume=True).summary, whole)
    assert losses(again) == losses(out)


def test_a_trigger_that_never_fires_takes_its_shares(config, tmp_path):
    patient = grows(config, slope=0.0, earliest=0.1, **TRIGGER)
    summary = loop.train(patient, tmp_path / "run").summary
    assert [entry["step"] for entry in summary["growth"]] == [5, 7]


def asked(found):
    """A probe whose verdict is known beforehand; its forks are trained all the same."""
    real, losses = growing.probe, []

    def probe(run, stages):
        before = jax.tree.map(np.asarray, jax.device_get(run.state.params))
        losses.append(real(run, stages))
        chex.assert_trees_all_equal(jax.device_get(run.state.params), before)
        return found

    return probe, losses


@pytest.mark.parametrize("grow", [False, True])
def test_a_probe_is_charged_and_touches_nothing(grow, config, tmp_path, monkeypatch):
    growth = {"plan": "depth=3:0.8", "earliest": 0.5, "every": 0.5, "probe_steps": 2}
    probe, losses = asked((1.0, 0.0) if grow else (0.0, 1.0))
    monkeypatch.setattr(growing, "probe", probe)
    probing = grows(config, **{**growth, "method": "probe"})
    summary = loop.train(probing, tmp_path / "probe").summary
    [entry] = summary["growth"]
    assert entry["step"] == (4 if grow else 7)
    assert len(losses) == (1 if grow else 2)  # at 4, at 7
    for found in losses:
        assert np.isfinite(found).all()
        assert len(found) == 2
    small, large = entry["step_flops_before"], entry["step_flops"]
    length = round(2 * large / small)
    cost = length * small + round(length * small / large) * large
    mesh = make_mesh(config.train.mesh)
    for rung in ladder(probing):  # each is scored on four batches
        cost += 4 * evaluation_cost(build(rung), mesh, rung).total
    assert summary["flops"]["probe"] == len(losses) * cost
    if not grow:
        assert growth_costs(probing)["probe"].total == summary["flops"]["probe"]
    told = [r for r in read_metrics(tmp_path / "probe/metrics.jsonl") if "taken" in r]
    assert [r["taken"] for r in told] == ([1] if grow else [0, 1])
    if not grow:
        plain = grows(config, **{**growth, "method": "fixed"})
        alone = loop.train(plain, tmp_path / "fixed").summary
        assert alone["params_sha256"] == summary["params_sha256"]


@pytest.mark.parametrize("steps", [7, 8, 10, 100, 399, 1000])
def test_a_stage_is_due_at_the_first_step_that_reaches_its_share(tiny, steps):
    config = replace_from_dict(tiny, {"train": {"steps": steps}})
    for share in [*np.linspace(0.001, 0.999, 113), 0.07, 0.29, 0.3, 0.57, 0.7]:
        found = growing.due_step(config, Stage((), float(share)))
        reached = (n for n in itertools.count(1) if n / steps >= share)
        assert found == next(reached)


# pruning


@pytest.mark.parametrize("prune", ["importance", "magnitude", "random"])
def test_a_run_can_prune(prune, config, tmp_path):
    plan = "heads=1:0.3,depth=1:0.3"
    less = grows(config, plan=plan, prune=prune)
    less = replace_from_dict(less, {"train": {"steps": 4}})
    result = loop.train(less, tmp_path / "run")
    [entry] = result.summary["growth"]
    assert entry["step"] == 2
    assert not entry["exact"]
    heads, layers = (op["keep"] for op in entry["ops"])
    assert heads in ([[0], [0]], [[1], [1]])  # alike, for the value residual
    assert layers == [[0]]
    model = result.config.model
    assert (model.heads, model.kv_heads, model.depth) == (1, 1, 1)
    assert entry["step_flops"] < entry["step_flops_before"]
    assert entry["params"] == result.summary["params"]


# freezing


def test_a_run_can_freeze_and_resumes_frozen(config, tmp_path, monkeypatch):
    """Frozen after 3, killed at 6, where the checkpoint of 4 is the last one."""
    freezes, out = saved(grows(config, plan="frozen=1:0.3"), 4), tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            loop.train(freezes, out)
    before = open_run(out).state
    assert int(before.step) == 4
    result = loop.train(freezes, out, resume=True)
    whole = loop.train(freezes, tmp_path / "whole")
    same(result.summary, whole.summary)
    first = lambda state: (
        state.params["embed"],
        jax.tree.map(lambda x: np.asarray(x)[:1], state.params["blocks"]),
    )
    chex.assert_trees_all_equal(first(result.state), first(before))
    up = lambda state: np.asarray(state.params["blocks"]["mlp"]["up"]["w"])
    assert (up(result.state)[1] != up(before)[1]).any()
    assert result.config.model.frozen == 1


def test_a_phase_with_frozen_blocks_spends_less_and_a_thaw_as_before(config, tmp_path):
    freezes = grows(config, plan="frozen=1:0.3,frozen=0:0.8")
    summary = loop.train(freezes, tmp_path / "run").summary
    frozen, thawed = summary["growth"]
    assert (frozen["step"], thawed["step"]) == (3, 7)
    for entry in (frozen, thawed):
        assert entry["exact"]
        assert entry["loss_after"] == pytest.approx(entry["loss_before"], abs=1e-6)
        assert entry["begun_anew"] == 0
    assert frozen["step_flops"] < frozen["step_flops_before"] == thawed["step_flops"]
    found = {k: v.total for k, v in total_costs(freezes).items() if v.total}
    del found["evaluation"]
    assert found == {k: v for k, v in summary["flops"].items() if k in found}


def test_a_probe_does_not_try_what_only_makes_steps_cheaper(config):
    stages = parse(grows(config, plan="depth=3:0.3,frozen=1:0.5").growth)
    assert growing.only_growing(config, stages) == stages[:1]


# on a mesh


def test_growth_on_eight_devices_equals_growth_on_one(config):
    ops = [Op("depth", 4, "random"), Op("heads", 4, "split"), Op("width", 64)]
    found = {}
    for name, mesh in (("one", {"data": 1}), ("all", dict.fromkeys(MESH, 2))):
        session = open_session(replace_from_dict(config, {"train": {"mesh": mesh}}))
        after, state = growing.changed(session, session.initial_state(), ops)
        like = abstract_state(after.program, after.mesh)
        shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.sharding), tree)
        assert shapes(state) == shapes(like)
        found[name] = jax.device_get(state._replace(key=()))
    assert len(state.params["head"]["w"].sharding.device_set) == 8
    chex.assert_trees_all_close(found["all"], found["one"], rtol=1e-6, atol=1e-7)


MESH = ("data", "fsdp", "tensor")

# plans that can't be carried out

BAD = [
    ({"plan": ""}, r"growth\.plan: empty; method 'fixed' needs stages"),
    ({"method": "none"}, r"growth\.method: none; .* needs one, such as fixed"),
    ({"plan": "depth=3"}, r"growth\.plan: 'depth=3': write field=size:share"),
    ({"plan": "dept=3:0.5"}, r"growth\.plan: 'dept=3:0.5': did you mean 'depth'"),
    ({"plan": "depth=2:0.5"}, r"growth\.plan: depth=2: the model has 2 already"),
    ({"plan": "frozen=2:0.5"}, r"growth\.plan: frozen=2: 2 of 2 blocks frozen leave"),
    ({"plan": "width=48:0.5"}, r"growth\.plan: width=48: must be a multiple of the 32"),
    (
        {"plan": "depth=3:0.9"},
        r"growth\.plan: depth=3: share 0.9 of 8 .* at most 0.875",
    ),
    ({"plan": f"depth={2**31}:0.5"}, "model.depth: must be below"),
    ({"plan": "experts=2:0.5,hidden=64:0.6"}, "the units of experts can't be changed"),
    (
        {"plan": "experts=2:0.5,heads=1:0.6", "prune": "magnitude"},
        r"growth\.plan: heads=1: prune 'magnitude' .* use growth.prune importance",
    ),
]


@pytest.mark.parametrize(("growth", "complaint"), BAD)
def test_a_bad_plan_is_one_clear_line(growth, complaint, config):
    with pytest.raises(UserError, match=complaint) as caught:
        open_session(grows(config, **growth))
    assert "\n" not in str(caught.value)


def test_a_policy_file_is_read_before_the_first_step(config, tmp_path):
    file = tmp_path / "policy.json"
    learned = grows(config, method="learned", policy=str(file))
    with pytest.raises(UserError, match=r"policy\.json: can't be read"):
        open_session(learned)
    save_policy(file, load_policy())
    assert open_session(learned)
    with pytest.raises(UserError, match=r"growth\.policy: only method learned"):
        open_session(grows(config, policy=str(file)))


ODD = {"train": {"batch": 6, "microbatches": 2}}


@pytest.mark.parametrize(
    ("growth", "what"),
    [
        ({"method": "none", "plan": "", "look_every": 2}, "growth.look_every"),
        ({"plan": "hidden=64:0.5"}, r"growth\.plan: hidden=64"),
        ({"plan": "depth=3:0.5,heads=1:0.5"}, r"growth\.plan: heads=1"),
    ],
)
def test_an_odd_number_of_rows_can_not_be_looked_at(growth, what, config):
    odd = replace_from_dict(grows(config, **growth), ODD)
    with pytest.raises(UserError, match=f"{what}.*train.microbatches is 3; make it"):
        open_session(odd)


@pytest.mark.parametrize(
    "growth", [{"plan": "depth=1:0.5"}, {"plan": "heads=1:0.5", "prune": "random"}]
)
def test_an_odd_number_of_rows_is_fine_where_nobody_looks(growth, config):
    assert open_session(replace_from_dict(grows(config, **growth), ODD))


def test_an_own_model_can_not_grow(config):
    own = {"forward": build(config).forward}
    with pytest.raises(UserError, match=r"own 'forward' can't be grown; .*growth\.me"):
        open_session(config, own)
    still = dataclasses.replace(config, growth=type(config.growth)())
    assert open_session(still, own)
