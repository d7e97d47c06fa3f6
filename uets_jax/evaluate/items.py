"""The lines of a task: questions of four forms, as texts that are given and scored.

    pair      good, bad (and uid, phenomenon): is the good sentence likelier?
    cloze     context, continuation: is the continuation what greedy decoding writes?
    options   context_options, continuation, gold: which context makes it likeliest?
    choice    query, choices, gold: which choice is likeliest after the query?

Each becomes (given text, scored text) for every option. The two are joined by a space,
which is scored, unless white space is there already or the given text is empty or ends
in "=" (a sum to be solved).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uets_jax.data.faults import BadDocument, usable

FORMS = {
    "pair": ("good", "bad"),
    "options": ("context_options", "continuation", "gold"),
    "cloze": ("context", "continuation"),
    "choice": ("query", "choices", "gold"),
}


class Item(NamedTuple):
    """One question.

    options: (given text, scored text) of each answer.
    gold:    number of the right one.
    groups:  what it belongs to, by kind: `uid` and `phenomenon`, where it says so.
    """

    options: tuple[tuple[str, str], ...]
    gold: int
    groups: Mapping[str, str]


def read_item(line: bytes) -> tuple[str, Item]:
    """Form and item of one line; raises `BadDocument`."""
    try:
        row = json.loads(usable(line))
    except (ValueError, RecursionError) as error:
        raise BadDocument("broken JSON", f"broken JSON ({error})") from None
    have = row if isinstance(row, dict) else {}
    form = next((f for f, keys in FORMS.items() if {*keys} <= {*have}), None)
    if form is None:
        known = "; ".join(f"{f}: {', '.join(keys)}" for f, keys in FORMS.items())
        found = ", ".join(map(repr, have)) or "none"
        raise BadDocument("form", f"no known form (keys: {found}), use {known}")
    groups = {k: str(row[k]) for k in ("uid", "phenomenon") if k in row}
    if form == "pair":
        options = [("", _text(row, "good")), ("", _text(row, "bad"))]
    elif form == "cloze":
        options = [(_text(row, "context", True), _text(row, "continuation"))]
    elif form == "options":
        scored = _text(row, "continuation")
        options = [(given, scored) for given in _texts(row, "context_options", True)]
    else:
        query = _text(row, "query", True)
        options = [(query, scored) for scored in _texts(row, "choices")]
    gold = row.get("gold", 0) if "gold" in FORMS[form] else 0
    if type(gold) is not int or not 0 <= gold < len(options):
        raise BadDocument("gold", f"'gold' is {gold!r}, not one of {len(options)}")
    return form, Item(tuple(join(*o) for o in options), gold, groups)


def _text(row: dict[str, Any], key: str, may_be_empty: bool = False) -> str:
    return _checked(row[key], repr(key), may_be_empty)


def _texts(row: dict[str, Any], key: str, may_be_empty: bool = False) -> list[str]:
    if not isinstance(row[key], list) or len(row[key]) < 2:
        raise BadDocument("options", f"{key!r} is not a list of two or more texts")
    return [_checked(text, f"{key!r} holds what", may_be_empty) for text in row[key]]


def _checked(text: Any, what: str, may_be_empty: bool) -> str:
    if not isinstance(text, str):
        raise BadDocument("not a string", f"{what} is a {type(text).__name__}, no text")
    try:
        return usable(text) if text or not may_be_empty else text
    except BadDocument as bad:
        raise BadDocument(bad.reason, f"{what} can't be used: {bad}") from None


def join(given: str, scored: str) -> tuple[str, str]:
    """The two texts as they follow each other; the space between them is scored."""
    apart = not given or given[-1].isspace() or scored[:1].isspace()
    return (given, scored) if apart or given[-1] == "=" else (given, f" {scored}")


def subset(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` items of every group, evenly spaced, in order; 0: all.

    A group is a `uid`, or a `phenomenon` where there is none.
    """
    if not limit:
        return list(items)
    strata: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        group = item.groups.get("uid", item.groups.get("phenomenon", ""))
        strata.setdefault(group, []).append(number)
    kept: list[int] = []
    for members in strata.values():
        taken = min(limit, len(members))
        kept += [members[i * len(members) // taken] for i in range(taken)]
    return [items[i] for i in sorted(kept)]


def group_means(
    items: Sequence[Item], points: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean points by kind and name of group, the names in order."""
    found: dict[str, dict[str, list[float]]] = {}
    for item, value in zip(items, points.tolist(), strict=True):
        for kind, name in item.groups.items():
            found.setdefault(kind, {}).setdefault(name, []).append(value)
    mean = lambda values: sum(values) / len(values)
    return {k: {n: mean(v) for n, v in sorted(g.items())} for k, g in found.items()}
