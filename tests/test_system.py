import dataclasses
import inspect
import textwrap

import jax
import numpy as np
import optax
import pytest

from uets_jax.build import build
from uets_jax.component import Selection
from uets_jax.config import (
    CurriculumConfig,
    GrowthConfig,
    replace_from_dict,
)
from uets_jax.data.store import write_store
from uets_jax.errors import UserError
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.slots.dataset import source_of
from uets_jax.slots.values import Architecture
from uets_jax.system import UltraEfficientTrainingSystem, with_target
from uets_jax.train.budget import steps_for
from uets_jax.train.loop import train

OFF = dict.fromkeys(["data_selector", "architecture", "optimizer", "curriculum"])


@pytest.fixture(scope="module")
def small(tiny):
    """TINY, its vocabulary left to the tokenizer."""
    return replace_from_dict(tiny, {"model": {"vocab": 257}})


@pytest.fixture
def system(small, tmp_path):
    """The system with every slot off, but for those that are given."""

    def made(**slots):
        how = {"config": small, "out": tmp_path / "run", "start": "random", **OFF}
        return UltraEfficientTrainingSystem(**{**how, **slots})

    return made


def test_the_example_of_its_docstring_runs(tmp_path, corpus, monkeypatch, capsys):
    (tmp_path / "texts").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    page = inspect.getdoc(UltraEfficientTrainingSystem)
    start, end = page.index("    from dataclasses"), page.index("\nArgs:")
    code = textwrap.dedent(page[start:end])
    assert len([line for line in code.splitlines() if line]) == 9
    exec(compile(code, "example", "exec"), {})  # of this repository
    first, *text = capsys.readouterr().out.splitlines()
    assert "bits per byte" in first
    assert first.endswith("runs/first/report.html")
    assert "\n".join(text).startswith("The ")


def test_it_is_the_loop_and_nothing_beside_it(system, config_of, tmp_path):
    plain = system(optimizer={"name": "adamw", "learning_rate": 3e-3, "warmup": 5})
    ours = plain.train(config_of.folder)
    theirs = train(config_of.config, tmp_path / "loop")
    assert ours.report.summary["params_sha256"] == theirs.summary["params_sha256"]
    assert ours.report.path.is_file()
    assert int(ours.state.step) == 8
    logits = ours.model.logits(np.zeros((2, 5)))
    assert logits.shape == (2, 5, 257)
    assert ours.model.generate("the ", tokens=3).startswith("the ")
    monitor = ours.report.monitor(threshold=9.0)
    assert monitor.bottleneck_detected()
    assert [step for step, _ in monitor.history] == [4]  # at full rate
    assert monitor.line() == ""


@pytest.fixture
def config_of(small, corpus):
    """The folder of the small corpus, and the config that a run on it has."""

    class Found:
        folder = corpus
        config = replace_from_dict(small, {"data": {"source": f"files:{corpus}/**"}})

    return Found


def test_own_parts_are_trained_with(system, small, corpus):
    """A selection, a rule and a model of one's own, in one run."""

    def choose(state, pool, moment):
        rows = jax.tree.map(lambda x: x[: small.train.batch], pool)
        return rows, None, {"offered": pool.ids.shape[0] * 1.0}, state + 1

    own = Selection(
        lambda params: np.zeros((), np.int32), choose, lambda state, *seen: ({}, state)
    )
    model = make_model(small.model)
    few = replace_from_dict(small, {"select": {"candidates": 2}})
    found = system(
        data_selector=own, optimizer=optax.sgd(0.1), architecture=model, config=few
    )
    _, overrides = found.plan(corpus)
    assert set(overrides) >= {"select", "tx", "init", "forward", "logits"}
    result = found.train(corpus)
    assert int(result.state.parts["select"]) == 8
    assert result.model.program is build(result.model.config, overrides)


def test_flops_buy_as_many_steps_as_they_pay_for(system, corpus):
    config, overrides = system(flops=5e9).plan(corpus)
    assert config.train.steps == steps_for(config, 5e9, overrides)
    assert 10 < config.train.steps < 400
    with pytest.raises(UserError, match="flops: 10 don't pay for one step"):
        system(flops=10.0).plan(corpus)


def test_the_default_is_all_of_it(small, corpus):
    config, overrides = UltraEfficientTrainingSystem(config=small).plan(corpus)
    assert overrides == {}
    assert (config.select.method, config.optim.name) == ("aql", "learned")
    assert config.curriculum.lengths == "8:0.1,16:0.3"
    assert (config.model.depth, config.growth.method) == (1, "trigger")
    assert config.growth.plan == "depth=2:0.6"
    assert config.train.start == "counts"
    assert config.data.source == f"files:{corpus}/**"


def test_every_slot_can_be_left_out(system, corpus):
    config, overrides = system(monitor=None).plan(corpus)
    assert overrides == {}
    assert (config.select.method, config.optim.name) == ("none", "muon")
    assert (config.curriculum, config.growth) == (CurriculumConfig(), GrowthConfig())
    assert config.model.depth == 2


@pytest.mark.parametrize("why", ["tied", "vocab", "own", "asked"])
def test_a_start_from_counts_where_the_model_allows_it(why, system, small, corpus):
    how = {
        "tied": {"architecture": model_config("gpt2", "tiny")},
        "vocab": {
            "config": replace_from_dict(small, {"data": {"tokenizer": "bpe:9000"}})
        },
        "own": {"architecture": make_model(small.model)},
        "asked": {"start": "random"},
    }[why]
    config, _ = system(**{"start": "counts", **how}).plan(corpus)
    assert config.train.start == "random"


def test_the_tokenizer_of_a_text_says_whether_it_can_be_counted(
    system, small, corpus, tmp_path, monkeypatch
):
    data = dataclasses.replace(small.data, source=source_of(corpus))
    write_store(tmp_path / "tokens", data)
    plan = lambda: system(start="counts").plan(f"tokens:{tmp_path}/tokens")[0]
    assert plan().train.start == "counts"
    monkeypatch.setattr("uets_jax.system.LARGEST", 100)
    assert plan().train.start == "random"


def test_it_is_a_value(system):
    one, other = (
        system(curriculum={"lengths": "8:0.5"}),
        system(curriculum=CurriculumConfig(lengths="8:0.5")),
    )
    assert one == other
    assert hash(one) == hash(other)
    assert one != system()
    assert "curriculum=CurriculumConfig(" in repr(one)
    assert dataclasses.replace(one, curriculum=None) == system()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 3
    with pytest.raises(TypeError):
        UltraEfficientTrainingSystem("aql")


def test_a_budget_is_one_number(system):
    with pytest.raises(UserError, match="give one of them"):
        system(steps=5, flops=1e9)
    with pytest.raises(UserError, match="negative"):
        system(steps=-5)


def test_a_baseline_is_handed_on(system, corpus):
    assert system(monitor="b2m.json").plan(corpus)[0].train.baseline == "b2m.json"


def test_a_target_is_a_field_of_the_config(system, corpus):
    config, _ = system().plan(corpus, 1.7)
    assert config == with_target(system().plan(corpus)[0], 1.7)
    assert (config.train.target, config.optim.average) == (1.7, 0.1)
    assert config.train.eval_every == 1


def test_an_architecture_may_be_given_whole(system, corpus):
    growth = GrowthConfig(method="fixed", plan="depth=2:0.5")
    one = model_config("modern", "tiny", depth=1, vocab=257)
    whole = system(architecture=Architecture(one, growth)).plan(corpus)[0]
    rooms = {"model": {"depth": 1}, "growth": {"method": "fixed", "plan": growth.plan}}
    assert system(architecture=rooms).plan(corpus)[0] == whole
    assert whole.growth == growth
