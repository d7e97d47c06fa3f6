"""Parts of the pool: what b3's static cleaning keeps, and what the oracle would.

b3 drops exact and near copies, then keeps the texts with the best scores of hashed
n-grams until they hold a share of the pool's tokens:

    target    log-ratio against the sample of target text; what is in no natural order
              comes last
    blind     how near the order of its words is to that of the typical text

Only these functions read `sample.jsonl`, and only `oracle` reads `provenance.jsonl`.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import tracks
from experiments.baseline_plan import MODES, SHARES
from uets_jax.aql.assets import word_starts
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.selection import blind, dedup, lexical, minhash
from uets_jax.selection.keep import keep_best
from uets_jax.selection.natural import gate, naturalness, typical_gain

Cleaner = Callable[[list[str]], Mapping[str, Any]]


def prepare(folder: Path) -> None:
    """Writes the stores of every share of b3 in both modes, and those of the oracle."""
    tokenizer = tracks.opened(folder, "mixture").tokenizer
    sample = [row["text"] for row in tracks.rows(folder / "pool" / "sample.jsonl")]
    scored = functools.cache(lambda: Scores(folder, tokenizer, sample))
    for mode in MODES:
        for share in SHARES:
            keep = lambda texts, m=mode, s=share: scored().keep(texts, m, s)
            tracks.cleaned(folder, f"b3.{mode}.{share:g}", keep)
    provenance = tracks.rows(folder / "pool" / "provenance.jsonl")
    for name, near in (("oracle.target", False), ("oracle.near", True)):
        keep = lambda texts, near=near: known_good(texts, provenance, near)
        tracks.cleaned(folder, name, keep)


class Scores:
    """De-duplication and both scores of a pool, computed once."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, sample: list[str]) -> None:
        texts = [row["text"] for row in tracks.rows(folder / "pool" / "pool.jsonl")]
        start = time.perf_counter()
        self.ids = tokenizer.encode_batch(texts)
        self.lengths = np.array([len(ids) for ids in self.ids])
        self.kept = dedup.deduplicate(self.ids)
        self.places = np.flatnonzero(self.kept.keep)
        left = [self.ids[i] for i in self.places]
        starts = word_starts(tokenizer.bytes_of)
        gains = blind.score_documents(blind.fit_blind(left, starts), left)
        natural = naturalness(gains, typical_gain(gains))
        target = lexical.fit(tokenizer.encode_batch(sample), left)
        ratio = lexical.score_documents(target, left)
        self.scores = {"blind": natural, "target": gate(ratio, natural)}
        self.seconds = time.perf_counter() - start

    def keep(self, texts: list[str], mode: str, share: float) -> dict[str, Any]:
        """The kept texts, and what it took to find them."""
        lengths = self.lengths[self.places]
        of_the_rest = min(1.0, share * self.lengths.sum() / lengths.sum())
        chosen = self.places[keep_best(self.scores[mode], lengths, of_the_rest)]
        return {
            "texts": [texts[i] for i in chosen],
            "documents": len(chosen),
            "of_documents": len(texts),
            "exact_copies": self.kept.exact,
            "near_copies": self.kept.near,
            "statistics_flops": self.operations(mode),
            "filter_seconds": self.seconds,
            "places": [int(i) for i in chosen],
        }

    def operations(self, mode: str) -> int:
        """Arithmetic of de-duplication and scoring, integer operations included."""
        pool, left = int(self.lengths.sum()), int(self.lengths[self.places].sum())
        total = dedup.operations(pool, len(self.lengths), minhash.DedupConfig())
        longest = int(self.lengths.max())
        total += blind.operations(left, left, longest)
        if mode == "target":
            total += lexical.operations(left, left, lexical.LexicalConfig())
        return total


def known_good(
    texts: list[str], provenance: list[dict[str, str]], near: bool
) -> dict[str, Any]:
    """One copy of every text of the target, and of `near` domains; no noise."""
    target = next(row["domain"] for row in provenance if row["kind"] == "unique")
    seen: set[str] = set()
    chosen = []
    order = sorted(range(len(texts)), key=lambda i: bool(provenance[i]["edit"]))
    for i in order:  # unedited copies first
        row = provenance[i]
        wanted = row["kind"] in ("unique", "near", "duplicate")
        wanted &= near or row["domain"] == target
        if wanted and row["origin"] not in seen:
            seen.add(row["origin"])
            chosen.append(i)
    chosen.sort()
    return {"texts": [texts[i] for i in chosen], "documents": len(chosen)}
