import dataclasses

import pytest

from experiments import arms
from experiments.growth_policy_ladder import LADDERS, configure, step_flops
from uets_jax.config import GrowthConfig
from uets_jax.growth.stages import ladder, parse
from uets_jax.measure.flops import step_flops as matmul_flops
from uets_jax.validation import validate


@pytest.mark.parametrize("field", LADDERS)
def test_a_plan_takes_every_size_and_can_be_applied(field, monkeypatch):
    monkeypatch.setattr(arms, "step_flops", lambda *given: 10**6)
    one = LADDERS[field]
    config = configure(one, one.sizes[0], "tokens:x", 12, 3)
    validate(config)
    assert config.train.steps == 12
    assert config.train.seed == 3
    for plan, sizes in [
        (one.plan(0.2, 0.4), one.sizes[1:]),
        (one.leap(0.3), one.sizes[2:]),
    ]:
        stages = parse(GrowthConfig(plan=plan))
        assert tuple(stage.ops[0].size for stage in stages) == sizes
        grown = dataclasses.replace(config, growth=GrowthConfig("fixed", plan))
        last = ladder(grown)[-1].model
        assert last == configure(one, one.sizes[-1], "tokens:x", 12, 3).model


def test_a_step_costs_its_matmuls_and_little_more():
    one = LADDERS["width"]
    found = [step_flops(one, size) for size in one.sizes]
    for size, total in zip(one.sizes, found, strict=True):
        matmul = sum(matmul_flops(configure(one, size, "", 1, 0)).values())
        assert matmul < total < 1.5 * matmul
    assert found == sorted(found)
