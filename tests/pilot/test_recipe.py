import shlex

import pytest

from uets_jax import recipes
from uets_jax.config import ExperimentConfig
from uets_jax.flags import parse
from uets_jax.models.presets import from_dict
from uets_jax.options import Train
from uets_jax.pilot.methods import METHODS, combined
from uets_jax.pilot.recipe import command, departures, recommended

NAMES = tuple(method.name for method in METHODS)
CONFIGS = [
    {},
    {"model": {"preset": "gpt2", "size": "tiny"}, "optim": {"name": "adamw"}},
    {"model": {"width": 64, "hidden": 512, "heads": 2, "kv_heads": 1}},
    {"model": {"preset": "gpt2", "tied": False, "norm": "rms", "depth": 4}},
    {"data": {"source": "files:my texts/**/*.txt", "tokenizer": "bytes"}},
    {"optim": {"learning_rate": 0.1 + 0.2, "weights": "", "cautious": True}},
    {"select": {"knobs": {"natural": -1.5}}, "train": {"mesh": {"data": 2}}},
]


def read(line: str) -> tuple[ExperimentConfig, str]:
    """What `uets` makes of a command line."""
    words = shlex.split(line)
    assert words[:2] == ["uets", "train"]
    given = parse("uets train", Train, words[2:])
    out = given.pop("out")
    return recipes.configure(given), out


@pytest.mark.parametrize("values", CONFIGS)
def test_the_command_line_leads_to_the_config(values):
    config = from_dict(values)
    assert read(command(config, "runs/a b")) == (config, "runs/a b")


def test_all_methods_fit_on_a_command_line():
    config = combined(from_dict({"train": {"steps": 99}}), NAMES)
    line = command(config, "runs/x")
    assert read(line)[0] == config
    assert "--select.method aql" in line
    assert "--model.memory-trained false" in line


def test_a_preset_and_a_size_bring_their_fields_along():
    config = from_dict({"model": {"preset": "gpt2", "size": "gpt2-small"}})
    assert departures(config) == {
        "data.source": "builtin",
        "model.preset": "gpt2",
        "model.size": "gpt2-small",
    }


def test_the_recommended_run_spends_the_full_flops(given, free):
    flops = 1000.0 * free.step + free.counts
    config = recommended(given, ["start"], flops)
    assert config.train.steps == 1000
    assert config.train.start == "counts"
    assert recommended(given, [], flops).train.steps == 1050
    assert config.train.eval_every == given.train.eval_every
