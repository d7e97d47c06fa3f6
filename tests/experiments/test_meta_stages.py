import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import meta_stages
from experiments.meta_stages import STAGES, VARIANTS, Stage, Variant, learn, make
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.features import NAMES
from uets_jax.optim.gate import OUTPUTS, GateSettings, check_theta, init_theta


def test_a_gate_that_trusts_the_nominal_rule_is_near_it(batch):
    """On the house's transformer and on a plain tree."""
    settings = GateSettings()
    theta = init_theta(jax.random.key(0), settings)
    model = make_model(model_config("modern", "tiny", vocab=64))
    trees = (
        jax.jit(model.init)(jax.random.key(0)),
        {"w": jnp.ones((8, 4)), "b": jnp.ones(4)},
    )
    for params in trees:
        grads = jax.tree.map(lambda p: 0.01 * jnp.cos(p + 0.3), params)
        steps = []
        for weights in (None, theta):
            tx = make(weights, settings)
            step = jax.jit(lambda g, p, tx=tx: tx.update(g, tx.init(p), p)[0])
            steps.append(step(grads, params))
        chex.assert_trees_all_close(*steps, rtol=0.3, atol=2e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_name_fields_and_share_the_budget(name):
    variant = VARIANTS[name]
    theta = init_theta(jax.random.key(0), variant.settings)
    check_theta(theta, variant.settings, name)
    assert sum(stage.share for stage in variant.stages) == pytest.approx(1)
    for stage in variant.stages:
        assert all(getattr(theta, field) is not None for field in stage.fields)


def test_a_stage_learns_the_numbers_that_it_names():
    settings = GateSettings()
    theta = init_theta(jax.random.key(0), settings)
    learned = STAGES[1].learned(theta, settings)
    assert learned.direct.shape == theta.direct.shape
    assert learned.direct.sum() == len(STAGES[1].features) * len(STAGES[1].outputs)
    column = len(settings.rules) + OUTPUTS.index("b1")
    assert learned.direct[NAMES.index("age"), column]
    assert not learned.direct[NAMES.index("age"), 0]
    assert not learned.role_bias
    assert not learned.output
    output = STAGES[3].learned(theta, settings).output
    assert output.shape == theta.output.shape
    assert output[:, column].all()
    assert not output[:, 0].any()
    for variant in VARIANTS.values():
        for stage in variant.stages:
            assert {*stage.features} <= {*NAMES}
            assert {*stage.outputs} <= {*variant.settings.columns}


def test_what_decides_when_is_learned_with_the_rest():
    variant = VARIANTS["every_4_learned"]
    theta = init_theta(jax.random.key(0), variant.settings)
    bias, direct, progress, output = variant.stages
    assert bias.learned(theta, variant.settings).role_bias
    for stage, name in ((direct, "direct"), (progress, "role_progress")):
        told = getattr(stage.learned(theta, variant.settings), name)
        assert told[..., -1].any()
    assert output.learned(theta, variant.settings).output[:, -1].all()
    skip = VARIANTS["skip"]
    start = init_theta(jax.random.key(0), skip.settings, skip.awake)
    assert float(start.role_bias[0, skip.settings.columns.index("skip")]) > -1


def test_only_the_fields_of_a_stage_move(tmp_path):
    small = Stage(("role_bias",), 1.0, 0.1, 0.03)
    variant = Variant(GateSettings(rules=("adam", "muon"), hidden=2), (small,))
    tasks = Tasks((quadratic(2, 2, horizon=4),), (quadratic(3, 2, horizon=4),))
    config = MetaConfig(updates=2, episodes=2, window=2, seeds=2, reference=2)
    said = []
    found = learn(variant, tasks, config, tmp_path, said.append)
    assert said == ["stage 1: role_bias"]
    [result] = found.stages
    assert result.updates == 2
    start = init_theta(jax.random.key(0), variant.settings)
    chex.assert_trees_all_equal(found.theta.input, start.input)
    assert np.any(result.last.role_bias != start.role_bias)
    same = result.last._replace(role_bias=start.role_bias)
    chex.assert_trees_all_equal(same, start)
    if result.chosen == "start":
        chex.assert_trees_all_equal(found.theta, start)
    else:
        assert found.theta.role_bias.shape == start.role_bias.shape


def test_a_stage_begins_again_where_the_one_before_came_to_more(tmp_path, monkeypatch):
    """Else a longer run would hand on what a shorter one had learned."""
    stages = tuple(Stage((name,), 0.5, 0.1, 0.03) for name in ("role_bias", "direct"))
    variant = Variant(GateSettings(rules=("adam", "muon"), hidden=2), stages)
    tasks = Tasks((quadratic(2, 2, horizon=4),), (quadratic(3, 2, horizon=4),))
    config = MetaConfig(updates=2, episodes=2, window=2, seeds=2, reference=2)
    came_to = []

    def meta_train(rule, theta, tasks, own, out, *, learned, shop):
        came_to.append(out.name)
        moved = theta._replace(role_bias=theta.role_bias + own.updates)
        return SimpleNamespace(theta=moved)

    monkeypatch.setattr(meta_stages, "meta_train", meta_train)
    learn(variant, tasks, config, tmp_path, lambda text: None)
    longer = dataclasses.replace(config, updates=4)
    learn(variant, tasks, longer, tmp_path, lambda text: None)
    assert came_to[0] == came_to[2]
    assert came_to[1] != came_to[3]
    assert came_to[1].startswith("stage-2-")


def test_the_shipped_variant_is_first():
    assert next(iter(VARIANTS)) == "gate"
    assert VARIANTS["gate"].stages == STAGES
    assert {*meta_stages.VARIANTS} >= {"gate_mlp", "no_recurrence", "no_muon"}
