import dataclasses

import pytest

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.train.combinations import (
    changed,
    check_tune,
    combinations,
    lengths,
    words,
)


def told(text, **train):
    usual = ExperimentConfig()
    train = dataclasses.replace(usual.train, tune=text, **train)
    return dataclasses.replace(usual, train=train)


def test_all_combinations_of_the_values():
    text = "optim.learning_rate=0.01, 0.02; select.knobs.novelty=5"
    assert combinations(told(text)) == (
        (("optim.learning_rate", 0.01), ("select.knobs.novelty", 5)),
        (("optim.learning_rate", 0.02), ("select.knobs.novelty", 5)),
    )
    names = combinations(told("optim.name=muon,adamw;"))
    assert [words(settings) for settings in names] == [
        "optim.name=muon",
        "optim.name=adamw",
    ]


def test_a_config_takes_the_settings():
    config = told("")
    found = changed(config, (("optim.b1", 0.5), ("select.knobs.novelty", 5)))
    assert (found.optim.b1, found.select.knobs.novelty) == (0.5, 5.0)
    assert (
        dataclasses.replace(found, optim=config.optim, select=config.select) == config
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("optim.learning_rate", "write each setting once"),
        ("optim.b1=0.5,0.6;optim.b1=0.7", "write each setting once"),
        ("model.depth=1,2", "model.depth: settings of optim"),
        ("optim.learning_rates=1,2", "learning_rate"),
        ("optim.learning_rate=fast,slow", "learning_rate: expected float"),
        ("optim.name=muon,moon", "'moon'"),
        ("optim.learning_rate=0.01,-1", "optim.learning_rate: must be at least 0"),
        ("optim.b1=0.5", "1 combinations; give 2 to 64"),
        ("optim.b1=0.5,0.5", "1 combinations"),
    ],
)
def test_what_cant_be_read_is_refused(text, match):
    with pytest.raises(UserError, match=match):
        combinations(told(text))


def test_rounds_make_as_many_steps_each_and_halve_the_combinations():
    config = told("x", steps=1000, tune_share=0.3)
    found = lengths(config, 8)
    assert found == (12, 25, 50)  # of 8, 4 and 2
    assert sum(n * k for n, k in zip(found, (8, 4, 2), strict=True)) <= 300
    assert lengths(config, 2) == (150,)


def test_rehearsals_that_are_too_short_are_refused():
    text = "optim.b1=0.5,0.6,0.7,0.8"
    with pytest.raises(UserError, match=r"4 combinations get 5 steps.*tune_share"):
        check_tune(told(text, steps=400, tune_share=0.1))
    check_tune(told(text, steps=800, tune_share=0.1))
    check_tune(told(""))
