"""Token stores: a corpus as two flat files of token ids.

A store is a folder with `train.bin` and `valid.bin` (little-endian uint16 or uint32),
`tokenizer.json` and `meta.json`. Each bin is `[eot] document [eot] document ...`, so
every token of every text is a target exactly once.
"""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from uets_jax.config import DataConfig
from uets_jax.data.folders import cache_folder, fresh_folder
from uets_jax.data.loading import from_json
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.data.writer import FORMAT, VERSION, Plan, fit_tokenizer, make_plan, write
from uets_jax.errors import UserError, nearest

SPLITS = ("train", "valid")


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An open store.

    meta: the content of `meta.json`: format, version, dtype, source, source_sha256,
      valid_source, valid_source_sha256, valid_fraction, tokenizer (its spec),
      tokenizer_sha256, skipped (documents by reason) and, for each of the `splits`,
      tokens, documents, bytes (of the UTF-8 text) and sha256.
    """

    directory: str
    tokenizer: Tokenizer
    meta: dict[str, Any]

    def tokens(self, split: str) -> np.memmap:
        """The ids of "train" or "valid", on disk, one dimension.

        Raises:
          UserError: another split.
        """
        if split not in SPLITS:
            raise UserError(f"split {split!r}: {nearest(split, SPLITS)}")
        dtype = np.dtype(self.meta["dtype"]).newbyteorder("<")
        return np.memmap(f"{self.directory}/{split}.bin", dtype, "r")

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the content: the tokens of both splits and the tokenizer."""
        splits = [self.meta["splits"][name]["sha256"] for name in SPLITS]
        content = " ".join([*splits, self.tokenizer.hash])
        return hashlib.sha256(content.encode()).hexdigest()


def prepare(data: DataConfig) -> TokenStore:
    """Opens the store of a data config; writes it first where that is still to be done.

    The cache is addressed by content: every call reads the sources, and a store is
    written when documents, split or tokenizer are new. Two processes may do so at once.
    `tokens:DIR` has its own tokenizer and split; those of `data` are not looked at.

    Raises:
      UserError: a bad source, document, tokenizer, split or store.
    """
    scheme, _, directory = data.source.partition(":")
    if scheme == "tokens":
        if data.valid_source:
            raise UserError("data.valid_source: tokens:DIR has its own validation text")
        return open_store(directory)
    plan = make_plan(data)
    path = cache_folder(data.cache, "stores") / plan.key[:32]
    if not path.exists():
        _write(path, data, plan)
    return open_store(path)


def write_store(directory: str | os.PathLike[str], data: DataConfig) -> TokenStore:
    """Writes `data` as a store of its own, to be read as `tokens:directory`.

    Raises:
      UserError: the folder holds something already, or as `prepare`.
    """
    path = Path(directory).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: holds something already; name a new folder")
    _write(path, data, make_plan(data))
    return open_store(path)


def _write(path: Path, data: DataConfig, plan: Plan) -> None:
    tokenizer = fit_tokenizer(plan, cache_folder(data.cache, "tokenizers"))
    with fresh_folder(path) as folder:
        write(folder, plan, tokenizer)


def open_store(directory: str | os.PathLike[str]) -> TokenStore:
    """Opens a store after a look at its version and the sizes of its files.

    Raises:
      UserError: not a store, another version, or files that don't fit together.
    """
    directory = Path(directory).expanduser()
    meta, path = _meta(directory), directory / "tokenizer.json"
    for split in SPLITS:
        file = directory / f"{split}.bin"
        size = file.stat().st_size if file.is_file() else 0
        want = meta["splits"][split]["tokens"] * np.dtype(meta["dtype"]).itemsize
        if size != want:
            raise UserError(
                f"{file}: {size} bytes where {want} were written; delete the folder "
                "and write it again"
            )
    tokenizer = from_json(_read(path), str(path))
    if tokenizer.hash != meta["tokenizer_sha256"]:
        raise UserError(f"{path}: not the tokenizer of this store; write it again")
    return TokenStore(str(directory), tokenizer, meta)


def verify(store: TokenStore) -> None:
    """Reads all tokens and compares their checksums.

    Raises:
      UserError: naming the damaged file.
    """
    for split in SPLITS:
        with open(f"{store.directory}/{split}.bin", "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != store.meta["splits"][split]["sha256"]:
            raise UserError(
                f"{stream.name}: damaged; delete the folder, write it again"
            )


def _meta(directory: Path) -> dict[str, Any]:
    path = directory / "meta.json"
    text = _read(path)
    try:
        meta = json.loads(text)
        known = meta["format"] == FORMAT and meta["dtype"] in ("uint16", "uint32")
        known &= {"version", "tokenizer_sha256"} <= set(meta)
        for split in SPLITS:
            known &= int(meta["splits"][split]["tokens"]) > 0
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path}: not of a token store; see `uets tokenize`")
    if meta["version"] != VERSION:
        raise UserError(
            f"{path}: format {meta['version']}, this program reads {VERSION}; write it "
            "again"
        )
    return meta


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "not UTF-8")
        raise UserError(
            f"{path}: can't be read ({why}); a token store is written by "
            "`uets tokenize SOURCE DIR`"
        ) from None
