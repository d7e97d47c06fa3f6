"""Tables from records: writes what `results/*.json` hold into Markdown pages.

    python -m experiments.tables            # rewrites README.md and the method cards
    python -m experiments.tables --check    # exit code 1 and a line per stale table

A page has a place for each table; columns and rows are optional, and all of them by
default. Rows are named by what they show in one column:

    <!-- results:foundation.loop_overhead columns=arm,steps rows="arm=nano|tiny" -->
    <!-- /results -->
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.records import RESULTS, read_record
from uets_jax.errors import EXIT_BAD_INPUT, EXIT_OK, UserError, nearest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CARDS = ROOT / "uets_jax" / "cards"
EXIT_STALE = 1
ABSENT = "-"

_OPENING = re.compile(
    r"<!-- results:(?P<table>\S+)(?: columns=(?P<columns>\S+))?"
    r'(?: rows="(?P<key>[^="]+)=(?P<values>[^"]+)")? -->'
)
_PLACE = re.compile(
    rf"(?P<opening>{_OPENING.pattern})\n(?P<body>.*?)(?P<closing><!-- /results -->)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """The README and the method cards."""
    return [README, *sorted(CARDS.glob("*.md"))]


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with every table as its record says.

    Raises:
      UserError: for a place without an end, a record that is missing or broken, a
        column that no row has, or a row that isn't there.
    """
    _check_places(page)
    fill = lambda m: f"{m['opening']}\n{_table(m, results)}{m['closing']}"
    return _PLACE.sub(fill, page)


def stale(page: str, results: Path = RESULTS) -> list[str]:
    """Names of the tables on the page that differ from their records."""
    _check_places(page)
    places = _PLACE.finditer(page)
    return [m["table"] for m in places if m["body"] != _table(m, results)]


def markdown(
    record: dict[str, Any],
    columns: Sequence[str] = (),
    key: str = "",
    values: Sequence[str] = (),
) -> str:
    """The rows as a Markdown table, and a line on how they were measured.

    Args:
      record: as `experiments.records` writes it.
      columns: keys of the rows, in the order to show; empty: all, as they first occur.
      key, values: the rows to show are those whose cell of `key` is one of `values`;
        empty: all.

    Raises:
      UserError: for a column that no row has, or a value that no cell of `key` has.
    """
    rows = _chosen(record, key, values) if key else record["rows"]
    known = list(dict.fromkeys(key for row in record["rows"] for key in row))
    for column in columns:
        if column not in known:
            hint = nearest(column, known)
            raise UserError(f"{record['table']}: no column {column!r}: {hint}")
    shown = list(columns or known)
    numeric = [all(_is_number(r.get(c)) for r in rows if c in r) for c in shown]
    lines = [
        [column.replace("_", " ") for column in shown],
        ["---:" if right else "---" for right in numeric],
        *([cell(c, row.get(c)) for c in shown] for row in rows),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_origin(record)}\n"


def cell(column: str, value: Any) -> str:
    """One value: `1,234`, `0.1235`, `1.235e12`, `yes`, a dash for what is absent."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return " ".join(value.split()).replace("|", "\\|")
    if abs(value) >= 1e6 and (isinstance(value, float) or "flops" in column):
        return _short(f"{value:.3e}")
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return _short(f"{value:.4g}")


def _chosen(
    record: dict[str, Any], key: str, values: Sequence[str]
) -> list[dict[str, Any]]:
    cells = [cell(key, row.get(key)) for row in record["rows"]]
    for value in values:
        if value not in cells:
            hint = nearest(value, cells)
            raise UserError(f"{record['table']}: no row with {key}={value}: {hint}")
    rows = zip(record["rows"], cells, strict=True)
    return [row for row, text in rows if text in values]


def _short(number: str) -> str:
    """`1.200e+12` as `1.2e12`."""
    mantissa, e, exponent = number.partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if e else number


def _is_number(value: Any) -> bool:
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _origin(record: dict[str, Any]) -> str:
    where = f"Measured on `{record['machine']}`, {record['date']}"
    return f"{where}, with `{record['command']}`."


def _table(place: re.Match[str], results: Path) -> str:
    columns = place["columns"].split(",") if place["columns"] else ()
    values = place["values"].split("|") if place["values"] else ()
    record = read_record(place["table"], results)
    return markdown(record, columns, place["key"] or "", values)


def _check_places(page: str) -> None:
    """Each opening marker has its own closing one."""
    openings = [m["table"] for m in _OPENING.finditer(page)]
    places = [m for m in _PLACE.finditer(page) if not _OPENING.search(m["body"])]
    ended = [m["table"] for m in places]
    if page.count("<!-- /results -->") != len(ended) or openings != ended:
        lost = next((t for t in openings if t not in ended), "a place")
        raise UserError(f"{lost}: opening and closing markers don't match")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a table is stale, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tables")
    parser.add_argument("--check", action="store_true", help="write nothing; tell")
    parser.add_argument("--page", type=Path, nargs="+", default=pages())
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    code = EXIT_OK
    for path in options.page:
        try:
            page = path.read_text("utf-8")
            if not options.check:
                path.write_text(filled(page, options.results), "utf-8")
                continue
            for table in stale(page, options.results):
                print(f"{path}: {table} is stale; run {parser.prog}")
                code = EXIT_STALE
        except (UserError, OSError) as error:
            print(f"tables: error: {path}: {error}", file=sys.stderr)
            return EXIT_BAD_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
