"""`hf:REPO[:CONFIG[:SPLIT]]`: a data set of the Hugging Face Hub, or a folder like one.

It is streamed, row after row in the order of its files, and not kept: every iteration
of a Reader transfers it again. Each run takes one to find its token store, and up to
two more to write it. What is big is better fetched once, with `hf download REPO
--repo-type dataset --local-dir DIR`, and read as `hf:DIR`, or tokenized once, with
`uets tokenize`. A folder holds parquet, JSON lines, CSV or text, all of one format;
configs and splits are those of its README.md, else of its file names.

Loading scripts are never run. A token for private data sets comes from $HF_TOKEN.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

from uets_jax.data.faults import BadDocument, Faults, usable
from uets_jax.data.hub import listed, one_line, open_stream
from uets_jax.errors import UserError

_REPO = r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What stands after `hf:`.

    repo: an absolute path of a folder, or a name on the Hub.
    config: empty for the default one.
    """

    repo: str
    config: str
    split: str


def read_hf(rest: str, faults: Faults) -> Iterator[str]:
    """The texts of one split (default: train): column `text` or the only string one.

    A row without usable text is one fault. Where reading itself ends early (a broken
    file, the network), there is no going on, under both policies.

    Raises:
      UserError: no such data set, config, split or text column, or no access to it;
        rows that can't be read; the package `datasets` is missing.
    """
    spec = parse(rest)
    stream = open_stream(spec.repo, spec.config, spec.split, f"hf:{rest}")
    for index, text in enumerate(_rows(stream, rest)):
        try:
            if not isinstance(text, str):
                kind = "null" if text is None else f"a {type(text).__name__}"
                raise BadDocument("not a string", f"the text is {kind}, not a string")
            yield usable(text)
        except BadDocument as bad:
            faults.report(f"hf:{rest}, row {index}", bad)


def parse(rest: str) -> Spec:
    """Takes a spec apart; looks for a folder, but at nothing else.

    Raises:
      UserError: too many parts, no such folder, or no name that the Hub could know.
    """
    repo, config, split, *more = [*rest.split(":"), "", ""]
    if len(more) > 2 or any(more):
        raise UserError(f"hf:{rest}: write hf:REPO[:CONFIG[:SPLIT]]")
    path = os.path.expanduser(repo)
    if os.path.isdir(path):
        return Spec(os.path.abspath(path), config, split or "train")
    if os.path.exists(path):
        raise UserError(f"hf:{rest}: {repo} is a file; give its folder")
    if repo.startswith(("/", "~", ".")):
        raise UserError(f"hf:{rest}: no folder {repo}; check the path")
    if not re.fullmatch(_REPO, repo, re.ASCII):
        raise UserError(f"hf:{rest}: {repo!r} is no folder and no OWNER/NAME")
    return Spec(repo, config, split or "train")


def _rows(dataset: Any, rest: str) -> Iterator[Any]:
    """The values of the text column, for as long as they can be read."""
    count = 0
    try:
        column = _column(dataset, rest)
        with contextlib.closing(iter(dataset.select_columns([column]))) as rows:
            for row in rows:
                yield row[column]
                count += 1
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"hf:{rest}: can't be read on after {count} rows ({one_line(error)}); "
            "mend or leave out the file that `datasets` names"
        ) from None


def _column(dataset: Any, rest: str) -> str:
    """`text`, else the only column of strings; by the first row where no types are."""
    if dataset.features is None:
        with contextlib.closing(iter(dataset)) as rows:
            row = next(rows, {"text": ""})
        texts = [name for name, value in row.items() if isinstance(value, str)]
    else:
        row = dataset.features
        texts = [name for name, kind in row.items() if _is_string(kind)]
    if "text" in row:
        return "text"
    if len(texts) != 1:
        raise UserError(
            f"hf:{rest}: {len(texts)} text columns, none of them 'text' (columns: "
            f"{listed(list(row))}); export it as JSON lines and use jsonl:GLOB:key"
        )
    return texts[0]


def _is_string(kind: Any) -> bool:
    return getattr(kind, "dtype", "") in ("string", "large_string", "string_view")
