import pytest

from experiments.optimizer_grids import RULES
from uets_jax.config import OptimConfig


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_may_tune_the_rate_of_the_rest(rule):
    """Muon alone with that would be compared with rules that lack a knob."""
    names = [axis.name for axis in RULES[rule]]
    assert names[0] == "learning_rate"
    muons = ("muon", "normuon", "learned")
    ratio = "adam_ratio" if rule in muons else "rest_ratio"
    assert ratio in names
    assert "weight_decay" in names
    assert len(names) == 5  # as many as all others
    assert all(hasattr(OptimConfig(), name) for name in names)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_with_a_momentum_may_tune_it(rule):
    """Short runs want little of it: without that knob a rule is a straw man."""
    names = {axis.name for axis in RULES[rule]}
    assert {"b1", "momentum"} & names or rule == "rmsprop"
    assert "b1" in names or rule in ("rmsprop", "sgd")


@pytest.mark.parametrize("rule", RULES)
def test_a_search_starts_inside_its_grids(rule):
    for axis in RULES[rule]:
        assert list(axis.values) == sorted({*axis.values})
        assert 0 <= axis.start < len(axis.values)
        inside = 0 < axis.start < len(axis.values) - 1
        assert inside or axis.closed or axis.closed_above
