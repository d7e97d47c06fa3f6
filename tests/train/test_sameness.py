import pathlib
import shutil

import optax
import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.models.presets import read_config
from uets_jax.report.metrics import read_metrics
from uets_jax.train.loop import train
from uets_jax.train.sameness import check_same_run


@pytest.fixture(scope="module")
def config(config, corpus, tmp_path_factory):
    """Four steps on a copy of the corpus, whose text a test may change."""
    text = tmp_path_factory.mktemp("text") / "corpus"
    shutil.copytree(corpus, text)
    source = {"source": f"files:{text}/*.txt"}
    return replace_from_dict(config, {"data": source, "train": {"steps": 4}})


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
        train(replace_from_dict(config, {room: {**changes}}), out, resume=True)
    assert (out / "config.json").read_bytes() == before


def test_cadences_mesh_and_cache_may_differ(out):
    same = read_config(out / "config.json")
    other = replace_from_dict(
        same, {"train": {"keep": 9, "log_every": 1, "mesh": {"data": 8}}}
    )
    other = replace_from_dict(other, {"data": {"cache": "elsewhere"}})
    assert check_same_run(other, out / "config.json") == []
    with pytest.raises(UserError, match=r"train\.seed"):
        check_same_run(
            replace_from_dict(other, {"train": {"seed": 1}}), out / "config.json"
        )


def test_other_overrides_are_refused(config, out):
    with pytest.raises(UserError, match=r"overrides \[\], now \['tx'\]"):
        train(config, out, resume=True, overrides={"tx": optax.sgd(0.1)})


def test_nothing_is_compared_where_nothing_is_stored(config, tmp_path):
    assert check_same_run(config, tmp_path / "config.json") == []


@pytest.fixture
def more_text(config):
    """The corpus has one more file while a test runs."""
    folder = config.data.source.removeprefix("files:").removesuffix("*.txt")
    path = pathlib.Path(folder, "new.txt")
    path.write_text("something else")
    yield
    path.unlink()


@pytest.mark.usefixtures("more_text")
def test_text_that_changed_is_refused(config, out):
    refused = r"trained with other data .* --allow data\.source"
    with pytest.raises(UserError, match=refused):
        train(config, out, resume=True)


def test_a_folder_that_cannot_be_made_is_one_clear_line(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Not a directory") as error:
        train(config, tmp_path / "file" / "run")
    assert "\n" not in str(error.value)


def test_what_is_allowed_may_differ_and_is_told(config, out):
    longer = replace_from_dict(config, {"train": {"steps": 6}})
    longer = replace_from_dict(longer, {"optim": {"learning_rate": 1e-3}})
    with pytest.raises(UserError, match=r"optim\.learning_rate.*--allow optim"):
        train(longer, out, resume=True, allow=("train.steps",))
    allow = ("train.steps", "optim")
    result = train(longer, out, resume=True, allow=allow)
    assert result.summary["steps"] == 6
    assert float(result.state.hypers.learning_rate) == pytest.approx(1e-3)
    assert float(result.state.hypers.steps) == 6
    assert read_config(out / "config.json").train.steps == 6
    records = read_metrics(out / "metrics.jsonl")
    told = [r["detail"] for r in records if r.get("event") == "allowed"]
    assert told == [
        "optim.learning_rate changed from 0.003 to 0.001",
        "train.steps changed from 4 to 6",
    ]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("more_text")
def test_text_that_changed_may_be_allowed(config, out):
    longer = replace_from_dict(config, {"train": {"steps": 5}})
    allow = ("train.steps", "data")
    assert train(longer, out, resume=True, allow=allow).summary["steps"] == 5


def test_another_shape_is_refused_even_when_allowed(config, out):
    with pytest.raises(UserError, match="in the checkpoint but"):
        train(
            replace_from_dict(config, {"model": {"depth": 3}}),
            out,
            resume=True,
            allow=("model",),
        )


@pytest.mark.parametrize(
    ("word", "hint"), [("optim.learning-rate", "optim.learning_rate"), ("dat", "data")]
)
def test_a_word_that_allows_nothing_is_refused(word, hint, config, out):
    with pytest.raises(UserError, match=f"--allow {word}: did you mean '{hint}'"):
        train(config, out, resume=True, allow=(word,))


def test_a_run_cannot_be_made_shorter_than_it_is(config, out):
    shorter = replace_from_dict(config, {"train": {"steps": 3}})
    with pytest.raises(UserError, match=r"train\.steps: 3 is less than the 4"):
        train(shorter, out, resume=True, allow=("train.steps",))
