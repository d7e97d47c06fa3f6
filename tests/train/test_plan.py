import dataclasses
import json

import pytest

from uets_jax.config import DataConfig, MeshConfig
from uets_jax.data.store import prepare, write_store
from uets_jax.errors import UserError
from uets_jax.measure.devices import find
from uets_jax.train.plan import as_json, make_plan, text, text_of


@pytest.fixture(scope="module")
def own(tiny, corpus):
    """TINY on the test corpus."""
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    return dataclasses.replace(tiny, data=data)


def test_the_text_has_a_row_for_each_device(own, tmp_path):
    plan = make_plan(own, [find("cpu"), find("h100")])
    page = text(plan, tmp_path)
    lines = page.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert f"{plan.offers[0].estimate.parameters:,} parameters" in rows["model"]
    assert "256 per step x 8 steps = 2,048" in rows["tokens"]
    assert "evaluation" in rows["FLOPs"]
    assert "activations" in rows["memory"]
    assert "(estimate)" in rows["memory"]
    assert str(tmp_path) in rows["output"]
    for name in ("cpu", "h100"):
        assert "yes; up to batch" in rows[name]
        assert "$" in rows[name]
    assert "output" not in text(plan).split()


def test_the_json_holds_what_the_text_says(own):
    plan = make_plan(own, [find("cpu")], mfu=0.5)
    found = json.loads(as_json(plan))
    [row] = found["devices"]
    estimate = plan.offers[0].estimate
    assert (found["name"], found["vocab"]) == ("tiny", 64)
    assert (row["device"], row["mfu"], row["fits"]) == ("cpu", 0.5, True)
    assert row["flops"] == estimate.flops
    assert row["fits_with"] is None
    assert row["largest_batch"] > own.train.batch


def test_a_card_that_is_too_small_is_told_how(own):
    whole = make_plan(own, [find("cpu")]).offers[0].estimate.memory_bytes
    small = dataclasses.replace(find("cpu"), memory_bytes=0.6 * whole)
    plan = make_plan(own, [small])
    [offer] = plan.offers
    assert not offer.fits
    assert f"with --train.microbatches {offer.mend[0]}" in text(plan)
    none = dataclasses.replace(find("cpu"), memory_bytes=1000)
    assert "no: take a smaller model or batch" in text(make_plan(own, [none]))


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
    model = dataclasses.replace(own.model, vocab=0)
    config = dataclasses.replace(own, data=data, model=model)
    plan = make_plan(config, [find("cpu")])
    assert plan.vocab == vocab
    assert ("embedding not counted" in text(plan)) is (vocab == 0)
    assert json.loads(as_json(plan))["vocab"] == (vocab or None)


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
