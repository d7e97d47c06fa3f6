import dataclasses
import shutil

import optax
import pytest

from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.models.presets import read_config
from uets_jax.train.loop import train
from uets_jax.train.run import check_same_run


def with_(config, room, **changes):
    part = dataclasses.replace(getattr(config, room), **changes)
    return dataclasses.replace(config, **{room: part})


@pytest.fixture(scope="module")
def config(tiny, corpus, tmp_path_factory):
    """TINY on a copy of the corpus, whose text a test may change."""
    text = tmp_path_factory.mktemp("text") / "corpus"
    shutil.copytree(corpus, text)
    source = with_(tiny, "data", source=f"files:{text}/*.txt")
    return with_(with_(source, "model", vocab=0), "train", steps=4)


@pytest.fixture
def out(config, run, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config, folder)
    return folder


@pytest.mark.parametrize(
    ("room", "changes", "culprit"),
    [
        ("train", {"seed": 7}, r"train\.seed is 0 there but 7 now"),
        ("train", {"batch": 16}, r"train\.batch is 8 there but 16 now"),
        ("train", {"steps": 9}, r"train\.steps is 4 there but 9 now"),
        ("optim", {"learning_rate": 1e-5}, r"optim\.learning_rate is 0\.003 there"),
        ("model", {"depth": 3}, r"model\.depth is 2 there but 3 now"),
        ("data", {"valid_fraction": 0.3}, r"data\.valid_fraction is 0\.1 there"),
    ],
)
def test_another_config_is_refused_and_the_stored_one_stays(
    room, changes, culprit, config, out
):
    before = (out / "config.json").read_bytes()
    with pytest.raises(UserError, match=culprit):
        train(with_(config, room, **changes), out, resume=True)
    assert (out / "config.json").read_bytes() == before


def test_cadences_mesh_and_cache_may_differ(out):
    same = read_config(out / "config.json")
    other = with_(same, "train", keep=9, log_every=1, mesh=MeshConfig(data=8))
    other = with_(other, "data", cache="elsewhere")
    assert check_same_run(other, out / "config.json") is None
    with pytest.raises(UserError, match=r"train\.seed"):
        check_same_run(with_(other, "train", seed=1), out / "config.json")


def test_other_overrides_are_refused(config, out):
    with pytest.raises(UserError, match=r"overrides \[\], now \['tx'\]"):
        train(config, out, resume=True, overrides={"tx": optax.sgd(0.1)})


def test_nothing_is_compared_where_nothing_is_stored(config, tmp_path):
    assert check_same_run(config, tmp_path / "config.json") is None


def test_text_that_changed_is_refused(config, out):
    added = f"{config.data.source.removeprefix('files:').removesuffix('*.txt')}new.txt"
    with open(added, "w") as stream:
        stream.write("something else")
    with pytest.raises(UserError, match="trained on other data"):
        train(config, out, resume=True)


def test_a_folder_that_cannot_be_made_is_one_clear_line(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Not a directory") as error:
        train(config, tmp_path / "file" / "run")
    assert "\n" not in str(error.value)
