"""Texts as token stores: what arms train on, tune on, and are read on once.

    clean      WikiText-2; its validation articles in two halves
    encyclopedic
               that domain of the multi-domain corpus; its held-out documents likewise
    mixture    the noisy pool of `experiments.pool`; the target's held-out documents in
               two halves

Each training text has a store `NAME.a` to tune on (its validation text is valid-A) and
one `NAME.b` to report (valid-B); both hold the same training tokens. All stores of a
track have one tokenizer, trained on the track's whole training text.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.arms import VOCAB
from experiments.pool import BYTES_PER_TOKEN, build
from uets_jax.config import DataConfig
from uets_jax.data.composition import Mixture
from uets_jax.data.files import open_bytes
from uets_jax.data.labelled import inputs
from uets_jax.data.store import TokenStore, open_store, write_store
from uets_jax.errors import UserError
from uets_jax.report.files import replace_text

HALVES = ("a", "b")
_TITLE = re.compile(r"(?m)^ = [^=\n]+ = $")


def articles(text: str) -> list[str]:
    """The articles of a WikiText file, cut before each title line."""
    starts = [found.start() for found in _TITLE.finditer(text)]
    parts = [text[a:b].strip() for a, b in itertools.pairwise([*starts, len(text)])]
    return [part for part in parts if part]


def clean(data: Path, folder: Path) -> None:
    """Writes the stores `clean.a` and `clean.b` into the folder, if they aren't there.

    The release splits by article; 0.2 to 0.3 % of the validation articles' 13-grams of
    words stand in the training text, too.

    Raises:
      UserError: if `data/wikitext-2` is missing, or is not what the stores are made of.
    """
    files = [data / "wikitext-2" / f"{name}.txt.xz" for name in ("train", "valid")]
    check_inputs(folder, "clean", files)
    if _there(folder, "clean"):
        return
    read = lambda name: articles(_text(data / "wikitext-2" / f"{name}.txt.xz"))
    held_out = read("valid")
    _lines(folder / "clean.jsonl", read("train"))
    for place, half in enumerate(HALVES):
        _lines(folder / f"clean.valid_{half}.jsonl", held_out[place::2])
    stores(folder, "clean", "clean", f"bpe:{VOCAB}")


def encyclopedic(data: Path, folder: Path) -> None:
    """Writes the stores `encyclopedic.a` and `encyclopedic.b`, likewise.

    Raises:
      UserError: if the labelled corpus is missing, or is another one than the stores'.
    """
    train, valid = inputs(data)
    name = "encyclopedic"
    check_inputs(folder, name, [Path(path) for path in (*train, *valid)])
    if _there(folder, name):
        return
    read_all = lambda paths: itertools.chain.from_iterable(map(rows, map(Path, paths)))
    own = lambda paths: [r["text"] for r in read_all(paths) if r["domain"] == name]
    held_out = own(valid)
    _lines(folder / f"{name}.jsonl", own(train))
    for place, half in enumerate(HALVES):
        _lines(folder / f"{name}.valid_{half}.jsonl", held_out[place::2])
    stores(folder, name, name, f"bpe:{VOCAB}")


def mixture(data: Path, folder: Path) -> None:
    """Writes the pool and the stores `mixture.a` and `mixture.b`, likewise.

    Raises:
      UserError: if the labelled corpus is missing, or is another one than the pool's.
    """
    train, valid = inputs(data)
    check_inputs(folder, "mixture", [Path(path) for path in (*train, *valid)])
    if _there(folder, "mixture"):
        return
    pool = folder / "pool"
    if not (pool / "pool.json").exists():
        build(Mixture(), data, pool, BYTES_PER_TOKEN)
    for half in HALVES:
        text = (pool / f"valid_{half}.jsonl").read_text("utf-8")
        replace_text(folder / f"mixture.valid_{half}.jsonl", text)
    texts = (row["text"] for row in rows(pool / "pool.jsonl"))
    _lines(folder / "mixture.jsonl", texts)
    stores(folder, "mixture", "mixture", f"bpe:{VOCAB}")


def check_inputs(folder: Path, name: str, files: Sequence[Path]) -> None:
    """Remembers the sha256 of a track's input files, and compares from then on.

    Raises:
      UserError: naming the first file that is missing or has changed.
    """
    now = {path.name: _sha256(path) for path in files}
    path = folder / f"{name}.inputs.json"
    if not path.exists():
        replace_text(path, json.dumps(now, indent=1) + "\n")
    then = json.loads(path.read_text("utf-8"))
    for one in sorted(now.keys() | then.keys()):
        if now.get(one) != then.get(one):
            raise UserError(
                f"--data-dir: {one} is not what {folder} was made of; give the same "
                "text or another --runs"
            )


def _sha256(path: Path) -> str:
    if not path.exists():
        raise UserError(f"--data-dir: {path} is missing")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cleaned(
    folder: Path, name: str, keep: Callable[[list[str]], Mapping[str, Any]]
) -> None:
    """Writes stores of a part of the pool, with the pool's tokenizer.

    Args:
      folder: of the stores; `mixture` is there.
      name: of the new stores.
      keep: from the texts of the pool to what `NAME.json` says of them, and under
        "texts" those that are kept, in order.
    """
    if _there(folder, name):
        return
    texts = [row["text"] for row in rows(folder / "pool" / "pool.jsonl")]
    said = dict(keep(texts))
    _lines(folder / f"{name}.jsonl", said.pop("texts"))
    replace_text(folder / f"{name}.json", json.dumps(said, indent=1) + "\n")
    tokenizer = folder / "mixture.a" / "tokenizer.json"
    stores(folder, name, "mixture", str(tokenizer))


def stores(folder: Path, name: str, track: str, tokenizer: str) -> None:
    """Writes `NAME.a` and `NAME.b` from `NAME.jsonl` and the track's halves."""
    for half in HALVES:
        if not (folder / f"{name}.{half}").exists():
            source = f"jsonl:{folder}/{name}.jsonl"
            valid = f"jsonl:{folder}/{track}.valid_{half}.jsonl"
            words = DataConfig(source=source, valid_source=valid, tokenizer=tokenizer)
            write_store(folder / f"{name}.{half}", words)


def store(folder: Path, name: str, half: str) -> str:
    """The source of a training text, to tune on (a) or to report (b)."""
    return f"tokens:{folder / f'{name}.{half}'}"


def opened(folder: Path, name: str) -> TokenStore:
    """The store to tune on."""
    return open_store(folder / f"{name}.a")


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in _text(path).split("\n") if line]


def _there(folder: Path, name: str) -> bool:
    return all((folder / f"{name}.{half}" / "meta.json").exists() for half in HALVES)


def _text(path: Path) -> str:
    if not path.exists():
        raise UserError(f"--data-dir: {path} is missing")
    with open_bytes(str(path)) as stream:
        return stream.read().decode()


def _lines(path: Path, texts: Iterable[str]) -> None:
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    replace_text(path, "".join(lines))
