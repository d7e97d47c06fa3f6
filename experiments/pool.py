r"""The pool of the track "mixture": `python -m experiments.pool --help`.

    python -m experiments.pool --data-dir DIR --out DIR [--bytes N --seed N ...]

`--data-dir` has, itself or in a folder `multidomain`, files `train*.jsonl` and
`valid*.jsonl` (also .gz, .xz, .zst) of lines {"id", "domain", "text"}; `source`
(what collection) and `work` (what book) are used where they stand.

Written to `--out`:

    pool.jsonl        {"id", "text"}: all that arms may read, in random order
    provenance.jsonl  {"id", "kind", "domain", "origin", "edit"}: for `oracle` and for
                      judging selection; an `origin` that occurs twice has copies
    sample.jsonl      {"id", "text"}: target text in no split, for mode `target`
    valid_a.jsonl     held-out documents to tune on, and
    valid_b.jsonl     those to report, read once
    pool.json         recipe, checksums, composition, what was dropped, the ceiling
    composition.svg   bytes of each kind

Equal recipe and input give equal bytes; the recipe is `Mixture`, each field a flag.

An equal pool from public data: any labelled corpus will do, such as a collection with
one file per source. Choose as target one domain of edited prose of which you have at
least a third of the pool, as near domains other prose in the same language of which
you have half the pool, and leave out code, other languages and raw web text. Give each
document its domain, cut nothing and shuffle nothing, and put some 400 kB of target
documents of other works into `valid.jsonl`. For instance with the package `datasets`:

    wiki = load_dataset("wikimedia/wikipedia", "20231101.en", split="train")
    rows = ({"id": f"w{i}", "domain": "encyclopedic", "text": row["text"]}
            for i, row in enumerate(wiki.select(range(20_000))))

and likewise books, manuals, laws, questions and answers as `near`; then

    python -m experiments.pool --data-dir DIR --out OUT --target encyclopedic \
        --near books,manuals,laws,answers

Bits per byte differ between corpora; the composition, and so the ceiling, does not.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.pool_chart import chart
from uets_jax.data.ceiling import TRANSFERS, budgets, ceilings
from uets_jax.data.composition import Mixture
from uets_jax.data.labelled import inputs, read
from uets_jax.data.mixture import Pool, clean_texts, composition, mix
from uets_jax.data.overlap import Held
from uets_jax.data.supply import Document
from uets_jax.errors import ENDS, EXIT_OK, exit_code
from uets_jax.report.files import replace_text

BYTES_PER_TOKEN = 2.5  # of English prose in a BPE of 1,024 tokens, about


def build(recipe: Mixture, data: Path, out: Path, per_token: float) -> dict[str, Any]:
    """Writes the pool and all that belongs to it; returns what `pool.json` says.

    Raises:
      UserError: as `inputs`, `read` and `mix`, or when nothing can be written.
    """
    train, valid = inputs(data)
    pool = mix(recipe, read(train), read(valid))
    written = {name: _jsonl(out / name, rows) for name, rows in _tables(pool).items()}
    kinds = composition(pool.entries)
    replace_text(out / "composition.svg", chart(kinds))
    texts = clean_texts(pool.entries, recipe.target)
    told = {
        "recipe": dataclasses.asdict(recipe),
        "inputs_sha256": {Path(p).name: _sha256(Path(p)) for p in (*train, *valid)},
        "outputs_sha256": written,
        "kinds": kinds,
        "documents": len(pool.entries),
        "bytes": sum(kind["bytes"] for kind in kinds.values()),
        "sample_bytes": _bytes(pool.sample),
        "valid_a_bytes": _bytes(pool.valid_a),
        "valid_b_bytes": _bytes(pool.valid_b),
        "dropped_documents": pool.dropped,
        "held_out_grams_in_pool": _contamination(pool),
        "ceiling": ceilings(texts, recipe.bytes),
        "passes": budgets(texts, recipe.bytes, per_token),
        "bytes_per_token": per_token,
    }
    replace_text(out / "pool.json", json.dumps(told, indent=1) + "\n")
    return told


def _tables(pool: Pool) -> dict[str, list[dict[str, str]]]:
    """The lines of each file."""
    plain = [
        {"id": f"p{place:06d}", **entry._asdict()}
        for place, entry in enumerate(pool.entries)
    ]
    pick = lambda *keys: [{key: row[key] for key in keys} for row in plain]
    held = lambda half: [{"id": d.id, "domain": d.domain, "text": d.text} for d in half]
    return {
        "pool.jsonl": pick("id", "text"),
        "provenance.jsonl": pick("id", "kind", "domain", "origin", "edit"),
        "sample.jsonl": [{"id": d.id, "text": d.text} for d in pool.sample],
        "valid_a.jsonl": held(pool.valid_a),
        "valid_b.jsonl": held(pool.valid_b),
    }


def _jsonl(path: Path, rows: Sequence[dict[str, str]]) -> str:
    """Writes the lines; returns their sha256."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    replace_text(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bytes(documents: Sequence[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _contamination(pool: Pool) -> dict[str, float]:
    """The share of each half's 13-grams that stands somewhere in the pool."""
    texts = [entry.text for entry in pool.entries]
    halves = {"valid_a": pool.valid_a, "valid_b": pool.valid_b}
    return {
        name: round(Held([d.text for d in half]).seen(texts), 6)
        for name, half in halves.items()
    }


def parser() -> argparse.ArgumentParser:
    """The command line: a flag for every field of `Mixture`."""
    found = argparse.ArgumentParser(prog="python -m experiments.pool")
    found.add_argument("--data-dir", type=Path, required=True)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--bytes-per-token", type=float, default=BYTES_PER_TOKEN)
    for field in dataclasses.fields(Mixture):
        shown = field.default
        if isinstance(shown, tuple):
            shown = ",".join(map(str, shown))
        found.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=functools.partial(_typed, field.default),
            default=field.default,
            metavar=f"({shown})",
        )
    return found


def _typed(like: Any, text: str) -> Any:
    """`text` as a value like the default: a tuple is written with commas."""
    kind = type(like[0] if isinstance(like, tuple) else like)
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from None
    return values if isinstance(like, tuple) else kind(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = vars(parser().parse_args(argv))
    data, out, per_token = (
        given.pop(k) for k in ("data_dir", "out", "bytes_per_token")
    )
    try:
        told = build(Mixture(**given), data, out, per_token)
    except ENDS as error:
        print(f"pool: error: {error}", file=sys.stderr)
        return exit_code(error)
    for kind, amount in told["kinds"].items():
        print(f"{kind:14} {amount['documents']:>7,} {amount['bytes']:>12,} bytes")
    for row in told["ceiling"][-len(TRANSFERS) :]:
        worth, factor = row["transfer"], row["token_factor"]
        print(f"ceiling {factor:.2f}x fewer tokens, if near text is worth {worth:g}")
    print(out)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
