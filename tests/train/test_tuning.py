import dataclasses
import json

import pytest

from uets_jax.config import to_dict
from uets_jax.errors import UserError
from uets_jax.measure.work import Cost
from uets_jax.models.presets import from_dict
from uets_jax.train import tuning
from uets_jax.train.budget import steps_for
from uets_jax.train.loop import train
from uets_jax.train.tuning import halved, rehearse, shortened, tune
from uets_jax.validation import validate

RATES = "optim.learning_rate=1e-6,3e-3"


@pytest.fixture(scope="module")
def config(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    train = dataclasses.replace(
        tiny.train, steps=24, tune=RATES, tune_share=1.0, eval_every=0, samples=0
    )
    return dataclasses.replace(tiny, data=data, model=model, train=train)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """(result, folder) of a run that tuned its rate."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    return train(config, out), out


def test_a_run_begins_with_the_better_rate_and_keeps_it(finished, config):
    result, out = finished
    assert result.config.optim.learning_rate == 3e-3
    stored = json.loads((out / "config.json").read_text())
    assert stored["optim"]["learning_rate"] == 3e-3
    table = json.loads((out / "tuning.json").read_text())
    assert table["chosen"] == {"optim.learning_rate": 3e-3}
    [only] = table["rounds"]
    assert only["steps"] == 12
    slow, fast = only["rehearsals"]
    assert slow["bits_per_byte"] > fast["bits_per_byte"] + 0.1
    lines = (out / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    [said] = [e["detail"] for e in events if e.get("event") == "tuned"]
    assert "learning_rate=0.003 of 2 settings, 24 steps rehearsed" in said


def test_rehearsals_are_charged_as_probes(finished, config):
    result, out = finished
    cost = Cost(**json.loads((out / "tuning.json").read_text())["cost"])
    assert result.summary["flops"]["probe"] == cost.total
    alone = rehearse(config, (("optim.learning_rate", 3e-3),), 12)[1]
    assert cost.total == 2 * alone.total
    steps = result.summary["flops"]["forward_backward"]
    assert steps < cost.total < 2 * steps


def test_the_run_is_the_one_that_had_the_rate_from_the_beginning(
    finished, config, tmp_path
):
    result, _ = finished
    optim = dataclasses.replace(config.optim, learning_rate=3e-3)
    plain = dataclasses.replace(config.train, tune="")
    alone = train(dataclasses.replace(config, optim=optim, train=plain), tmp_path / "r")
    key = "params_sha256"
    assert result.summary[key] == alone.summary[key]
    assert "probe" not in alone.summary["flops"]


def test_a_resume_does_not_tune_again(finished, monkeypatch):
    result, out = finished
    monkeypatch.setattr(tuning, "rehearse", None)
    stored = from_dict(json.loads((out / "config.json").read_text()))
    again = train(stored, out, resume=True)
    assert again.summary["flops"] == result.summary["flops"]


def test_each_round_keeps_the_better_half(config, monkeypatch):
    """Planted: b1 = 0.5 is best; at first 0.7 looks worst, and 0.6 diverges."""
    text = "optim.b1=0.4,0.5,0.6,0.7"
    own = dataclasses.replace(config.train, tune=text, steps=100)
    planted = {0.4: 2.0, 0.5: 1.0, 0.6: None, 0.7: 3.0}
    asked = []

    def rehearse(config, settings, steps, overrides):
        [(_, value)] = settings
        asked.append((value, steps))
        return planted[value], Cost(matmul=steps)

    monkeypatch.setattr(tuning, "rehearse", rehearse)
    found = tune(dataclasses.replace(config, train=own))
    assert asked == [(b, 12) for b in (0.4, 0.5, 0.6, 0.7)] + [(0.5, 25), (0.4, 25)]
    assert found.config.optim.b1 == 0.5
    assert found.cost.matmul == 4 * 12 + 2 * 25


def test_nothing_is_chosen_where_all_diverge():
    with pytest.raises(UserError, match=r"train\.tune: all combinations diverge"):
        halved({(("optim.b1", 0.5),): None})


def test_a_rehearsal_is_the_run_made_short(config):
    grows = dataclasses.replace(config.growth, method="fixed", plan="depth=4:0.5")
    warm = dataclasses.replace(config.optim, warmup=12)
    found = shortened(dataclasses.replace(config, growth=grows, optim=warm), 12)
    assert (found.train.steps, found.train.tune, found.optim.warmup) == (12, "", 7)
    assert found.growth.method == "none"
    same = ("data", "model", "select", "curriculum")
    assert all(to_dict(found)[room] == to_dict(config)[room] for room in same)


def test_a_rehearsal_has_no_model_before_growth_to_select_by(config):
    grows = dataclasses.replace(config.growth, method="fixed", plan="depth=4:0.5")
    select = dataclasses.replace(config.select, method="rho", reference="snapshot")
    whole = validate(dataclasses.replace(config, growth=grows, select=select))
    assert validate(shortened(whole, 12)).select.method == "none"


def test_a_budget_pays_for_the_rehearsals(config):
    tuned = dataclasses.replace(config.train, tune_share=0.5, steps=400)
    plain = dataclasses.replace(config.train, tune="")
    one, two = (dataclasses.replace(config, train=t) for t in (plain, tuned))
    assert steps_for(two, 3e10) == pytest.approx(steps_for(one, 3e10) / 1.5, rel=0.02)
