"""`jsonl:GLOB[:key]`: one JSON object per line, its text under one key."""

import json
import re
from collections.abc import Iterator

from uets_jax.data.faults import BadDocument, Faults, usable
from uets_jax.data.files import LINE, lines, matching, open_bytes
from uets_jax.errors import UserError


def read_jsonl(rest: str, faults: Faults) -> Iterator[str]:
    """The texts of every line of every file that matches; blank lines don't count."""
    paths, key = parse(rest)
    for path in paths:
        empty = True
        try:
            with open_bytes(path) as stream:
                for number, line in lines(stream):
                    if line is not None and not line.strip():
                        continue
                    empty = False
                    try:
                        yield _text(line, key)
                    except BadDocument as bad:
                        faults.report(f"{path}, line {number}", bad)
            if empty:
                raise BadDocument("empty")
        except BadDocument as bad:
            faults.report(path, bad)


def parse(rest: str) -> tuple[list[str], str]:
    """Paths and key; a last `:name` is part of the path where such a file exists.

    A key has letters, digits, `_`, `-` and `.`; without one it is "text".

    Raises:
      UserError: nothing matches.
    """
    found = re.fullmatch(r"(.*):([\w.-]+)", rest, re.DOTALL)
    if not found:
        return matching(rest), "text"
    try:
        return matching(rest), "text"
    except UserError:
        return matching(found[1]), found[2]


def _text(line: bytes | None, key: str) -> str:
    if line is None:
        raise BadDocument("line too long", f"is longer than {LINE // 2**20} MB")
    try:
        row = json.loads(usable(line))
    except (ValueError, RecursionError) as error:
        raise BadDocument("broken JSON", f"broken JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadDocument("not an object", f"a {type(row).__name__}, not an object")
    if key not in row:
        have = ", ".join(map(repr, list(row)[:8])) or "none"
        raise BadDocument("no such key", f"no key {key!r} (keys: {have})")
    if not isinstance(row[key], str):
        kind = type(row[key]).__name__
        raise BadDocument("not a string", f"{key!r} is a {kind}, not a string")
    return usable(row[key])
