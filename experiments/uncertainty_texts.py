"""Windows to judge an uncertainty on: what it should find easy, strange, and noise.

natural       held-out text of the target (valid-A)
words         the same documents, their words in random order
characters    the same documents, their characters in random order
a domain      held-out text of a domain that the pool has nothing of
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import tracks
from uets_jax.data.draws import Draws
from uets_jax.data.labelled import inputs, read
from uets_jax.data.noise import shuffle_characters, shuffle_words
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.data.windows import cut
from uets_jax.errors import UserError
from uets_jax.types import Batch

NATURAL = "natural"
SHUFFLED = ("words", "characters")


def texts(stores: Path, data: Path) -> dict[str, list[str]]:
    """Documents by kind.

    Args:
      stores: folder of the tracks' data, with the mixture.
      data: folder of the labelled corpus that the mixture was made of.

    Raises:
      UserError: if one of them can't be read, or the pool lacks no domain.
    """
    natural = [row["text"] for row in tracks.rows(stores / "mixture.valid_a.jsonl")]
    ways = dict(zip(SHUFFLED, (shuffle_words, shuffle_characters), strict=True))
    found = {NATURAL: natural}
    for kind, way in ways.items():
        draws = Draws("uncertainty", kind)
        found[kind] = [way(text, draws) for text in natural]
    recipe = json.loads((stores / "pool" / "pool.json").read_text("utf-8"))["recipe"]
    known = {recipe["target"], *recipe["near"]}
    for document in read(inputs(data)[1]):
        if document.domain not in known:
            found.setdefault(document.domain, []).append(document.text)
    if not unseen([*found]):
        raise UserError(f"--data-dir: {data}: every domain is in the pool")
    return found


def unseen(kinds: Sequence[str]) -> list[str]:
    """The kinds that are domains."""
    return [kind for kind in kinds if kind not in (NATURAL, *SHUFFLED)]


def windows(
    documents: Sequence[str], tokenizer: Tokenizer, length: int, number: int
) -> Batch:
    """At most `number` full windows, spread evenly over the documents.

    Raises:
      UserError: if the documents don't fill one.
    """
    parts = [np.array([tokenizer.eot])]
    for ids in tokenizer.encode_batch(documents):
        parts += [ids, parts[0]]
    tokens = np.concatenate(parts[:-1])
    whole = (len(tokens) - 1) // length
    if whole < 1:
        raise UserError(f"uncertainty: the text does not fill {length} tokens")
    place = np.linspace(0, whole - 1, min(number, whole))
    return cut(tokens, tokenizer.eot, length, place.round().astype(np.int64))
