"""From a config to its selection: what is part of the program, and what is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.aql import make
from uets_jax.aql.assets import Assets, knobs
from uets_jax.build import build
from uets_jax.config import (
    CurriculumConfig,
    KnobsConfig,
    SelectConfig,
    replace_from_dict,
)
from uets_jax.step import train_step
from uets_jax.types import Batch

AQL = {
    "select": {"method": "aql", "candidates": 2, "run": 2, "buffer": 16, "policy": True}
}
RARITY = {"curriculum": {"difficulty": "rarity", "candidates": 2}}


def test_nothing_is_chosen_by_default(tiny):
    assert make.chosen(tiny) is None
    assert build(tiny).select is None
    alone = {"select": {"method": "aql", "mode": "pool", "candidates": 1}}
    assert make.chosen(replace_from_dict(tiny, alone)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"select": {"knobs": {"temperature": 3.0, "ratio": 0.5}}},
        {"select": {"target": "files:other"}},
        {"select": {"reference": "other.npy"}},
        {"train": {"seed": 5, "steps": 9}},
        {"curriculum": {"lengths": "8:0.5"}},
    ],
)
def test_what_is_traced_or_read_is_no_part_of_the_program(change, tiny):
    config = replace_from_dict(tiny, AQL)
    assert build(replace_from_dict(config, change)) is build(config)


@pytest.mark.parametrize(
    "change",
    [
        {"select": {"buffer": 32}},
        {"select": {"policy": False}},
        {"select": {"mode": "pool"}},
        {"train": {"batch": 16}},
        {"data": {"length": 16}},
        {"curriculum": {"difficulty": "rarity"}},
    ],
)
def test_what_changes_the_step_is_part_of_the_program(change, tiny):
    config = replace_from_dict(tiny, AQL)
    assert build(replace_from_dict(config, change)) is not build(config)


def test_configs_that_differ_in_knobs_share_one_executable(tiny, monkeypatch):
    traces, real = [], make.by_loss

    def counted(*given):
        score = real(*given)

        def noted(*now):
            traces.append(None)  # runs when the step is traced, never when called
            return score(*now)

        return noted

    monkeypatch.setattr(make, "by_loss", counted)
    own = {"select": {"method": "loss", "candidates": 2, "buffer": 77}}
    config = replace_from_dict(tiny, own)
    program = build(config)
    step = jax.jit(functools.partial(train_step, program))
    from uets_jax.build import initial_state

    tokens = jnp.zeros((16, 32), jnp.int32)
    pool = Batch(tokens, tokens, jnp.arange(16, dtype=jnp.int32), tokens)
    for temperature in (0.5, 1.0, 2.0):
        other = {"select": {"knobs": {"temperature": temperature}}}
        changed = replace_from_dict(config, other)
        assert build(changed) is program
        state = initial_state(changed, program)
        state, metrics = step(state, pool, Assets(knobs(changed.select.knobs)))
        assert np.isfinite(float(metrics["select_score"]))
    assert len(traces) == 1


class Called(Exception):
    """Tells which part was made, and with what."""


@pytest.mark.parametrize(
    ("select", "curriculum", "part", "given"),
    [
        ({"method": "loss"}, {}, "by_loss", ()),
        ({"method": "rho"}, {}, "by_excess", ()),
        ({"method": "mc_dropout"}, {}, "by_dropout", ()),
        ({"method": "none"}, {"difficulty": "rarity"}, "ordered", (None,)),
        ({"method": "aql", "policy": True, "uncertainty": False}, {}, "aql", ()),
        ({"method": "aql", "policy": False, "uncertainty": False}, {}, "aql", ()),
    ],
)
def test_each_method_has_its_part(select, curriculum, part, given, tiny, monkeypatch):
    def called(*values):
        raise Called(values)

    monkeypatch.setattr(make, part, called)
    how = make.Chosen(SelectConfig(**select), CurriculumConfig(**curriculum), 4, 32)
    with pytest.raises(Called) as found:
        make.selection(how, tiny.model, build(tiny))
    values = found.value.args[0]
    if part in ("by_loss", "by_excess"):
        assert values[1:] == given
    elif part == "ordered":
        assert values == (how.curriculum, 4, None)
    elif part == "aql":
        bar, posterior, learned = values[3:]
        assert (bar, posterior) == (None, None)
        assert (learned is not None) == how.select.policy


def test_aql_gets_its_parts(tiny, monkeypatch):
    def called(*values):
        raise Called(values)

    monkeypatch.setattr(make, "aql", called)
    how = make.chosen(replace_from_dict(tiny, {**AQL, **RARITY}))
    assert how.select.knobs == KnobsConfig()
    with pytest.raises(Called) as found:
        make.selection(how, tiny.model, build(tiny))
    config, batch, length, bar, posterior, learned = found.value.args[0]
    assert (config, batch, length) == (how.select, 8, 32)
    assert bar is not None
    assert learned is not None
    state = posterior.init(None)
    assert state.second.shape == (tiny.model.width, tiny.model.width)
