"""Trains the quickstart recipe and writes its report: the library way of README 1.

    python -m experiments.quickstart --out runs/quickstart

Same run as `uets train --recipe quickstart`; a starting point for scripts of one's own.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from uets_jax.errors import ENDS, EXIT_OK, exit_code
from uets_jax.models.presets import from_dict
from uets_jax.train.loop import train

RECIPE = Path(__file__).parent / "recipes" / "quickstart.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code, as `uets train` does."""
    parser = argparse.ArgumentParser(prog="python -m experiments.quickstart")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--source", help="instead of the recipe's: files:GLOB, ...")
    parser.add_argument("--size", help="instead of the recipe's: tiny, nano, ...")
    options = parser.parse_args(argv)
    recipe = json.loads(RECIPE.read_text("utf-8"))
    if options.steps:
        recipe["train"]["steps"] = options.steps
    if options.size:
        recipe["model"]["size"] = options.size
    if options.source:
        recipe["data"]["source"] = options.source
    try:
        summary = train(from_dict(recipe), options.out).summary
    except ENDS as error:
        print(f"quickstart: error: {error}", file=sys.stderr)
        return exit_code(error)
    print(
        f"{summary['bits_per_byte']:.3f} bits per byte; see {options.out}/report.html"
    )
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
