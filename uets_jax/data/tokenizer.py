"""Text to token ids and back: what every tokenizer offers, and the simplest one."""

import abc
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from uets_jax.data.pieces import utf8

BYTES = {"eot": 256, "type": "uets_jax bytes", "version": 1}
STRANGE = "\ufffd".encode()


class Tokenizer(abc.ABC):
    """A lossless tokenizer: `decode(encode(text)) == text`.

    eot: the id that separates documents; no text encodes to it.
    """

    eot: int

    @abc.abstractmethod
    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """int32 ids of each text.

        Raises:
          UserError: a text holds half of a surrogate pair.
        """

    @abc.abstractmethod
    def to_json(self) -> str:
        """What `loading.from_json` reads back; the same for equal tokenizers."""

    @abc.abstractmethod
    def _bytes(self) -> list[bytes]:
        """The bytes that each id stands for; none for special tokens."""

    @functools.cached_property
    def bytes_of(self) -> list[bytes]:
        """The bytes that each id stands for; none for special tokens."""
        return self._bytes()

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """int32 [vocab_size]: UTF-8 bytes of each token; special ones have 0."""
        return np.array([len(one) for one in self.bytes_of], np.int32)

    @functools.cached_property
    def hash(self) -> str:
        """sha256 of `to_json()`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self.bytes_of)

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of one text; raises as `encode_batch`."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Any) -> str:
        """The text of an array of ids.

        Special tokens are silent; ids beyond the vocabulary and broken UTF-8 become
        U+FFFD.
        """
        known = self.bytes_of
        numbers = np.asarray(ids, np.int64).ravel().tolist()
        parts = [known[i] if 0 <= i < len(known) else STRANGE for i in numbers]
        return b"".join(parts).decode(errors="replace")


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """The 256 bytes and a separator; needs no package and no training."""

    eot: int = 256

    def encode_batch(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The UTF-8 bytes of each text."""
        return [np.frombuffer(utf8(text), np.uint8).astype(np.int32) for text in texts]

    def to_json(self) -> str:
        """A recognisable mark."""
        return json.dumps(BYTES)

    def _bytes(self) -> list[bytes]:
        return [*(bytes([i]) for i in range(256)), b""]
