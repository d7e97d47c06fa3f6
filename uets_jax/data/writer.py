"""Writes a corpus as a token store: survey, tokenizer, tokens.

Every pass streams. The survey reads the sources once and fixes the split; a BPE is
trained on a sample of the training side; then tokens are written as they come.
"""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from uets_jax.config import DataConfig
from uets_jax.data.bpe import train_bpe
from uets_jax.data.corpus import Reader, documents
from uets_jax.data.folders import fresh_file
from uets_jax.data.loading import load, resolve
from uets_jax.data.pieces import groups
from uets_jax.data.split import Digest, Survey, document_hash, survey, threshold
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError

FORMAT = "uets_jax tokens"
VERSION = 1
SAMPLE = 16 * 1024 * 1024  # bytes of training text that a BPE is trained on
BATCH = 2 * 1024 * 1024  # characters encoded at a time


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be written; known once the sources were read.

    surveys:   of `source`, and of `valid_source` where there is one.
    cut:       the largest hash held out of `source`; -1: none.
    tokenizer: ready, or the vocabulary of a BPE that is still to be trained.
    skipped:   documents left out of all sources, by reason.
    """

    data: DataConfig
    surveys: tuple[Survey, ...]
    cut: int
    tokenizer: Tokenizer | int
    skipped: dict[str, int]

    def digest(self, *more: Any) -> str:
        """sha256 of `more` and of all that decides which text is on which side."""
        fraction = None if self.data.valid_source else self.data.valid_fraction
        content = [VERSION, [s.sha256 for s in self.surveys], fraction, *more]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def key(self) -> str:
        """sha256 that names the store."""
        return self.digest(self.vocabulary, self.skipped)

    @property
    def vocabulary(self) -> Any:
        """What decides the tokenizer besides the text, ready for JSON."""
        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.hash
        return self.tokenizer if self.whole else [self.tokenizer, "parts"]

    @property
    def share(self) -> float:
        """Share of the training text that makes `SAMPLE` bytes; may be above 1."""
        return SAMPLE / int(self._training("sizes").sum())

    @property
    def whole(self) -> bool:
        """Whole documents can be drawn: those drawn have half of the bytes wanted.

        Where documents are large, none or one may be; then parts of all are taken.
        """
        sizes = self._training("sizes")
        drawn = sizes[_drawn(self._training("hashes"), self.share)]
        return 2 * int(drawn.sum()) >= min(SAMPLE, int(sizes.sum()))

    def _training(self, field: str) -> np.ndarray:
        """`field` of the survey, for the documents of the training side."""
        found = self.surveys[0]
        values = getattr(found, field)
        return values if self.cut < 0 else values[found.hashes > self.cut]


def make_plan(data: DataConfig) -> Plan:
    """Reads the sources once.

    Raises:
      UserError: a bad source, document, tokenizer or split.
    """
    tokenizer = resolve(data.tokenizer)
    readers = _readers(data)
    surveys = tuple(survey(reader) for reader in readers)
    cut = -1 if data.valid_source else threshold(surveys[0], data.valid_fraction)
    skipped = sum((Counter(reader.skipped) for reader in readers), Counter())
    return Plan(data, surveys, cut, tokenizer, dict(sorted(skipped.items())))


def fit_tokenizer(plan: Plan, folder: Path) -> Tokenizer:
    """The plan's tokenizer; a trained one is kept in `folder` under its content."""
    if not isinstance(plan.tokenizer, int):
        return plan.tokenizer
    path = folder / f"{plan.digest(plan.vocabulary)[:32]}.json"
    if not path.exists():
        trained = train_bpe(_sample(plan), plan.tokenizer)
        with fresh_file(path) as stream:
            stream.write(trained.to_json())
    return load(str(path))


def write(directory: Path, plan: Plan, tokenizer: Tokenizer) -> None:
    """Writes all files of a store into an empty folder; `meta.json` comes last.

    Raises:
      UserError: a source changed since the plan was made.
    """
    wide = tokenizer.vocab_size > 2**16
    dtype = np.dtype("<u4" if wide else "<u2")
    bins = {
        name: _Bin(directory / f"{name}.bin", dtype, tokenizer.eot)
        for name in ("train", "valid")
    }
    try:
        for group in groups(
            _sides(plan, progress=True), BATCH, lambda item: len(item[1])
        ):
            codes = tokenizer.encode_batch([text for _, text in group])
            for (side, text), ids in zip(group, codes, strict=True):
                bins[side].add(text, ids)
    finally:
        for one in bins.values():
            one.stream.close()
    meta = {
        **_provenance(plan, tokenizer),
        "dtype": "uint32" if wide else "uint16",
        "splits": {name: one.summary() for name, one in bins.items()},
    }
    (directory / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    (directory / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", "utf-8")


def _provenance(plan: Plan, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": plan.data.source,
        "source_sha256": plan.surveys[0].sha256,
        "valid_source": plan.data.valid_source,
        "valid_source_sha256": plan.surveys[1].sha256 if plan.cut < 0 else "",
        "valid_fraction": plan.data.valid_fraction,
        "tokenizer": plan.data.tokenizer,
        "tokenizer_sha256": tokenizer.hash,
        "skipped": plan.skipped,
    }


class _Bin:
    """One growing file of `[eot] document [eot] document ...`."""

    def __init__(self, path: Path, dtype: np.dtype, eot: int) -> None:
        self.stream = open(path, "wb")  # noqa: SIM115, closed by `write`
        self.dtype = dtype
        self.eot = np.array([eot])
        self.sha256 = hashlib.sha256()
        self.counts = {"tokens": 0, "documents": 0, "bytes": 0}

    def add(self, text: str, ids: np.ndarray) -> None:
        raw = np.concatenate([self.eot, ids]).astype(self.dtype).tobytes()
        self.stream.write(raw)
        self.sha256.update(raw)
        self.counts["tokens"] += 1 + len(ids)
        self.counts["documents"] += 1
        self.counts["bytes"] += len(text.encode())

    def summary(self) -> dict[str, Any]:
        return {**self.counts, "sha256": self.sha256.hexdigest()}


def _readers(data: DataConfig) -> list[Reader]:
    specs = [data.source, *([data.valid_source] if data.valid_source else [])]
    return [documents(spec, data.on_error) for spec in specs]


def _sides(plan: Plan, progress: bool = False) -> Iterator[tuple[str, str]]:
    """(split, text) of every document, in order; checks that nothing has changed."""
    sides = zip(("train", "valid"), plan.surveys, _readers(plan.data), strict=False)
    for side, found, reader in sides:
        digest = Digest()
        for text in _shown(reader, len(found.hashes)) if progress else reader:
            held = digest.add(text.encode()) <= plan.cut
            yield "valid" if held else side, text
        if digest.hexdigest() != found.sha256:
            raise UserError(f"{reader.spec}: changed while it was read; run again")


def _shown(texts: Iterable[str], total: int) -> Iterable[str]:
    """With a progress bar, where there are a terminal and tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return texts
    return tqdm(texts, "tokenizing", total, leave=False, unit=" texts", disable=None)


def _sample(plan: Plan) -> Iterator[str]:
    """Training text of at most `SAMPLE` bytes, and of at least half where there is.

    Documents are drawn by their hashes; where those drawn are too few, the beginning of
    every document is taken, in proportion to its length.
    """
    whole, share, left = plan.whole, plan.share, SAMPLE
    for side, text in _sides(plan):
        raw = text.encode()
        if whole:
            size = len(raw) if _drawn(document_hash(raw), share) else 0
        else:
            size = math.ceil(share * len(raw))
        if side == "train" and min(size, left) > 0:
            yield raw[: min(size, left)].decode(errors="ignore")
            left -= size


def _drawn(hashes: Any, share: float) -> Any:
    """Which documents are in a sample of about that share, by their hashes."""
    return (hashes & 0xFFFFFF) < share * 2**24
