"""What can't work is refused, and named, before anything is compiled."""

import dataclasses
import math
import typing

import pytest

from uets_jax import recipes
from uets_jax.config import ExperimentConfig, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.validation import validate

DEFAULT = ExperimentConfig()


def numbers(kind, prefix: str = "") -> dict[str, type]:
    """The type of every int and float field of a config class, by path."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= numbers(hint, f"{prefix}{name}.")
        elif hint in (int, float):
            found[prefix + name] = hint
    return found


def changed(path: str, value) -> ExperimentConfig:
    return replace_from_dict(DEFAULT, recipes.nested({path: value}))


NUMBERS = numbers(ExperimentConfig)


def test_validate_returns_its_argument():
    assert validate(DEFAULT) is DEFAULT


LEAST = {
    2: "model.memory_order",
    1: "model.context model.depth model.width model.heads model.kv_heads "
    "model.head_dim model.hidden model.head_chunks train.steps train.batch "
    "train.microbatches "
    "train.keep train.bad_steps train.log_every train.sample_tokens train.mesh.fsdp "
    "train.mesh.tensor",
    0: "model.vocab model.softcap model.memory_rows data.length optim.learning_rate "
    "optim.weight_decay optim.warmup optim.decay optim.floor optim.clip optim.eps "
    "optim.adam_ratio train.seed train.eval_every train.eval_tokens "
    "train.checkpoint_every train.spike train.watchdog train.samples "
    "train.mesh.data",
}
BOUNDS = [(path, low) for low, paths in LEAST.items() for path in paths.split()]
SHARES = [
    "model.dropout",
    "optim.b1",
    "optim.b2",
    "optim.momentum",
    "data.valid_fraction",
]


@pytest.mark.parametrize(("path", "low"), BOUNDS)
def test_numbers_have_bounds(path, low):
    hint = NUMBERS[path]
    wrong = [low - 1, 2**31]
    wrong += [math.nan, math.inf] if hint is float else []
    for value in wrong:
        with pytest.raises(UserError, match=path.replace(".", r"\.")):
            validate(changed(path, hint(value)))


@pytest.mark.parametrize("path", SHARES)
def test_shares_are_below_one(path):
    validate(changed(path, 0.0))
    for value in (-0.1, 1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=path.replace(".", r"\.")):
            validate(changed(path, value))


def test_every_number_has_a_bound():
    assert set(NUMBERS) == {path for path, _ in BOUNDS} | set(SHARES)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"optim": {"decay": 1.1}}, "optim.decay"),
        ({"optim": {"floor": 1.1}}, "optim.floor"),
        ({"model": {"kv_heads": 3}}, "model.kv_heads"),
        ({"model": {"kv_heads": 8}}, "model.kv_heads"),
        ({"model": {"head_dim": 33}}, "model.head_dim"),
        ({"data": {"length": 129}}, "data.length"),
        ({"model": {"mask_documents": True, "attention": "cudnn"}}, "model.attention"),
        ({"train": {"batch": 32, "microbatches": 5}}, "train.microbatches"),
    ],
)
def test_values_that_contradict_each_other_are_named(values, culprit):
    with pytest.raises(UserError, match=culprit):
        validate(replace_from_dict(DEFAULT, values))


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"kv_heads": 1}},
        {"model": {"position": "learned", "head_dim": 33}},
        {"data": {"length": 128}},
        {"model": {"mask_documents": True, "attention": "xla"}},
        {"train": {"seed": 2**31 - 1}},
        {"optim": {"floor": 1.0, "decay": 1.0, "clip": 0.0}},
    ],
)
def test_the_edge_of_what_is_allowed_is_allowed(values):
    config = replace_from_dict(DEFAULT, values)
    assert validate(config) is config


def test_there_are_tables_for_bigrams_and_trigrams_only():
    validate(changed("model.memory_order", 3))
    with pytest.raises(UserError, match=r"model\.memory_order: must be 2 or 3, got 4"):
        validate(changed("model.memory_order", 4))
