import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build
from uets_jax.config import decay_share, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.policy import Decision
from uets_jax.measure.converged import converged
from uets_jax.measure.ledger import Ledger
from uets_jax.report.metrics import read_metrics
from uets_jax.train import growing, loop, start, stopping
from uets_jax.train.cost import total_costs
from uets_jax.train.run import Position
from uets_jax.train.session import open_session
from uets_jax.validation import validate

STEPS, EVERY, RATE = 40, 4, 0.01
LATEST = 32  # 32 steps and a quarter of them are 40


@pytest.fixture(scope="module")
def config(config):
    """With a target that is reached before the latest cool-down begins."""
    optim = {"average": 0.1, "learning_rate": RATE}
    often = {"eval_every": EVERY, "checkpoint_every": 6, "eval_tokens": 512}
    train = {"steps": STEPS, "target": 3.0, "samples": 0, **often}
    return replace_from_dict(config, {"optim": optim, "train": train})


def trains(config, **train):
    return replace_from_dict(config, {"train": train})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run that was never stopped: (summary, folder)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return loop.train(config, out).summary, out


def records(out, key):
    return [r for r in read_metrics(out / "metrics.jsonl") if key in r]


def curve(out):
    kept = ("step", "loss", "learning_rate", "bits_per_byte", "flops", "event")
    found = [{k: r[k] for k in kept if k in r} for r in records(out, "step")]
    return [r for r in found if r.get("event") not in ("resume", "rollback")]


# arithmetic


def test_a_cool_down_ends_at_the_latest_with_the_run(config):
    assert stopping.latest_cooldown(config) == LATEST
    assert [stopping.cooled(config, s) for s in (1, 4, 20, 32, 39)] == [
        2,
        5,
        25,
        40,
        40,
    ]
    longer = trains(config, cooldown=1.0)
    assert stopping.latest_cooldown(longer) == stopping.cooled(longer, 10) == 20
    assert decay_share(longer) == 0.5
    assert decay_share(trains(config, target=0.0)) == config.optim.decay


def test_checks_are_the_validations_before_the_latest_cool_down(config):
    at = [Position(step=s) for s in range(1, STEPS + 1)]
    steering = [p.step for p in at if stopping.steers(config, p)]
    assert steering == list(range(1, LATEST))
    assert stopping.checks(config, 0, STEPS) == 7  # 4 to 28
    assert stopping.checks(config, 8, 17) == 2
    assert stopping.checks(trains(config, target=0.0), 0, STEPS) == 0
    assert not stopping.steers(config, Position(step=8, end=10))
    assert not stopping.steers(trains(config, target=0.0), at[0])


# a run


def test_the_rate_stays_until_a_check_is_passed_and_falls_to_the_end(whole, config):
    summary, out = whole
    began, end = summary["cooldown_began"], summary["steps"]
    assert 16 <= began < LATEST
    assert began % EVERY == 0
    assert end == stopping.cooled(config, began) < STEPS
    rates = [r["learning_rate"] for r in records(out, "loss")]
    assert len(rates) == end
    np.testing.assert_allclose(rates[config.optim.warmup : began], RATE, rtol=1e-6)
    left = (end - np.arange(began, end)) / (end * decay_share(config))
    np.testing.assert_allclose(rates[began:], RATE * np.minimum(left, 1), rtol=1e-5)


def test_the_decision_is_that_of_the_checks_so_far(whole, config):
    summary, out = whole
    seen, began = [], summary["cooldown_began"]
    told = {r["step"]: r for r in records(out, "predicted_error")}
    for record in records(out, "bits_per_byte"):
        seen.append([record["step"], record["bits_per_byte"]])
        found = converged(seen, config.train.target, config.train.cooldown)
        if seen[-1][0] <= began:
            assert found.reached == (seen[-1][0] == began)
            if len(seen) >= 4:
                row = told.pop(seen[-1][0])
                assert row["predicted_bits_per_byte"] == found.loss
                assert row["predicted_error"] == found.error
    assert not told
    [event] = [r for r in records(out, "event") if r["event"] == "cooldown"]
    assert (event["step"], event["end"]) == (began, summary["steps"])
    assert event["detail"].startswith(f"cool-down to step {summary['steps']}: ")
    assert event["detail"].endswith("target 3")


def test_the_summary_says_what_became_of_the_target(whole):
    summary, _ = whole
    assert summary["target"] == 3.0
    assert summary["target_reached"] is (summary["bits_per_byte"] <= 3.0)
    spent = sum(v for k, v in summary["flops"].items() if k != "evaluation")
    reached = summary["target_reached"]
    assert summary["flops_to_target"] == (spent if reached else None)


def test_validations_that_steer_are_charged_as_probes(whole):
    summary, out = whole
    steps = [r["step"] for r in records(out, "bits_per_byte")]
    steering = sum(step <= summary["cooldown_began"] for step in steps)
    each = summary["flops"]["probe"] / steering
    assert summary["flops"]["evaluation"] == each * (len(steps) - steering)
    assert each > 0


@pytest.fixture(scope="module")
def forced(config, tmp_path_factory):
    """A run whose target is out of reach: (summary, folder, config)."""
    out = tmp_path_factory.mktemp("forced") / "run"
    far = trains(config, target=0.01)
    return loop.train(far, out).summary, out, far


def test_out_of_reach_the_run_is_the_plain_one_with_that_decay(forced, tmp_path):
    summary, out, config = forced
    assert summary["cooldown_began"] == LATEST
    assert summary["steps"] == STEPS
    assert summary["target_reached"] is False
    assert summary["flops_to_target"] is None
    [event] = [r for r in records(out, "event")]
    assert event["detail"] == "cool-down to step 40: to end at train.steps, target 0.01"
    own = {"optim": {"decay": decay_share(config)}, "train": {"target": 0.0}}
    plain = loop.train(replace_from_dict(config, own), tmp_path / "run").summary
    for key in ("params_sha256", "data_sha256", "bits_per_byte", "tokens"):
        assert summary[key] == plain[key], key
    assert not {"target", "cooldown_began", "target_reached"} & plain.keys()


def test_the_ledger_has_what_was_estimated(forced):
    summary, _, config = forced
    found = {k: v.total for k, v in total_costs(config).items() if v.total}
    assert found == summary["flops"]


# again from a checkpoint


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing is saved."""


def dying(monkeypatch, last):
    """The run ends without a word when it is to take a step after `last`."""
    real = loop.stage_executable

    def once(*given):
        step = real(*given)

        def call(state, pool, assets):
            if int(state.step) == last:
                raise Killed
            return step.call(state, pool, assets)

        return step._replace(call=call)

    monkeypatch.setattr(loop, "stage_executable", once)


@pytest.mark.parametrize("when", ["before", "in it"])
def test_a_killed_run_decides_the_same_again(
    when, whole, config, tmp_path, monkeypatch
):
    """The decision lies ahead, or between the checkpoint and the kill."""
    (summary, expected), out = whole, tmp_path / "run"
    began = summary["cooldown_began"]
    at = began - 1 if when == "before" else summary["steps"] - 1
    with monkeypatch.context() as patch:
        dying(patch, at)
        with pytest.raises(Killed):
            loop.train(config, out)
    found = loop.train(config, out, resume=True).summary
    same = ("params_sha256", "data_sha256", "flops", "steps", "cooldown_began")
    for key in (*same, "bits_per_byte", "flops_to_target"):
        assert found[key] == summary[key], key
    assert curve(out) == curve(expected)


def test_a_finished_run_has_nothing_left_to_do(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    before = (out / "summary.json").read_bytes()
    again = loop.train(config, out, resume=True).summary
    assert again == json.loads(before)
    assert (out / "summary.json").read_bytes() == before


def test_what_steers_may_not_change_on_a_resume(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    for changed, told in (
        (trains(config, eval_every=5), r"train\.eval_every is 4 there"),
        (trains(config, target=2.0), r"train\.target is 3\.0 there"),
    ):
        with pytest.raises(UserError, match=told):
            loop.train(changed, out, resume=True)
    last = sorted((out / "checkpoints").iterdir())[-1]
    shutil.rmtree(last)
    short = trains(config, steps=whole[0]["steps"] - 1)
    with pytest.raises(UserError, match="the end of the cool-down that"):
        loop.train(short, out, resume=True, allow=("train.steps",))


# with other parts


@pytest.fixture(scope="module")
def poison(config, whole):
    """Overrides: the batch of the step before the last gives NaN."""
    row = int(open_session(config).windows.order(whole[0]["steps"] - 2)[0])
    real = build(trains(config, on_bad_step="rollback")).forward

    def forward(params, rows):
        losses, stats = real(params, rows)
        return losses * jnp.where(rows.ids == row, jnp.nan, 1.0)[:, None], stats

    return {"forward": forward}


@pytest.mark.parametrize("kept", [False, True])
def test_a_rollback_decides_anew_what_it_takes_back(
    kept, whole, config, poison, tmp_path
):
    """To step 0, or to a checkpoint that was saved with the decision."""
    began = whole[0]["cooldown_began"]
    every = began if kept else 0
    careful = trains(config, on_bad_step="rollback", checkpoint_every=every)
    found = loop.train(careful, tmp_path / "run", overrides=poison)
    summary, told = found.summary, records(tmp_path / "run", "event")
    assert summary["rollbacks"] == 1
    assert summary["steps"] == stopping.cooled(config, summary["cooldown_began"])
    events = ["cooldown", "rollback"]
    assert [r["event"] for r in told] == (events if kept else events[::-1])
    assert not kept or summary["cooldown_began"] == began
    assert float(found.state.hypers.steps) == summary["steps"] == found.state.step


@pytest.fixture
def growing_run(config, tmp_path):
    """A run that has not begun, with two stages; nothing is compiled."""
    plan = {"method": "fixed", "plan": "depth=3:0.3,depth=4:0.75"}
    session = open_session(replace_from_dict(config, {"growth": plan}))
    run = start.begin(session, tmp_path / "run", False, Ledger(), [])
    with run.open():
        yield run


def test_nothing_grows_once_the_run_cools_down(growing_run):
    run = growing_run
    run.at = Position(step=13, stage=1)
    assert [stage.share for stage in growing.remaining(run)] == [0.75]
    assert (growing.next_decision(run), stopping.next_check(run)) == (30, 16)
    run.at = Position(step=13, stage=1, cooldown=12, end=15)
    assert growing.remaining(run) == ()
    assert growing.next_decision(run) == stopping.next_check(run) == 15


def test_checks_of_the_model_before_a_growth_do_not_count(growing_run, monkeypatch):
    run = growing_run
    monkeypatch.setattr(growing, "_decide", lambda run, due: Decision(due[:1], "now"))
    monkeypatch.setattr(growing, "apply", lambda *given: None)
    for step, left in ((11, [[8, 4.0]]), (12, [])):
        run.at = Position(step=step, checks=[[8, 4.0]])
        growing.grow_if_due(run)
        assert run.at.checks == left


def test_a_stage_in_the_cool_down_is_refused(config):
    plan = {"method": "fixed", "plan": "depth=3:0.8"}
    late = replace_from_dict(config, {"growth": plan})
    with pytest.raises(UserError, match=r"in the cool-down; use at most 0\.775"):
        open_session(late)


# refusals


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"optim": {"schedule": "cosine"}},
            r"train\.target: needs optim\.schedule wsd",
        ),
        ({"optim": {"average": 0.0}}, r"train\.target: .* give optim\.average"),
        ({"train": {"eval_every": 0}}, r"train\.eval_every: 0; train\.target"),
    ],
)
def test_what_a_target_needs_is_one_clear_line(values, told, config):
    validate(config)
    with pytest.raises(UserError, match=told):
        validate(replace_from_dict(config, values))


def test_an_own_schedule_is_refused(config):
    with pytest.raises(UserError, match="an own 'schedule' can't be told to cool down"):
        open_session(config, {"schedule": lambda hypers, step: hypers.learning_rate})
