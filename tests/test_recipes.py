"""Recipes: which configuration and which directory the given values lead to."""

import json
from pathlib import Path

import pytest

from uets_jax import recipes
from uets_jax.config import ExperimentConfig, to_json
from uets_jax.errors import UserError
from uets_jax.models.presets import from_dict
from uets_jax.validation import validate

WRONG_RECIPES = [
    ("not json", "recipe.json: not JSON"),
    ('{"train": {"steps": 5}', "recipe.json: not JSON"),
    ("[]", "expected an object"),
    ("5", "expected an object"),
    ("null", "expected an object"),
    ('{"trian": {}}', "did you mean 'train'?"),
    ('{"train": {"step": 5}}', "unknown key 'train.step': did you mean 'steps'?"),
    ('{"train": 5}', "train: expected an object"),
    ('{"model": []}', "model: expected an object"),
    ('{"train": {"steps": "5"}}', "train.steps: expected int"),
    ('{"train": {"steps": 5.0}}', "train.steps: expected int"),
    ('{"train": {"steps": true}}', "train.steps: expected int"),
    ('{"train": {"steps": null}}', "train.steps: expected int"),
    ('{"model": {"tied": 1}}', "model.tied: expected bool"),
    ('{"model": {"width": "64"}}', "model.width: expected int"),
    ('{"model": {"width": {}}}', "model.width: expected int"),
    ('{"model": {"heads": "2"}}', "model.heads: expected int"),
    ('{"model": {"preset": ["modern"]}}', "model.preset"),
    ('{"model": {"size": 5}}', "model.size"),
    ('{"optim": {"name": "muonn"}}', "optim.name: 'muonn': did you mean 'muon'?"),
    ('{"optim": {"learning_rate": NaN}}', "optim.learning_rate"),
    ('{"optim": {"learning_rate": -1}}', "optim.learning_rate"),
    ("[" * 100_000, "recipe.json: not JSON"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(elsewhere):
    """The directory of a run of three steps."""
    path = elsewhere / "stored"
    path.mkdir()
    config = from_dict({"name": "stored", "train": {"steps": 3}})
    (path / "config.json").write_text(to_json(config))
    return path


@pytest.mark.parametrize(("text", "culprit"), WRONG_RECIPES)
def test_a_wrong_recipe_is_named(elsewhere, text, culprit):
    (elsewhere / "recipe.json").write_text(text)
    with pytest.raises(UserError) as error:
        recipes.configure({}, "recipe.json")
    assert culprit in str(error.value)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"train":\n {"steps" 5}}', "line 2 column 11: Expecting ':' delimiter"),
        (b"", "line 1 column 1: Expecting value"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"train": {"steps": ' + b"9" * 5000 + b"}}", "4300 digits"),
    ],
)
def test_a_recipe_that_is_not_json_says_how_to_mend_it(elsewhere, raw, why):
    (elsewhere / "recipe.json").write_bytes(raw)
    with pytest.raises(UserError) as error:
        recipes.read_recipe("recipe.json")
    said = str(error.value)
    assert said.startswith("recipe.json: not JSON (")
    assert why in said
    assert said.endswith("; mend the file or print a valid one with --print-config")
    assert "\n" not in said


def test_unreadable_recipes_are_named(elsewhere):
    (elsewhere / "folder.json").mkdir()
    (elsewhere / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("folder.json", "bytes.json", "absent.json"):
        with pytest.raises(UserError, match=name):
            recipes.read_recipe(name)


@pytest.mark.parametrize("recipe", sorted(p.stem for p in recipes.RECIPES.glob("*")))
def test_every_recipe_is_valid_and_bears_its_name(recipe):
    config = recipes.read_recipe(recipe)
    assert config == validate(config)
    assert config.name == recipe


def test_the_recipes_that_the_documents_name_exist():
    known = {p.stem for p in recipes.RECIPES.glob("*.json")}
    assert {"quickstart", "tiny", "gpt2-nano"} <= known


def test_nothing_given_is_the_default_config():
    assert recipes.configure({}) == ExperimentConfig()


def test_single_fields_win_over_preset_and_size_over_recipe(elsewhere):
    recipe = {
        "model": {"depth": 9, "softcap": 3.0, "dtype": "bfloat16", "remat": True},
        "train": {"steps": 7, "batch": 4},
    }
    (elsewhere / "r.json").write_text(json.dumps(recipe))
    values = {"train.steps": 8, "model.width": 64, "model.size": "micro"}
    config = recipes.configure(values, "r.json")
    assert (config.train.steps, config.train.batch) == (8, 4)
    assert (config.model.size, config.model.depth) == ("micro", 6)
    assert (config.model.width, config.model.hidden) == (64, 256)
    # the size is about dimensions: what else the recipe says stays
    assert (config.model.softcap, config.model.dtype) == (3.0, "bfloat16")
    assert config.model.remat


def test_a_preset_keeps_the_dimensions_and_a_single_field_beats_it():
    values = {"model.softcap": 7.0, "model.preset": "gpt2", "model.depth": 3}
    model = recipes.configure(values).model
    assert (model.position, model.norm, model.tied) == ("learned", "layer", True)
    assert (model.depth, model.width, model.softcap) == (3, 128, 7.0)


def test_heads_and_width_take_their_followers_along():
    model = recipes.configure({"model.heads": 6, "model.width": 48}).model
    assert (model.kv_heads, model.hidden) == (6, 192)
    model = recipes.configure({"model.heads": 6, "model.kv_heads": 2}).model
    assert (model.heads, model.kv_heads) == (6, 2)


def test_a_resumed_run_takes_the_stored_config_and_new_cadences(run):
    values = {"train.log_every": 1, "train.keep": 9, "train.steps": 3}
    config = recipes.configure_resumed(values, run)
    assert (config.name, config.train.steps) == ("stored", 3)
    assert (config.train.log_every, config.train.keep) == (1, 9)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.steps", 4),
        ("train.seed", 1),
        ("train.batch", 16),
        ("train.eval_tokens", 1),
        ("model.depth", 2),
        ("model.preset", "gpt2"),
        ("optim.learning_rate", 1.0),
        ("data.source", "files:x"),
        ("name", "other"),
        ("train.keep", 0),
    ],
)
def test_a_resumed_run_refuses_what_would_change_it(run, path, value):
    with pytest.raises(UserError, match=path.replace("_", "[_-]")):
        recipes.configure_resumed({path: value}, run)


def test_a_resumed_run_names_a_broken_config(run):
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        recipes.configure_resumed({}, run)


def test_a_run_is_a_directory_with_a_config(run, elsewhere):
    assert recipes.run_dir("stored") == Path("stored")
    for text in ("", "absent", str(elsewhere)):
        with pytest.raises(UserError):
            recipes.run_dir(text)


def test_a_new_run_goes_to_runs_or_where_out_says(run):
    assert recipes.new_dir("first", "") == Path("runs/first")
    assert recipes.new_dir("a/b", "here") == Path("here")
    with pytest.raises(UserError, match="--resume stored"):
        recipes.new_dir("first", "stored")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "é" * 128])
def test_a_name_that_cannot_be_a_directory_is_refused(name):
    with pytest.raises(UserError, match="can't name a directory"):
        recipes.new_dir(name, "")


def test_a_file_is_no_place_for_a_run(elsewhere):
    (elsewhere / "file").write_text("")
    for text in ("file", "file/run"):
        with pytest.raises(UserError, match="file is not a directory"):
            recipes.writable(Path(text))
