"""Byte-level BPE: trained and encoded by `tokenizers`, decoded and measured without."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from uets_jax.data.canonical import EOT, byte_characters, canonical, plain, two_files
from uets_jax.data.pieces import groups, pieces, utf8
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError

WORD = 256  # characters of the longest word that is trained on


@dataclasses.dataclass(frozen=True)
class BPETokenizer(Tokenizer):
    """`spec` is the canonical `tokenizer.json`, which is all that there is."""

    spec: str
    eot: int

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """int32 ids of each text, on all cores and in bounded memory."""
        cut = [list(pieces(text)) for text in texts]
        flat = [piece for parts in cut for piece in parts]
        coded = itertools.chain.from_iterable(map(self._encode_pieces, groups(flat)))
        empty = np.zeros(0, np.int32)
        return [np.concatenate([empty, *itertools.islice(coded, len(p))]) for p in cut]

    def to_json(self) -> str:
        """The canonical `tokenizer.json`, readable by every Hugging Face library."""
        return self.spec

    @functools.cached_property
    def _encoder(self) -> Any:
        """The compiled encoder; special tokens that stand in a text are just text."""
        try:
            encoder = _tokenizers().Tokenizer.from_str(self.spec)
        except Exception as error:  # the package raises nothing narrower
            raise UserError(f"the tokenizer can't be used: {error}") from None
        for token in json.loads(self.spec)["added_tokens"]:
            if encoder.token_to_id(token["content"]) != token["id"]:
                raise UserError(
                    f"the tokenizer can't be used: {token['content']!r} has another id "
                    "than its file says; leave no gap between the ids"
                )
        encoder.encode_special_tokens = True
        return encoder

    def _encode_pieces(self, parts: list[str]) -> list[np.ndarray]:
        coded = self._encoder.encode_batch_fast(parts, add_special_tokens=False)
        return [np.array(code.ids, np.int32) for code in coded]

    def _bytes(self) -> list[bytes]:
        data, table = json.loads(self.spec), byte_characters()
        ids = {i: bytes(table[c] for c in t) for t, i in plain(data).items()}
        for token in data["added_tokens"]:
            special = token["special"]
            ids[token["id"]] = b"" if special else utf8(token["content"])
        return [ids.get(i, b"") for i in range(max(ids) + 1)]


def train_bpe(texts: Iterable[str], vocab: int) -> BPETokenizer:
    """Trains at most `vocab` tokens: the separator, 256 bytes, and merges.

    Deterministic. A small text yields fewer merges, hence fewer tokens.
    """
    hf = _tokenizers()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab,
        show_progress=False,
        special_tokens=[EOT],
        initial_alphabet=sorted(byte_characters()),
    )
    coder = hf.Tokenizer(hf.models.BPE())
    coder.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = hf.decoders.ByteLevel()
    parts = (piece for text in texts for piece in pieces(text, WORD))
    coder.train_from_iterator(parts, trainer)
    return from_tokenizer_json(json.loads(coder.to_str()), "trained tokenizer")


def from_merges(vocab: str, merges: str, where: str) -> BPETokenizer:
    """From the texts of GPT-2's vocab.json and merges.txt; raises `UserError`."""
    return from_tokenizer_json(two_files(vocab, merges, where), where)


def from_tokenizer_json(data: Any, where: str) -> BPETokenizer:
    """From a parsed tokenizer.json; raises as `canonical`."""
    return BPETokenizer(*canonical(data, where))


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            "a BPE needs the package 'tokenizers': pip install tokenizers, or use "
            "--data.tokenizer bytes"
        ) from None
    return tokenizers
