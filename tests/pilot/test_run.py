"""The whole pilot: with planted losses, and once with real training."""

import json
import math
import shlex

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.flags import parse
from uets_jax.options import Train
from uets_jax.pilot import gains, methods, plan, result, run
from uets_jax.pilot.plan import together
from uets_jax.pilot.result import text
from uets_jax.pilot.run import Asked, pilot, planned, summary
from uets_jax.recipes import configure
from uets_jax.train.budget import Spending

FASTER = {"selection": 2.0, "growth": 0.6, "learned": 1.0, "start": 3.0}
# at 100 steps' worth of FLOPs, of which a tenth of what is counted once is charged
BOTH = ["selection", "start"]
EXPECTED = {**FASTER, "selection": 100 / (50 + 2), "start": 100 / (100 / 3 + 5)}
SEED = (0.0, 0.004, -0.004)  # what a seed does to all arms


def has(config) -> list[str]:
    return [method.name for method in methods.METHODS if method.asked(config)]


def law(config) -> float:
    """A power law of the steps, by how much faster a method is."""
    faster = math.prod(FASTER[name] for name in has(config))
    seed = SEED[config.train.seed % 3]
    wobble = 1e-4 * ((config.train.steps + 3 * config.train.seed) % 5)
    return 1.2 + 2.0 * (config.train.steps * faster) ** -0.25 + seed + wobble


@pytest.fixture
def cheap(free, monkeypatch):
    """The full run's FLOPs without tracing it."""
    spending = lambda config: Spending(0, free.step * config.train.steps)
    monkeypatch.setattr(run, "spending", spending)
    monkeypatch.setattr(run, "steps_for", plan.steps_for)
    monkeypatch.setattr(run, "open_session", plan.open_session)
    return free


@pytest.fixture
def asked(given):
    return Asked(given, flops=1e9, share=0.1)


def quiet(line):
    pass


def test_the_pilot_names_what_helps_and_nothing_else(asked, cheap, planted, tmp_path):
    planted.law = law
    found = pilot(asked, tmp_path / "out", quiet)
    by = {row["method"]: row for row in found["methods"]}
    together = by.pop("together")
    assert together["flops_ratio"] is None
    assert together["flops_ratio_ci_low"] == pytest.approx(4.0, rel=0.05)
    for name, row in by.items():
        ends = [row[f"flops_ratio_ci_{end}"] for end in ("low", "high")]
        assert ends[0] <= 1.01 * EXPECTED[name] <= 1.02 * ends[1]
        assert row["flops_ratio"] == pytest.approx(EXPECTED[name], rel=0.1)
    assert by["growth"]["flops_ratio_ci_high"] < 1
    assert found["recipe"]["methods"] == BOTH
    assert json.loads((tmp_path / "out/pilot.json").read_text()) == found
    assert (tmp_path / "out/pilot.html").exists()
    said = text(found, tmp_path / "out")
    assert said.splitlines()[-1] == found["recipe"]["command"]
    for word in ("selection", "costs more", "extrapolation", "Together they"):
        assert word in said


def test_the_recipe_is_the_full_run_with_what_helps(asked, cheap, planted, tmp_path):
    planted.law = law
    found = pilot(asked, tmp_path, quiet)
    words = shlex.split(found["recipe"]["command"])[2:]
    given = parse("uets train", Train, words)
    assert given.pop("out") == str(tmp_path / "full")
    config = configure(given)
    names = {m.name for m in methods.METHODS if m.asked(config)}
    assert names == {"selection", "start"}
    spent = cheap.statistics + cheap.counts + cheap.step * config.train.steps
    assert spent == pytest.approx(1e9, rel=0.01)
    assert config.optim.warmup == asked.config.optim.warmup


def test_where_nothing_helps_the_recipe_is_the_plain_run(
    asked, cheap, planted, tmp_path
):
    planted.law = lambda config: 1.2 + 2.0 * config.train.steps**-0.25
    found = pilot(asked, tmp_path, quiet)
    assert found["recipe"]["methods"] == []
    assert "the plain run is the recipe" in found["recipe"]["notes"][0]
    assert found["cost"]["break_even_runs"] is None
    assert "--select.method" not in found["recipe"]["command"]


def test_finished_runs_are_not_made_again(asked, cheap, planted, tmp_path):
    planted.law, lines = law, []
    first = pilot(asked, tmp_path, lines.append)
    made = len(planted.calls)
    assert made == first["cost"]["runs"] == first["cost"]["runs_made_now"] == 54
    again = pilot(asked, tmp_path, lines.append)
    assert len(planted.calls) == made
    assert again["cost"].pop("runs_made_now") == 0
    assert first["cost"].pop("runs_made_now") == made
    assert again == first
    assert lines[-1].endswith("(on record)")
    wider = Asked(asked.config, asked.flops, share=asked.share, seeds=4)
    pilot(wider, tmp_path, quiet)
    assert len(planted.calls) == made + 18  # the new seed alone


def test_a_pilot_that_was_stopped_goes_on(asked, cheap, planted, tmp_path):
    def stops(config):
        if len(planted.calls) == 12:
            raise KeyboardInterrupt
        return law(config)

    planted.law = stops
    with pytest.raises(KeyboardInterrupt):
        pilot(asked, tmp_path, quiet)
    found = pilot(asked, tmp_path, quiet)
    assert found["cost"]["runs_made_now"] == 54 - 11


def test_the_pilot_charges_all_that_it_spent(asked, cheap, planted, tmp_path):
    planted.law = law
    found = pilot(asked, tmp_path, quiet)
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*.json")]
    spent = sum(sum(record["flops"].values()) for record in records)
    assert len(records) == 54
    assert found["cost"]["flops"] == spent
    assert found["cost"]["of_full"] == spent / 1e9
    evaluated = 54 * 11
    plan = together(planned(asked, tmp_path, quiet), asked.config, BOTH)
    planned_flops = plan.expected()
    assert spent - evaluated == pytest.approx(planned_flops, rel=0.02)
    saved = 1e9 * (1 - 1 / max(row["flops_ratio_ci_low"] for row in found["methods"]))
    assert found["cost"]["break_even_runs"] == pytest.approx(spent / saved)


def test_a_lead_that_would_not_last_is_warned_of(asked, cheap, planted, tmp_path):
    def fades(config):
        lead = 8 / config.train.steps if has(config) == ["start"] else 0.0
        return law(config) - lead

    planted.law = fades
    found = pilot(asked, tmp_path, quiet)
    [honest, *fading] = found["warnings"]
    assert "measured at 10.00% of the budget, on 3 seeds" in honest
    assert any(w.startswith("start: its lead falls") for w in fading)


def test_a_plain_run_that_diverges_ends_the_pilot(asked, cheap, planted, tmp_path):
    planted.law = lambda config: None
    with pytest.raises(UserError, match=r"plain run diverges .*learning-rate"):
        pilot(asked, tmp_path, quiet)
    assert len(planted.calls) == 1


def test_methods_that_do_worse_together_are_not_the_recipe(
    asked, cheap, planted, tmp_path
):
    alone = lambda config: law(config) + (len(has(config)) > 1)
    planted.law = alone
    found = pilot(asked, tmp_path, quiet)
    assert found["recipe"]["methods"] == ["start"]
    assert "they end no lower than start" in found["recipe"]["notes"][0]
    assert "--select.method" not in found["recipe"]["command"]


def test_minutes_are_those_of_this_machine_and_the_timing_is_charged(
    given, cheap, planted, tmp_path
):
    planted.law, lines = law, []
    asked = Asked(given, minutes=1 / 6, share=0.1)
    found = pilot(asked, tmp_path, lines.append)
    assert found["full"]["flops"] == pytest.approx(1e9)  # 1e8 per second
    assert found["full"]["steps"] == 1000
    assert found["cost"]["runs"] == 55
    assert "100 MFLOPs per second" in lines[0]
    made = len(planted.calls)
    pilot(asked, tmp_path, quiet)
    assert len(planted.calls) == made


def test_without_a_budget_it_is_that_of_the_steps(given, cheap, tmp_path):
    made = planned(Asked(given, share=0.1), tmp_path, quiet)
    assert made.flops == 1e9
    said = summary(made)
    assert "45 runs (plain, selection, growth, learned, start; 3 seeds)" in said
    assert "of at most 10.00% of it" in said


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"flops": 1e9, "minutes": 1.0}, "give one of them"),
        ({"flops": -1.0}, "--flops"),
        ({"flops": math.nan}, "--flops"),
        ({"minutes": math.inf}, "--minutes"),
    ],
)
def test_budgets_that_are_none(given, how, why):
    with pytest.raises(UserError, match=why):
        Asked(given, **how)


def test_a_real_pilot(given, tmp_path, monkeypatch):
    """Two arms that share an executable; what was charged is what the runs say."""
    rate = lambda config, value: replace_from_dict(
        config, {"optim": {"name": "adamw", "learning_rate": value}}
    )
    still = methods.Method(
        "still", "hardly moves", lambda given: False, lambda c, given: rate(c, 1e-7)
    )
    monkeypatch.setattr(plan, "METHODS", [still])
    monkeypatch.setattr(result, "METHODS", [still])
    monkeypatch.setattr(plan, "LEAST", 2)
    for room in (plan, gains):
        monkeypatch.setattr(room, "PARTS", (0.5, 1.0))
    short = replace_from_dict(rate(given, 3e-3), {"train": {"steps": 32}})
    asked = Asked(short, share=0.25, seeds=2)
    found = pilot(asked, tmp_path, quiet)
    summaries = [*(tmp_path / "runs").glob("*/summary.json")]
    spent = [json.loads(path.read_text()) for path in summaries]
    assert len(spent) == 8
    assert found["cost"]["flops"] == sum(sum(s["flops"].values()) for s in spent)
    assert {s["corpus_sha256"] for s in spent} == {found["corpus_sha256"]}
    orders = [s["data_sha256"] for s in spent]
    assert sorted(orders) == sorted(2 * [*dict.fromkeys(orders)])  # one for each pair
    [row] = found["methods"]
    assert found["plain"]["losses"][0] > found["plain"]["losses"][-1]
    assert row["flops_ratio_ci_high"] < 1
    assert found["recipe"]["methods"] == []
    assert not [*(tmp_path / "runs").glob("*/checkpoints")]

    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("uets_jax.train.loop.train", refuse)
    assert pilot(asked, tmp_path, quiet)["methods"] == found["methods"]
