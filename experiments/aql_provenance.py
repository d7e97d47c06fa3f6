"""Which kind of text the windows of the pool are of, to judge what was drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uets_jax.data.mixture import KINDS
from uets_jax.data.windows import window_count
from uets_jax.errors import UserError

TENTHS = 10
Row = dict[str, Any]


class Provenance(NamedTuple):
    """Of each window of the pool; it is of the document that most of its tokens are of.

    kinds:    int [windows], place of its class in `KINDS`.
    passages: int [windows], equal where two documents are copies of each other and
      both windows lie at about the same place.
    """

    kinds: np.ndarray
    passages: np.ndarray


def provenance(
    tokens: np.ndarray, eot: int, lines: Sequence[Mapping[str, str]], length: int
) -> Provenance:
    """Looks the windows up.

    Args:
      tokens: of the pool; each document begins with the separator `eot`.
      lines: `kind` and `origin` of each document, in order.
      length: tokens per window.

    Raises:
      UserError: if there are more or fewer documents than lines.
    """
    begins = np.flatnonzero(np.asarray(tokens) == eot)
    if len(begins) != len(lines):
        raise UserError(
            f"provenance.jsonl: {len(lines)} lines for {len(begins)} documents of the "
            "pool; make the stores again"
        )
    count = window_count(len(tokens), length)
    owner = _owners(begins, count, length)
    middle = np.arange(count) * length + length // 2
    offset = (middle - begins[owner]) // length
    numbers = np.array([KINDS.index(line["kind"]) for line in lines])
    _, origins = np.unique([line["origin"] for line in lines], return_inverse=True)
    both = np.stack([origins[owner], offset], 1)
    _, passages = np.unique(both, axis=0, return_inverse=True)
    return Provenance(numbers[owner], passages.ravel())


def _owners(begins: np.ndarray, count: int, length: int) -> np.ndarray:
    """int [windows]: the document of most tokens; of equals the last one."""
    starts = np.union1d(begins, np.arange(count) * length)
    starts = starts[starts < count * length]
    sizes, window = np.diff([*starts, count * length]), starts // length
    order = np.lexsort((sizes, window))
    last = np.flatnonzero(np.diff(window[order], append=count))
    owner = np.searchsorted(begins, starts[order[last]], "right") - 1
    return np.maximum(owner, 0)


def share_rows(mode: str, ids: np.ndarray, known: Provenance) -> list[Row]:
    """A row for each tenth of a run, and one for all of it.

    Args:
      ids: int [steps, B], of the windows that were drawn.
    """
    flat = ids.ravel()
    parts = np.array_split(np.arange(len(flat)), TENTHS)
    named = [(i + 1, part) for i, part in enumerate(parts) if len(part)]
    shares = _shares(flat, known)
    return [
        {"mode": mode, "tenth": tenth, "windows": len(part)}
        | {name: float(values[part].mean()) for name, values in shares.items()}
        for tenth, part in [*named, (None, np.arange(len(flat)))]
    ]


def pool_row(known: Provenance) -> Row:
    """The same of all windows of the pool, in its order."""
    shares = _shares(np.arange(len(known.kinds)), known)
    means = {name: float(values.mean()) for name, values in shares.items()}
    return {"mode": None, "tenth": None, "windows": len(known.kinds)} | means


def _shares(ids: np.ndarray, known: Provenance) -> dict[str, np.ndarray]:
    """bool [drawn], by name."""
    found = {f"{k}_share": known.kinds[ids] == i for i, k in enumerate(KINDS)}
    found["repeated_share"] = _again(ids)
    return found | {"copied_share": _again(known.passages[ids])}


def _again(values: np.ndarray) -> np.ndarray:
    """Which of the values have stood before."""
    found = np.ones(len(values), bool)
    found[np.unique(values, return_index=True)[1]] = False
    return found
