import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from experiments import curriculum_rows
from experiments.curriculum_rows import (
    Curve,
    by_arm,
    curve_of,
    levels,
    made,
    measure,
    pacing_rows,
    reached,
    synthesis_rows,
)
from experiments.runner import Job
from uets_jax.config import DataConfig, replace_from_dict
from uets_jax.data.store import write_store
from uets_jax.errors import UserError
from uets_jax.train.loop import train

FIRST = math.log(1024)


def job(arm, seed, tiny):
    labels = {"arm": arm, "seed": seed}
    return Job(f"{arm}_s{seed}", tiny, tuple(labels.items()))


def record(arm, seed, speed=1.0, bits=2.0, **more):
    """Loss falls on a line to 3 at step 64 / speed, and stays; a step is 10 FLOPs."""
    steps = [0.0, 16.0, 32.0, 48.0, 64.0]
    fall = lambda s: FIRST - (FIRST - 3.0) * min(s * speed / 64, 1.0)
    curve = {"steps": steps, "losses": [fall(s) for s in steps]}
    return {
        "arm": arm,
        "difficulty": "none" if arm == "random" else "rarity",
        "pacing": "" if arm == "random" else "linear",
        "lengths": "",
        "track": "clean",
        "seed": seed,
        "steps": 64,
        "diverged": False,
        "bits_per_byte": bits + seed / 100,
        "tokens": 640,
        "flops": {"forward_backward": 600, "scoring": 40, "evaluation": 99},
        "curve": curve | {"flops": [10 * s for s in steps]},
        **more,
    }


def results_of(*records):
    return {f"{r['arm']}_s{r['seed']}": r for r in records}


def jobs_of(tiny, *names, seeds=(1, 2)):
    return [job(name, seed, tiny) for name in names for seed in seeds]


def test_a_level_is_reached_on_the_line_between_two_points():
    curve = Curve([0, 10, 20, 30], [7.0, 5.0, 3.0, 4.0], [100, 200, 400, 500])
    assert reached(curve, 4.0) == (15.0, 300.0)
    assert reached(curve, 3.0) == (20.0, 400.0)  # the first time, though it rises again
    assert reached(curve, 7.0) == (0, 100)
    assert reached(curve, 2.9) is None


def test_a_curve_begins_with_the_untrained_model_and_what_was_spent_on_it():
    lines = [
        {"event": "start", "step": 0},
        *({"step": s, "loss": 8.0 - s, "flops": 50 + 10 * s} for s in range(1, 5)),
        {"step": 2, "valid_loss": 6.5, "flops": 70},
        {"step": 4, "valid_loss": 4.5, "flops": 90},
        {"step": 4, "valid_loss": 4.25, "flops": 90},  # again, after a resume
    ]
    assert curve_of(lines) == Curve([0, 2, 4], [7.0, 6.5, 4.25], [50, 70, 90])


def test_levels_are_shares_of_random_orders_mean_drop():
    some = [record("random", 1), record("random", 2)]
    some[1]["curve"]["losses"] = [FIRST, 5.0, 5.0, 5.0, 5.0]
    found = levels(some)
    assert found[0.9] == pytest.approx(FIRST - 0.9 * (FIRST - 4.0))
    assert found[0.75] == pytest.approx(FIRST - 0.75 * (FIRST - 4.0))


def test_a_row_compares_steps_flops_and_bits_with_random_order(tiny):
    records = [
        record("random", 1),
        record("random", 2),
        record("fast", 1, 2.0, 1.9),
        record("fast", 2, 4.0, 1.8),
    ]
    jobs = jobs_of(tiny, "random", "fast")
    random, fast = pacing_rows(jobs, results_of(*records))
    assert random["steps_to_90_percent"] == pytest.approx(0.9 * 64)
    assert random["speed_up_steps_to_90_percent"] == 1.0
    assert random["difference_to_random"] is None
    assert random["pacing"] is None
    assert fast["steps_to_90_percent"] == pytest.approx(0.9 * (32 + 16) / 2)
    assert fast["speed_up_steps_to_90_percent"] == pytest.approx(64 / 24)
    assert fast["flops_to_90_percent"] == pytest.approx(10 * 0.9 * 24)
    assert fast["speed_up_flops_to_75_percent"] == pytest.approx(64 / 24)
    low, high = stats.t.interval(
        0.95, 1, np.log([2, 4]).mean(), stats.sem(np.log([2, 4]))
    )
    assert fast["speed_up_steps_to_90_percent_low"] == pytest.approx(math.exp(low))
    assert fast["speed_up_steps_to_90_percent_high"] == pytest.approx(math.exp(high))
    assert fast["bits_per_byte"] == pytest.approx(1.865)
    assert fast["difference_to_random"] == pytest.approx(-0.15)
    low, high = stats.t.interval(0.95, 1, -0.15, stats.sem([-0.1, -0.2]))
    assert (fast["difference_low"], fast["difference_high"]) == pytest.approx(
        (low, high)
    )
    assert fast["total_flops"] == 640  # scoring in, evaluation out
    assert fast["seeds"] == 2


def test_what_never_gets_there_or_diverges_has_no_steps(tiny):
    records = [record("random", 1), record("slow", 1, 0.8), record("wild", 1)]
    records[2] |= {"diverged": True, "bits_per_byte": None}
    del records[2]["curve"], records[2]["tokens"]
    jobs = jobs_of(tiny, "random", "slow", "wild", seeds=(1,))
    _, slow, wild = pacing_rows(jobs, results_of(*records))
    assert slow["steps_to_90_percent"] is None
    assert slow["speed_up_flops_to_90_percent"] is None
    assert slow["steps_to_75_percent"] == pytest.approx(60)
    assert slow["difference_low"] is None  # of one seed
    assert wild["diverged_runs"] == 1
    assert wild["bits_per_byte"] is None is wild["steps_to_75_percent"]


def test_arms_wait_for_all_their_seeds(tiny):
    jobs = jobs_of(tiny, "random", "fast")
    some = [record("random", 1), record("random", 2), record("fast", 1)]
    assert [row["arm"] for row in pacing_rows(jobs, results_of(*some))] == ["random"]
    assert pacing_rows(jobs, results_of(some[0], some[2])) == []
    assert by_arm(jobs, {}) == {}


def test_made_up_rows_stand_beside_none(tiny):
    base = [record("random", s) for s in (1, 2)]
    more = {"synthetic_accepted": 0.25}
    mine = [record("continuations", s, bits=2.5, **more) for s in (1, 2)]
    jobs = jobs_of(tiny, "continuations")
    none, row = synthesis_rows(jobs, results_of(*mine), base)
    assert (none["arm"], none["synthetic_accepted"]) == ("none", None)
    assert row["difference_to_random"] == pytest.approx(0.5)
    assert row["synthetic_accepted"] == 0.25
    assert synthesis_rows(jobs, results_of(*mine), []) == []


def test_the_share_of_accepted_rows_is_of_those_that_were_made():
    lines = [{"taken/synthesis": 1, "synthetic_accepted": 0.5}, {"event": "x"}]
    lines += [{"taken/synthesis": 0, "synthetic_accepted": 0.0}] * 3
    assert made(lines) == {"synthetic_accepted": 0.5}
    assert made([{"step": 1}]) == {}


def test_a_finished_run_is_read_on_all_of_the_other_half(tiny, corpus, tmp_path):
    """As a run says that validates on nothing else."""
    texts = {"a": f"files:{corpus}/0*.txt", "b": f"files:{corpus}/1*.txt"}
    for half, valid in texts.items():
        source = f"files:{corpus}/*.txt"
        data = DataConfig(source=source, valid_source=valid, tokenizer="bytes")
        write_store(tmp_path / f"clean.{half}", data)
    config = replace_from_dict(tiny, {"model": {"vocab": 257}})
    train_config = dataclasses.replace(config.train, checkpoint_every=0, samples=0)
    on = lambda half, tokens: dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=f"tokens:{tmp_path}/clean.{half}"),
        train=dataclasses.replace(train_config, eval_tokens=tokens),
    )
    result = train(on("a", 512), tmp_path / "run")
    found = measure(tmp_path / "run", tmp_path, result)
    whole = train(on("b", 0), tmp_path / "other").summary
    assert whole["params_sha256"] == result.summary["params_sha256"]
    assert found["bits_per_byte"] == whole["bits_per_byte"]
    assert found["bits_per_byte"] != result.summary["bits_per_byte"]
    curve = Curve(**found["curve"])
    assert curve.steps == [0, 4, 8]
    assert curve.losses[0] == pytest.approx(math.log(257), rel=1e-5)
    assert curve.losses[-1] == result.summary["final_loss"]
    spent = result.summary["flops"]
    assert curve.flops[0] == 0
    assert curve.flops[-1] == sum(v for k, v in spent.items() if k != "evaluation")


def test_metrics_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        curriculum_rows.metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match="delete the run"):
        curriculum_rows.metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    assert curriculum_rows.metrics(tmp_path) == [{"step": 1}]
