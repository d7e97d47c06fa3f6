"""Named architectures and sizes, and what follows from what in a nested dict."""

import dataclasses
from typing import Any

import pytest

from uets_jax.config import ExperimentConfig, ModelConfig, to_dict
from uets_jax.errors import UserError
from uets_jax.measure.flops import parameters
from uets_jax.models.presets import PRESETS, from_dict, model_config, sizes
from uets_jax.validation import validate

DIMENSIONS = ["depth", "width", "heads", "kv_heads", "head_dim", "hidden", "context"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", sizes())
def test_every_preset_at_every_size_is_valid(preset, size):
    model = model_config(preset, size)
    validate(ExperimentConfig(model=model))
    assert (model.preset, model.size) == (preset, size)
    assert model.heads * model.head_dim == model.width
    assert (model.hidden, model.kv_heads) == (4 * model.width, model.heads)


def test_sizes_grow():
    areas = [m.depth * m.width**2 for m in (model_config(size=s) for s in sizes())]
    assert areas == sorted(areas)


def test_gpt2_sizes_are_those_of_the_paper():
    """Radford et al. 2019, table 2."""
    found = {
        size: (m.depth, m.width, m.context)
        for size, m in ((s, model_config("gpt2", s)) for s in sizes())
        if size.startswith("gpt2")
    }
    assert found == {
        "gpt2-small": (12, 768, 1024),
        "gpt2-medium": (24, 1024, 1024),
        "gpt2-large": (36, 1280, 1024),
        "gpt2-xl": (48, 1600, 1024),
    }


def test_presets_name_the_same_fields_and_no_dimensions():
    names = [set(fields) for fields in PRESETS.values()]
    assert all(n == names[0] for n in names)
    assert names[0] < {f.name for f in dataclasses.fields(ModelConfig)}
    assert not names[0] & {*DIMENSIONS, "preset", "size"}


def test_the_defaults_of_the_dataclass_are_modern_nano():
    assert model_config("modern", "nano") == ModelConfig()
    assert from_dict({}) == ExperimentConfig()


def test_fields_win_over_names():
    model = model_config("gpt2", "micro", depth=2, tied=False)
    assert (model.depth, model.tied) == (2, False)
    assert dataclasses.replace(model, depth=6, tied=True) == model_config(
        "gpt2", "micro"
    )


def test_heads_and_width_take_their_followers_along():
    for read in (
        lambda **fields: model_config("modern", "nano", **fields),
        lambda **fields: from_dict({"model": fields}).model,
        lambda **fields: from_dict({"model": {"size": "nano", **fields}}).model,
    ):
        assert read(heads=8).kv_heads == 8
        assert read(heads=8, kv_heads=2).kv_heads == 2
        assert read(width=64).hidden == 256
        assert read(width=64, hidden=100).hidden == 100
        assert read(width=64).head_dim == 32


def test_a_name_changes_only_what_it_is_about():
    own = {"depth": 9, "softcap": 3.0, "dtype": "bfloat16", "vocab": 300}
    base = from_dict({"model": own, "train": {"steps": 7}})
    sized = from_dict({"model": {"size": "micro"}}, base)
    assert sized.train.steps == 7
    assert sized.model == dataclasses.replace(
        model_config("modern", "micro"), softcap=3.0, dtype="bfloat16", vocab=300
    )
    shaped = from_dict({"model": {"preset": "gpt2"}}, base)
    assert shaped.model == dataclasses.replace(
        model_config("gpt2", "nano"), depth=9, dtype="bfloat16", vocab=300
    )


def test_a_stored_config_is_read_back_as_it_is():
    odd = {"preset": "gpt2", "size": "micro", "heads": 8, "kv_heads": 2, "hidden": 7}
    config = from_dict({"name": "odd", "model": odd, "optim": {"name": "lion"}})
    assert from_dict(to_dict(config)) == config
    assert from_dict(to_dict(config), from_dict({"model": {"size": "70M"}})) == config


def test_the_dict_is_left_alone():
    values = {"model": {"heads": 8, "size": "nano"}}
    from_dict(values)
    assert values == {"model": {"heads": 8, "size": "nano"}}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"preset": "modrn"}, "model.preset: 'modrn': did you mean 'modern'"),
        ({"preset": "zzzz"}, "choose from gpt2, modern"),
        ({"size": "naon"}, "model.size: 'naon': did you mean 'nano'"),
        ({"size": 5}, "model.size: 5"),
        ({"size": None}, "model.size: None"),
        ({"preset": ["modern"]}, "model.preset"),
        ({"heads": "8"}, "model.heads: expected int, got '8'"),
        ({"width": "8"}, "model.width: expected int, got '8'"),
        ({"width": None}, "model.width: expected int, got None"),
        ({"dept": 8}, "unknown key 'model.dept': did you mean 'depth'"),
        (5, "model: expected an object, got 5"),
    ],
)
def test_wrong_names_and_values_are_named(values, text):
    with pytest.raises(UserError) as error:
        from_dict({"model": values})
    assert text in str(error.value)


@pytest.mark.parametrize("key", ["preset", "size", "depht"])
def test_model_config_refuses_unknown_names_and_fields(key):
    wrong: dict[str, Any] = {key: "x"}
    with pytest.raises(UserError, match=key):
        model_config(**wrong)


@pytest.mark.parametrize("values", [[], None, 5, "text"])
def test_what_is_no_dict_is_refused(values):
    with pytest.raises(UserError, match="expected an object"):
        from_dict(values)


@pytest.mark.parametrize(("size", "millions"), [("14M", 14), ("70M", 70)])
def test_a_size_that_names_its_parameters_has_them(size, millions):
    model = model_config("modern", size, vocab=50304)
    assert parameters(model) == pytest.approx(millions * 1e6, rel=0.02)
