"""A real data set, built from local text, without TensorFlow."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from uets_jax.config import DataConfig
from uets_jax.data.corpus import documents
from uets_jax.data.store import prepare
from uets_jax.errors import UserError
from uets_jax.train import loop

TEXTS = [f"Beispiel {i} über\n" for i in range(40)]
CONFIGS = {"first": ["text", "title"], "one": ["body"], "two": ["a", "b"]}


def build(folder) -> None:
    """Three configs of one data set; the text features of each are in CONFIGS."""
    import tensorflow_datasets as tfds

    text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)

    class LocalText(tfds.core.GeneratorBasedBuilder):
        # In a package it would look for its folder with `importlib_resources`.
        __module__ = "__main__"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CONFIGS]  # noqa: RUF012

        def _info(self):
            kinds = dict.fromkeys(CONFIGS[self.builder_config.name], text)
            features = tfds.features.FeaturesDict({"number": number, **kinds})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            splits = {"train": TEXTS, "test": [*TEXTS[:3], ""]}
            return {name: self._generate_examples(t) for name, t in splits.items()}

        def _generate_examples(self, texts):
            names = CONFIGS[self.builder_config.name]
            for i, text in enumerate(texts):
                yield i, {"number": i, **dict.fromkeys(names, text)}

    for name in CONFIGS:
        builder = LocalText(data_dir=folder, config=name, file_format="array_record")
        builder.download_and_prepare()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    build(path)
    return path


@pytest.fixture(autouse=True)
def _data_dir(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))


def test_a_data_set_becomes_a_token_store_without_tensorflow(tmp_path):
    data = DataConfig(
        source="tfds:local_text/first",
        valid_fraction=0.2,
        tokenizer="bytes",
        cache=str(tmp_path),
    )
    store = prepare(data)
    tokens = np.concatenate([store.tokens("train"), store.tokens("valid")])
    assert sum(s["documents"] for s in store.meta["splits"].values()) == len(TEXTS)
    parts = np.split(tokens, np.flatnonzero(tokens == 256)[1:])
    assert sorted(map(store.tokenizer.decode, parts)) == sorted(TEXTS)
    assert "tensorflow" not in sys.modules


def test_a_data_set_is_trained_on(tiny, tmp_path):
    data = dataclasses.replace(tiny.data, source="tfds:local_text/first")
    model = dataclasses.replace(tiny.model, vocab=0)
    train = dataclasses.replace(tiny.train, steps=4, batch=2)
    config = dataclasses.replace(tiny, data=data, model=model, train=train)
    summary = loop.train(config, tmp_path / "run").summary
    assert summary["steps"] == 4
    assert summary["bits_per_byte"] < 8.1


def test_splits_slices_and_other_names_of_the_text():
    read = lambda spec: list(documents(f"tfds:local_text/{spec}"))
    assert sorted(read("one")) == sorted(TEXTS)
    assert read("one:train[:25%]") == read("one")[:10]
    with pytest.raises(UserError, match=r"example \d: empty"):
        read("first:test")
    reader = documents("tfds:local_text/first:test", "skip")
    assert sorted(reader) == TEXTS[:3]
    assert reader.skipped == {"empty": 1}


BAD = {
    "local_text/first:valid": "no split 'valid'; give test, train",
    "local_text/two": r"2 text features, none of them 'text' \(features: a, b, number",
    "local_text/zero": "local_text/zero is not prepared in .*download_and_prepare",
    "wikipedia": "wikipedia is not prepared in",
    "Odd name!": "Odd name! is not prepared in",
}


@pytest.mark.parametrize("spec", BAD)
def test_what_is_not_there_is_told_in_one_line_and_never_fetched(spec):
    with pytest.raises(UserError, match=BAD[spec]) as caught:
        list(documents(f"tfds:{spec}", "skip"))
    assert "\n" not in str(caught.value)


def test_a_format_without_random_access_is_told(folder):
    path = folder / "local_text" / "two" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    features = path.with_name("features.json")
    features.write_text(features.read_text().replace('"b"', '"text"'))
    with pytest.raises(UserError, match="a format without random access; delete it"):
        list(documents("tfds:local_text/two"))


def test_the_package_is_asked_for(monkeypatch):
    module = "tensorflow_datasets.core.read_only_builder"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        list(documents("tfds:local_text"))
