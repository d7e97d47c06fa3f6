import dataclasses
import json

import pytest

from uets_jax.config import DataConfig, MeshConfig
from uets_jax.data.store import prepare, write_store
from uets_jax.errors import UserError
from uets_jax.measure.devices import find
from uets_jax.train.footprint import Fit
from uets_jax.train.plan import as_json, make_plan, text, text_of


@pytest.fixture(scope="module")
def own(tiny, corpus):
    """TINY on the test corpus."""
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    return dataclasses.replace(tiny, data=data)


@pytest.fixture(autouse=True, scope="module")
def what_fits():
    """Known settings for each device instead of traces with many."""
    with pytest.MonkeyPatch.context() as patch:
        mend = {"small": Fit(4, True, 10**6), "none": None}
        patch.setattr("uets_jax.train.plan.fits", lambda c, d, *own: mend[d.name])
        largest = {"cpu": 99, "small": 6, "none": 0}
        patch.setattr(
            "uets_jax.train.plan.largest_batch", lambda c, d, *own: largest[d.name]
        )
        yield


@pytest.fixture(scope="module")
def plan(own, what_fits):
    """Of a CPU, a card that is too small for the batch, and one that is for any."""
    cpu = find("cpu")
    small = dataclasses.replace(cpu, name="small", memory_bytes=2e6)
    none = dataclasses.replace(cpu, name="none", memory_bytes=1e6)
    return make_plan(own, [cpu, small, none], mfu=0.5)


def test_the_text_has_a_row_for_each_device(plan, tmp_path):
    lines = text(plan, tmp_path).splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert f"{plan.offers[0].estimate.parameters:,} parameters" in rows["model"]
    assert "256 per step x 8 steps = 2,048" in rows["tokens"]
    assert "evaluation" in rows["FLOPs"]
    assert "activations" in rows["memory"]
    assert "(estimate)" in rows["memory"]
    assert str(tmp_path) in rows["output"]
    assert rows["cpu"].endswith("yes; up to batch 99")
    assert "$" in rows["cpu"]
    assert "output" not in text(plan).split()


def test_a_card_that_is_too_small_is_told_how(plan):
    assert [offer.fits for offer in plan.offers] == [True, False, False]
    page = text(plan)
    assert "with --train.microbatches 4 --model.remat, or batch 6\n" in page
    assert "no: take a smaller model or batch" in page


def test_the_json_holds_what_the_text_says(plan):
    found = json.loads(as_json(plan))
    row, small, none = found["devices"]
    assert (found["name"], found["vocab"]) == ("tiny", 64)
    assert (row["device"], row["mfu"], row["fits"]) == ("cpu", 0.5, True)
    assert row["flops"] == plan.offers[0].estimate.flops
    assert [d["largest_batch"] for d in (row, small, none)] == [99, 6, 0]
    assert row["fits_with"] is none["fits_with"] is None
    assert small["fits_with"] == {"microbatches": 4, "remat": True}


def test_several_devices_are_named(own):
    train = dataclasses.replace(own.train, mesh=MeshConfig(data=2))
    page = text(make_plan(dataclasses.replace(own, train=train), [find("cpu")]))
    assert "2 x cpu" in page
    assert "on each of 2 devices" in page


@pytest.mark.parametrize(
    ("tokenizer", "vocab"), [("bytes", 257), ("bpe:300", 300), ("absent.json", 0)]
)
def test_the_vocabulary_is_known_if_the_tokenizer_tells(own, tokenizer, vocab):
    data = dataclasses.replace(own.data, tokenizer=tokenizer)
    assert text_of(data) == (tokenizer, vocab, None)


def test_an_unknown_vocabulary_counts_as_one_row(own, plan):
    data = dataclasses.replace(own.data, tokenizer="absent.json")
    model = dataclasses.replace(own.model, vocab=0)
    config = dataclasses.replace(own, data=data, model=model)
    unknown = make_plan(config, [find("cpu")])
    tables = 2 * 64 * own.model.width
    known = plan.offers[0].estimate.parameters
    assert f"{known - tables:,} parameters, embedding not counted" in text(unknown)
    assert json.loads(as_json(unknown))["vocab"] is None


def test_a_tokenizer_file_and_a_token_store_are_looked_at(own, tmp_path):
    data = dataclasses.replace(own.data, tokenizer="bpe:270")
    store = write_store(str(tmp_path / "store"), data)
    counted = store.meta["splits"]["valid"]["tokens"]
    stored = DataConfig(source=f"tokens:{tmp_path / 'store'}")
    assert text_of(stored) == ("bpe:270", 270, counted)
    file = f"{tmp_path / 'store' / 'tokenizer.json'}"
    own_file = dataclasses.replace(data, tokenizer=file)
    assert text_of(own_file) == (file, 270, None)


def test_builtin_text_that_was_tokenized_before_is_measured(tmp_path):
    data = DataConfig(tokenizer="bytes", cache=str(tmp_path))
    assert text_of(data) == ("bytes", 257, None)
    store = prepare(data)
    valid = store.meta["splits"]["valid"]["tokens"]
    assert text_of(data) == ("bytes", 257, valid)


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="matches no file"):
        text_of(DataConfig(source="files:absent/*.txt"))
