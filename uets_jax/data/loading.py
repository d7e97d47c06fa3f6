"""Tokenizers by name: a spec, a file, or JSON text."""

import json
import os

from uets_jax.data.bpe import from_merges, from_tokenizer_json
from uets_jax.data.tokenizer import BYTES, ByteTokenizer, Tokenizer
from uets_jax.errors import UserError


def from_json(text: str, where: str = "tokenizer") -> Tokenizer:
    """Reads `to_json()` back, or any byte-level BPE `tokenizer.json`.

    Raises:
      UserError: not JSON, or not a byte-level BPE.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: broken JSON ({error}); fetch it again") from None
    if data == BYTES:
        return ByteTokenizer()
    return from_tokenizer_json(data, where)


def load(path: str) -> Tokenizer:
    """A `tokenizer.json`, or a folder with one or with vocab.json and merges.txt.

    Raises:
      UserError: no such files, or they don't hold a byte-level BPE.
    """
    path = os.path.expanduser(path)
    file = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
    vocab, merges = os.path.join(path, "vocab.json"), os.path.join(path, "merges.txt")
    if os.path.isfile(file):
        return from_json(_read(file), file)
    if os.path.isfile(vocab) and os.path.isfile(merges):
        return from_merges(_read(vocab), _read(merges), path)
    raise UserError(
        f"{path}: no tokenizer here; give --data.tokenizer bpe:VOCAB, bytes, a "
        "tokenizer.json or a folder with vocab.json and merges.txt"
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch it again") from None


def resolve(spec: str) -> Tokenizer | int:
    """A ready tokenizer, or for `bpe:VOCAB` the number of tokens to train.

    Raises:
      UserError: a bad vocabulary size or path.
    """
    if spec == "bytes":
        return ByteTokenizer()
    kind, colon, size = spec.partition(":")
    if kind != "bpe" or not colon:
        return load(spec)
    if not (size.isascii() and size.isdigit() and 257 <= int(size) <= 2**20):
        raise UserError(
            f"--data.tokenizer {spec}: give bpe: and a number of tokens from 257 "
            f"to {2**20}, such as bpe:4096"
        )
    return int(size)
