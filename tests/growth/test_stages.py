import dataclasses

import pytest

from uets_jax.config import GrowthConfig, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.stages import (
    Op,
    after,
    ladder,
    parse,
    prunes,
    referred,
    resized,
    snapshots,
)
from uets_jax.models.presets import model_config

MODEL = model_config("modern", "tiny", vocab=64)  # depth 2, width 32, 2 heads
GROUPED = dataclasses.replace(MODEL, heads=4, kv_heads=2, head_dim=8)

FROZEN = dataclasses.replace(MODEL, frozen=1)


def growth(plan, **fields):
    return GrowthConfig(method="fixed", plan=plan, **fields)


def test_a_plan_is_stages_in_order():
    first, second = parse(growth("depth=2:0.3, depth=4:0.6,heads=4:0.6"))
    assert (first.share, second.share) == (0.3, 0.6)
    assert [op.size for op in second.ops] == [4, 4]
    assert str(second) == "depth=4, heads=4"


def test_the_ways_of_the_config_go_into_the_ops():
    [stage] = parse(growth("depth=4:0.5,hidden=256:0.5", depth="stack", units="split"))
    assert [op.how for op in stage.ops] == ["stack", "split"]


def test_blocks_freeze_and_thaw_and_no_shape_changes():
    stages = parse(growth("frozen=1:0.3,depth=4:0.5,frozen=3:0.5,frozen=0:0.8"))
    rungs = [MODEL]
    for op in (op for stage in stages for op in stage.ops):
        assert not prunes(rungs[-1], op)
        rungs.append(resized(rungs[-1], op))
    assert [m.frozen for m in rungs] == [0, 1, 1, 3, 0]
    assert dataclasses.replace(rungs[-1], depth=2) == MODEL


def test_no_plan_has_no_stages():
    assert parse(growth("")) == ()


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ("depth4:0.5", "field=size:share"),
        ("depth=4", "field=size:share"),
        ("depth=four:0.5", "field=size:share"),
        ("layers=4:0.5", "depth"),
        ("depth=4:1.5", "shares must rise"),
        ("depth=4:0", "shares must rise"),
        ("depth=3:0.5,depth=4:0.4", "shares must rise"),
        ("depth=4:nan", "shares must rise"),
    ],
)
def test_a_plan_that_can_not_be_read_is_refused(plan, complaint):
    with pytest.raises(UserError, match=complaint):
        parse(growth(plan))


def test_the_ladder_has_a_config_for_every_stage(tiny):
    config = dataclasses.replace(tiny, growth=growth("depth=3:0.3,heads=4:0.6"))
    assert [(c.model.depth, c.model.heads) for c in ladder(config)] == [
        (2, 2),
        (3, 2),
        (3, 4),
    ]


def test_a_stage_changes_nothing_but_the_model(tiny):
    [stage] = parse(growth("depth=3:0.5"))
    grown = after(tiny, stage)
    assert dataclasses.replace(grown, model=tiny.model) == tiny


def test_as_many_key_heads_as_heads_stay_as_many():
    assert resized(MODEL, Op("heads", 4)).kv_heads == 4


def test_grouped_heads_grow_within_their_groups_and_go_by_groups():
    assert resized(GROUPED, Op("heads", 6)).kv_heads == 2
    assert resized(GROUPED, Op("heads", 2)).kv_heads == 1


@pytest.mark.parametrize(
    ("model", "op", "complaint"),
    [
        (MODEL, Op("depth", 2), "has 2 already"),
        (MODEL, Op("depth", 0), "at least 1"),
        (MODEL, Op("depth", 3, "stack"), "multiple of the 2 layers"),
        (MODEL, Op("width", 48), "multiple of the 32"),
        (MODEL, Op("heads", 5, "split"), "at most doubles"),
        (MODEL, Op("experts", 1), "two or more"),
        (dataclasses.replace(MODEL, experts=2), Op("experts", 4), "come once"),
        (dataclasses.replace(MODEL, experts=2), Op("hidden", 8), "can't be changed"),
        (MODEL, Op("frozen", 2), "2 of 2 blocks frozen leave none to train"),
        (MODEL, Op("frozen", 0), "has 0 already"),
        (MODEL, Op("frozen", -1), "at least 0"),
        (FROZEN, Op("depth", 1), "1 of 1 blocks frozen leave none"),
        (MODEL, Op("frozen", 1, "identity"), "there is but one way"),
        (GROUPED, Op("heads", 5), "multiple of 2"),
        (GROUPED, Op("heads", 3), "multiple of 2"),
        (dataclasses.replace(MODEL, memory_rows=4), Op("memory_rows", 6), "multiple"),
    ],
)
def test_what_can_not_be_done_is_refused_with_its_reason(model, op, complaint):
    with pytest.raises(UserError, match=complaint):
        resized(model, op)


def test_selection_refers_to_the_rung_below_the_last_one_that_grew(tiny):
    """Freezing and pruning leave the one that there is."""
    plan = "frozen=1:0.1,depth=3:0.2,heads=1:0.3,frozen=0:0.4,hidden=256:0.5"
    values = {
        "select": {"method": "rho", "reference": "snapshot"},
        "growth": {"method": "fixed", "plan": plan},
    }
    rungs = ladder(replace_from_dict(tiny, values))
    assert snapshots(rungs) == (None, None, *[rungs[1]] * 3, rungs[4])
    plain = ladder(replace_from_dict(tiny, {"growth": values["growth"]}))
    assert set(snapshots(plain)) == {None}
    both = resized(resized(rungs[0].model, Op("heads", 1)), Op("depth", 4))
    assert referred(rungs[0], both)
    assert not referred(rungs[0], rungs[0].model)
