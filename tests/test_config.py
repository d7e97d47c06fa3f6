"""Configs: value-equal, strict about what they are read from."""

import dataclasses
import json
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uets_jax import config as c
from uets_jax.config import ExperimentConfig, replace_from_dict
from uets_jax.errors import UserError

DEFAULT = ExperimentConfig()


def leaves(config, prefix=()):
    """(path, type, value) of every field that is not a config itself."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), (*prefix, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, path)
        else:
            yield path, hints[field.name], value


def changed(path: str, value) -> ExperimentConfig:
    return replace_from_dict(DEFAULT, c.nested({path: value}))


LEAVES = {".".join(path): (hint, value) for path, hint, value in leaves(DEFAULT)}
OF_TYPE = {
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: st.text(),
}


def values_of(hint):
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    return OF_TYPE[hint]


changes = st.fixed_dictionaries(
    {}, optional={path: values_of(hint) for path, (hint, _) in LEAVES.items()}
)


def with_changes(flat):
    config = DEFAULT
    for path, value in flat.items():
        config = replace_from_dict(config, c.nested({path: value}))
    return config


@given(changes)
@settings(max_examples=50, deadline=None)
def test_json_round_trip_gives_an_equal_config_with_an_equal_hash(flat):
    config = with_changes(flat)
    again = replace_from_dict(DEFAULT, json.loads(c.to_json(config)))
    assert again == config
    assert hash(again) == hash(config)
    assert c.config_hash(again) == c.config_hash(config)
    assert c.to_json(again) == c.to_json(config)


@pytest.mark.parametrize("path", LEAVES)
def test_every_field_counts_for_equality_and_hash(path):
    hint, value = LEAVES[path]
    if typing.get_origin(hint) is typing.Literal:
        other = next(choice for choice in typing.get_args(hint) if choice != value)
    else:
        other = {int: 77, float: 0.123, bool: not value, str: "other"}[hint]
    config = changed(path, other)
    assert config != DEFAULT
    assert c.config_hash(config) != c.config_hash(DEFAULT)


def test_the_hash_is_that_of_the_canonical_json():
    assert len(c.config_hash(DEFAULT)) == 64
    assert c.config_hash(DEFAULT) == c.config_hash(ExperimentConfig())


def test_configs_are_frozen_and_can_be_keys():
    assert {DEFAULT: 1}[ExperimentConfig()] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("path", LEAVES)
def test_a_value_of_the_wrong_type_is_named(path):
    hint, _ = LEAVES[path]
    wrong = [None, [], {}, object()]
    wrong += ["1"] if hint is not str else [1]
    wrong += [1.5] if hint is not float else [True]
    if hint is int:
        wrong.append(True)
    for value in wrong:
        with pytest.raises(UserError, match=path.replace(".", r"\.")):
            changed(path, value)


def test_an_integer_serves_as_a_float():
    rate = changed("optim.learning_rate", 1).optim.learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"trian": {}}, "unknown key 'trian': did you mean 'train'"),
        ({"model": {"dept": 3}}, "unknown key 'model.dept': did you mean 'depth'"),
        ({"train": {"mesh": {"fdsp": 1}}}, "'train.mesh.fdsp': did you mean 'fsdp'"),
        ({"train": {"mesh": {"zz": 1}}}, "choose from data, fsdp, tensor"),
        ({"model": {"norm": "rsm"}}, "model.norm: 'rsm': did you mean 'rms'"),
        (
            {"optim": {"name": "zzz"}},
            "optim.name: 'zzz': choose from adamw, learned, lion, muon",
        ),
        ({"data": "builtin"}, "data: expected an object, got 'builtin'"),
        ([], "config: expected an object"),
        (None, "config: expected an object"),
    ],
)
def test_a_wrong_key_or_object_is_named_with_a_suggestion(values, text):
    with pytest.raises(UserError) as error:
        replace_from_dict(DEFAULT, values)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_replacing_leaves_the_base_alone():
    config = changed("train.mesh.fsdp", 2)
    assert DEFAULT.train.mesh.fsdp == 1
    assert config.train.mesh.fsdp == 2
    assert dataclasses.replace(config, train=DEFAULT.train) == DEFAULT


def test_windows_are_as_long_as_the_context_unless_told():
    assert c.window_length(DEFAULT) == DEFAULT.model.context
    assert c.window_length(changed("data.length", 9)) == 9


def test_paths_become_nested_dicts():
    flat = {"name": "x", "train.steps": 1, "train.mesh.data": 2}
    tree = {"name": "x", "train": {"steps": 1, "mesh": {"data": 2}}}
    assert c.nested(flat) == tree
