"""The arrays that a run's selection reads, made from its text once per run."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from uets_jax.aql.assets import (
    Assets,
    Text,
    fit_text,
    knobs,
    operations,
    split,
    text_shapes,
    word_starts,
)
from uets_jax.aql.reference import Snapshot
from uets_jax.config import SNAPSHOT, ExperimentConfig, candidates, window_length
from uets_jax.curriculum import difficulty
from uets_jax.curriculum.ngrams import fit_ngrams
from uets_jax.data.corpus import documents
from uets_jax.data.store import TokenStore, open_store
from uets_jax.data.windows import sequential, window_count
from uets_jax.errors import UserError
from uets_jax.measure.work import Cost, Costs

FITTED = 16_000_000  # tokens of the training text that are counted, from its beginning
ROWS = 1024  # windows whose difficulty is found at once
BY_PRODUCTS = ("none", "loss", "entropy")
MEASURES = {"surprisal": "ngram_surprisal", "progress": "ngram_surprisal"}
TABLES = ("rarity", "surprisal", "progress")
PER_TOKEN = 60  # integer operations to count and look up n-grams of two orders


def build_assets(config: ExperimentConfig, store: TokenStore) -> Assets | None:
    """What the step of this run reads; None where nothing is chosen.

    Raises:
      UserError: a sample, or a reference, that is missing or can't be used.
    """
    if candidates(config) == 1:
        return None
    select, length = config.select, window_length(config)
    text, reference, ranks = None, None, None
    if select.method == "aql":
        sample = read_sample(config)
        text = _text(store.directory, store.fingerprint, length, select.run, sample)
    if _tabled(config):
        windows = window_count(len(store.tokens("train")), length)
        reference = read_reference(select.reference, windows)
    if config.curriculum.difficulty not in BY_PRODUCTS:
        name = config.curriculum.difficulty
        ranks = _ranks(store.directory, store.fingerprint, length, name)
    tables: Any = reference, ranks  # on the host
    return Assets(knobs(select.knobs), text, *tables)


def read_sample(config: ExperimentConfig) -> tuple[str, ...]:
    """The texts of the target sample; none in another mode.

    Raises:
      UserError: a sample that is not named, missing or empty.
    """
    select = config.select
    if select.method != "aql" or select.mode != "target":
        return ()
    if not select.target:
        raise UserError("select.target: empty; mode 'target' needs a sample")
    try:
        return tuple(documents(select.target))
    except UserError as error:
        raise UserError(f"select.target: {error}") from None


def inputs_sha256(config: ExperimentConfig) -> str:
    """Of what the assets are made from beside the training text; "" without any.

    Not of the assets: their last digits depend on the machine, and a run may go on
    upon another one.

    Raises:
      UserError: a sample, or a reference, that can't be read.
    """
    parts = [text.encode() for text in read_sample(config)]
    if _tabled(config):
        try:
            parts = [Path(config.select.reference).read_bytes()]
        except OSError as error:
            raise _unreadable(config.select.reference, error) from None
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(digests).hexdigest() if parts else ""


def _tabled(config: ExperimentConfig) -> bool:
    """Whether selection reads a file of a reference's losses."""
    return config.select.method == "rho" and config.select.reference != SNAPSHOT


def _unreadable(path: str, error: Exception) -> UserError:
    return UserError(f"select.reference: {path!r}: {error}")


def read_reference(path: str, windows: int) -> np.ndarray:
    """f32 [windows]: a reference's loss of every training window, nats per token.

    Raises:
      UserError: no such file, or not of this text.
    """
    try:
        found = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if found.shape != (windows,):
        raise UserError(
            f"select.reference: {path}: {found.shape} losses for {windows} windows; "
            "make it with the same text and length"
        )
    return found


def asset_shapes(
    config: ExperimentConfig,
    windows: int = 1 << 16,
    snapshot: Snapshot | None = None,
) -> Assets | None:
    """Shapes of what the step reads, with tables of so many windows.

    Args:
      config: of the run.
      windows: of its training text.
      snapshot: shapes of the earlier model that selection refers to, if there is one.
    """
    if candidates(config) == 1:
        return None
    select = config.select
    table: Any = jax.ShapeDtypeStruct((windows,), np.float32)
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    sample = select.mode == "target"
    text = text_shapes(config.model.vocab, sample) if select.method == "aql" else None
    static = config.curriculum.difficulty not in BY_PRODUCTS
    numbers = jax.tree.map(shape, jax.eval_shape(lambda: knobs(select.knobs)))
    reference = table if _tabled(config) else snapshot
    return Assets(numbers, text, reference, table if static else None)


def asset_costs(config: ExperimentConfig, store: TokenStore) -> Costs:
    """What making the assets takes, charged to a run's beginning.

    Reading a difficulty off the text is counted where it needs tables; zlib is not
    arithmetic.
    """
    if candidates(config) == 1:
        return {}
    split, total = store.meta["splits"]["train"], 0
    tokens = min(split["tokens"], FITTED)
    if config.select.method == "aql":
        share = tokens / split["tokens"]
        count = round(share * split["documents"])
        sample = config.select.mode == "target"
        longest = 4 * max(tokens // max(count, 1), 1)
        total += operations(tokens, count, longest, sample)
    if config.curriculum.difficulty in TABLES:
        total += PER_TOKEN * split["tokens"]
    return {"statistics": Cost(elementwise=total)} if total else {}


@functools.lru_cache(maxsize=8)
def _text(
    directory: str, fingerprint: str, length: int, run: int, target: tuple[str, ...]
) -> Text:
    """Counts the beginning of the training text; kept while the process lives."""
    store = open_store(directory)
    tokenizer = store.tokenizer
    texts = split(store.tokens("train")[:FITTED], tokenizer.eot)
    sample = tokenizer.encode_batch(target) if target else None
    words = word_starts(tokenizer.bytes_of)
    return fit_text(texts, tokenizer.eot, words, length, run, sample)


@functools.lru_cache(maxsize=8)
def _ranks(directory: str, fingerprint: str, length: int, name: str) -> np.ndarray:
    """f32 [windows]: quantiles of a static difficulty."""
    store = open_store(directory)
    tokens, tokenizer = store.tokens("train"), store.tokenizer
    if name == "length":
        values = difficulty.document_lengths(tokens, tokenizer.eot, length)
        return difficulty.ranks(values)
    table = None
    if name in TABLES:
        table = fit_ngrams(tokens, tokenizer.vocab_size, tokenizer.eot)
    batches = sequential(tokens, tokenizer.eot, length, ROWS)
    measure = MEASURES.get(name, name)
    values = difficulty.assess(measure, batches, table, tokenizer.bytes_of)
    return difficulty.ranks(values[: window_count(len(tokens), length)])
