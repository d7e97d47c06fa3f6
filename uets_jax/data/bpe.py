"""Byte-level BPE: trained and encoded by `tokenizers`, decoded and measured without."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from uets_jax.data.pieces import pieces, utf8
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError

EOT = "<|endoftext|>"
SEPARATORS = (
    EOT,
    "<|end_of_text|>",
    "<eos>",
    "</s>",
    "<|eot|>",
)  # first one known wins
GROUP = 64  # pieces encoded at a time
BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@functools.cache
def byte_characters() -> dict[str, int]:
    """The character that GPT-2's vocabulary writes for each byte, and that byte.

    Printable Latin-1 stands for itself; the others take the characters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    table = {chr(byte): byte for byte in own}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


@dataclasses.dataclass(frozen=True)
class BPETokenizer(Tokenizer):
    """`spec` is the canonical `tokenizer.json`, which is all that there is."""

    spec: str
    eot: int

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """int32 ids of each text, on all cores and in bounded memory."""
        cut = [list(pieces(text)) for text in texts]
        flat = [piece for parts in cut for piece in parts]
        coded = itertools.chain.from_iterable(
            self._encode_pieces(flat[start : start + GROUP])
            for start in range(0, len(flat), GROUP)
        )
        empty = np.zeros(0, np.int32)
        return [np.concatenate([empty, *itertools.islice(coded, len(p))]) for p in cut]

    def to_json(self) -> str:
        """The canonical `tokenizer.json`, readable by every Hugging Face library."""
        return self.spec

    @functools.cached_property
    def _encoder(self) -> Any:
        """The compiled encoder; special tokens that stand in a text are just text."""
        encoder = _tokenizers().Tokenizer.from_str(self.spec)
        encoder.encode_special_tokens = True
        return encoder

    def _encode_pieces(self, parts: list[str]) -> list[np.ndarray]:
        coded = self._encoder.encode_batch_fast(parts, add_special_tokens=False)
        return [np.array(code.ids, np.int32) for code in coded]

    def _bytes(self) -> list[bytes]:
        data, table = json.loads(self.spec), byte_characters()
        ids = {i: bytes(table[c] for c in t) for t, i in _plain(data).items()}
        for token in data["added_tokens"]:
            special = token.get("special", False)
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
    parts = (piece for text in texts for piece in pieces(text))
    coder.train_from_iterator(parts, trainer)
    return from_tokenizer_json(json.loads(coder.to_str()), "trained tokenizer")


def from_merges(vocab: str, merges: str, where: str) -> BPETokenizer:
    """The two files of GPT-2: a JSON object of ids, and one merge per line."""
    try:
        ids = json.loads(vocab)
    except ValueError as error:
        raise UserError(f"{where}/vocab.json: broken JSON ({error})") from None
    rows = merges.split("\n")
    pairs = [row.split(" ") for row in rows if row and not row.startswith("#version")]
    if not isinstance(ids, dict):
        raise UserError(f"{where}/vocab.json: not an object of token ids")
    special = [name for name in SEPARATORS if name in ids]
    added = [{"id": ids[name], "content": name, "special": True} for name in special]
    plain = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    data = {
        "version": "1.0",
        "added_tokens": [token | plain for token in added],
        "pre_tokenizer": {"type": "ByteLevel", **BYTE_LEVEL},
        "decoder": {"type": "ByteLevel", **BYTE_LEVEL},
        "model": {"type": "BPE", "vocab": ids, "merges": pairs},
    }
    return from_tokenizer_json(data, where)


def from_tokenizer_json(data: Any, where: str) -> BPETokenizer:
    """Checks that `data` is a lossless byte-level BPE and brings it to one form.

    Normalizers, prefix spaces, truncation and padding are removed: text must come back
    as it was.

    Raises:
      UserError: another kind of tokenizer, or one without a separator.
    """
    try:
        kind, known = data["model"]["type"], _plain(data)
        added = {token["content"]: int(token["id"]) for token in data["added_tokens"]}
        missing = sum(c not in known for c in byte_characters() if _in_utf8(c))
        odd = [t for t in known if not all(c in byte_characters() for c in t)]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: not a tokenizer.json of a byte-level BPE") from None
    if kind != "BPE" or missing or odd:
        why = f"it is {kind}, lacks {missing} bytes, has {len(odd)} other tokens"
        raise UserError(
            f"{where}: not a byte-level BPE ({why}); use bpe:VOCAB or bytes"
        )
    eot = next((added[name] for name in SEPARATORS if name in added), None)
    if eot is None:
        raise UserError(f"{where}: has no separator, one of {', '.join(SEPARATORS)}")
    clean = data | dict.fromkeys(("normalizer", "truncation", "padding"))
    clean["pre_tokenizer"] = _without_prefix_space(data.get("pre_tokenizer"))
    spec = json.dumps(clean, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return BPETokenizer(spec, eot)


def _plain(data: dict[str, Any]) -> dict[str, int]:
    """The vocabulary without the added tokens, which aren't written in byte form."""
    added = {token["content"] for token in data["added_tokens"]}
    return {t: i for t, i in data["model"]["vocab"].items() if t not in added}


def _in_utf8(character: str) -> bool:
    """Whether the byte that this character writes occurs in any UTF-8 text."""
    byte = byte_characters()[character]
    return byte < 0xF5 and byte not in (0xC0, 0xC1)


def _without_prefix_space(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prefix_space(item) for item in value]
    if not isinstance(value, dict):
        return value
    deep = {key: _without_prefix_space(item) for key, item in value.items()}
    return deep | {"add_prefix_space": False} if "add_prefix_space" in deep else deep


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UserError(
            "a BPE needs the package 'tokenizers': pip install tokenizers, or use "
            "--data.tokenizer bytes"
        ) from None
    return tokenizers
