import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.measure.ledger import NOT_TRAINING
from uets_jax.train.budget import spending, steps_for
from uets_jax.train.loop import train


def spent(summary):
    return sum(v for k, v in summary["flops"].items() if k not in NOT_TRAINING)


def test_a_run_spends_what_it_was_given(config, tmp_path):
    """Steps and what a start from counts takes, as the ledger has them."""
    counted = replace_from_dict(config, {"train": {"start": "counts"}})
    flops = spent(train(counted, tmp_path / "run").summary)
    assert sum(spending(counted)) == flops
    assert spending(config).start == 0
    assert steps_for(counted, flops) == config.train.steps
    assert steps_for(counted, 0.999 * flops) == config.train.steps - 1


def test_a_run_that_grows_pays_for_its_stages(config):
    grown = {"growth": {"method": "fixed", "plan": "depth=4:0.5"}}
    assert steps_for(replace_from_dict(config, grown), 1e10) < steps_for(config, 1e10)


def test_too_few_are_refused(config):
    with pytest.raises(UserError, match="flops: 5 don't pay for one step"):
        steps_for(config, 5)
