"""`tfds:NAME[/CONFIG][:SPLIT]`: a TensorFlow Datasets data set, without TensorFlow.

Only what lies ready in $TFDS_DATA_DIR (else ~/tensorflow_datasets) is read; nothing is
ever downloaded or prepared here. TensorFlow Datasets gives random access, hence needs
no TensorFlow, to data sets prepared with `file_format="array_record"`.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from uets_jax.data.faults import BadDocument, Faults, usable
from uets_jax.errors import UserError


def read_tfds(rest: str, faults: Faults) -> Iterator[str]:
    """The texts of one split (default: train), in the order of its examples.

    Raises:
      UserError: the data set isn't prepared, has no such split or no one text feature.
    """
    name, _, split = rest.partition(":")
    builder = _find(name)
    key = _text_feature(builder, name)
    source = _source(builder, name, split or "train")
    for index in range(len(source)):
        try:
            yield usable(source[index][key])
        except BadDocument as bad:
            faults.report(f"tfds:{rest}, example {index}", bad)


def _find(name: str) -> Any:
    try:
        from tensorflow_datasets.core.read_only_builder import builder_from_files
    except ImportError:
        raise UserError(
            f"tfds:{name} needs a package: pip install tensorflow-datasets array-record"
        ) from None
    folder = os.path.expanduser(
        os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
    base, _, config = name.partition("/")
    try:
        return builder_from_files(base, data_dir=folder, config=config or None)
    except (ValueError, ImportError, OSError):
        raise UserError(
            f"tfds:{name} is not prepared in {folder}; set $TFDS_DATA_DIR or "
            + _how(name)
        ) from None


def _how(name: str) -> str:
    return (
        f"prepare it: python -c \"import tensorflow_datasets as t; t.builder('{name}', "
        "file_format='array_record').download_and_prepare()\""
    )


def _text_feature(builder: Any, name: str) -> str:
    """`text`, else the only feature that is one string."""
    features = dict(builder.info.features.items())
    texts = sorted(
        key
        for key, feature in features.items()
        if feature.shape == () and np.dtype(feature.np_dtype) == object
    )
    if "text" in texts:
        return "text"
    if len(texts) != 1:
        raise UserError(
            f"tfds:{name}: {len(texts)} text features, none of them 'text' "
            f"(features: {', '.join(sorted(features))}); export it as JSON lines and "
            "use jsonl:GLOB:key"
        )
    return texts[0]


def _source(builder: Any, name: str, split: str) -> Any:
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError:
        raise UserError(
            f"tfds:{name} was prepared in a format without random access; delete it "
            f"and {_how(name)}"
        ) from None
    except ValueError:
        known = ", ".join(sorted(builder.info.splits))
        raise UserError(f"tfds:{name} has no split {split!r}; give {known}") from None
