"""What a meta-training run is told, and what a resumed one must share."""

import dataclasses
import json

import pytest

from uets_jax.errors import UserError
from uets_jax.meta.settings import FREE, MetaConfig, fixed


def test_a_budget_is_needed():
    with pytest.raises(UserError, match="give updates, minutes or both"):
        MetaConfig()
    with pytest.raises(UserError, match="give updates, minutes or both"):
        MetaConfig(updates=-1, minutes=1.0)
    assert MetaConfig(minutes=0.5).updates == 0


@pytest.mark.parametrize(
    "name",
    [
        *("episodes", "window", "sigma", "rate", "last_rate", "clip"),
        *("validate", "reference", "log_every"),
    ],
)
def test_a_number_that_is_none_is_named(name):
    zero = type(getattr(MetaConfig(updates=1), name))(0)
    with pytest.raises(UserError, match=rf"meta\.{name}: must be above 0"):
        MetaConfig(**{"updates": 1, name: zero})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"estimator": "es"}, r"meta\.estimator: choose from nres, pes, tbptt"),
        ({"seeds": 1}, r"meta\.seeds: 2 or more"),
        ({"average": 1.0}, r"meta\.average: a share in \[0, 1\)"),
        ({"decay": -0.1}, r"meta\.decay: 0 or more"),
    ],
)
def test_a_wrong_value_is_named(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        MetaConfig(updates=1, **changes)


def test_a_longer_budget_is_the_same_run_and_another_seed_is_not():
    one = MetaConfig(updates=1)
    more = dataclasses.replace(one, updates=5, minutes=3.0, log_every=1)
    assert fixed(one) == fixed(more)
    assert fixed(one) != fixed(dataclasses.replace(one, seed=1))
    assert not {*FREE} & fixed(one).keys()
    assert {*FREE} | fixed(one).keys() == {f.name for f in dataclasses.fields(one)}
    assert json.loads(json.dumps(fixed(one)))["augment"]["rate"] == 1.5
