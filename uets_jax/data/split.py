"""Which documents are held out: the hash of a document's text decides."""

import array
import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from uets_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one pass over a source finds; 16 bytes of memory per document.

    hashes: uint64 [documents], the first bytes of the sha256 of each text.
    sizes:  uint64 [documents], UTF-8 bytes of each text.
    sha256: of all documents in their order.
    """

    hashes: np.ndarray
    sizes: np.ndarray
    sha256: str


def document_hash(raw: bytes) -> int:
    """The first 64 bits of the sha256 of a document."""
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "little")


def survey(texts: Iterable[str]) -> Survey:
    """Reads a source once."""
    hashes, sizes, total = array.array("Q"), array.array("Q"), Digest()
    for text in texts:
        raw = text.encode()
        hashes.append(total.add(raw))
        sizes.append(len(raw))
    return Survey(np.array(hashes), np.array(sizes), total.hexdigest())


class Digest:
    """sha256 over the sha256 of every document."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, raw: bytes) -> int:
        """Takes the next document; returns its `document_hash`."""
        digest = hashlib.sha256(raw).digest()
        self._total.update(digest)
        return int.from_bytes(digest[:8], "little")

    def hexdigest(self) -> str:
        """Of the documents so far."""
        return self._total.hexdigest()


def threshold(found: Survey, fraction: float) -> int:
    """The largest hash that is held out.

    The lowest hashes are, until they hold `fraction` of the bytes: always one, never
    all. Equal texts have equal hashes and stay on one side.

    Raises:
      UserError: fewer than two different documents.
    """
    unique, index = np.unique(found.hashes, return_inverse=True)
    if len(unique) < 2:
        raise UserError(
            "one document can't be split into training and validation text; give "
            "--data.valid-source or more documents"
        )
    held = np.cumsum(np.bincount(index, weights=found.sizes.astype(np.float64)))
    last = int(np.searchsorted(held, fraction * held[-1]))
    return int(unique[min(last, len(unique) - 2)])
