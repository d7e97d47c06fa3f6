"""Runs the tests that are marked slow: `python -m experiments.slow_tests`.

The default suite leaves them out. What they told stands in `foundation.slow_tests`, a
row for each file; exit code 1 if one failed.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.records import write_record
from experiments.script import command, ended
from uets_jax.errors import EXIT_OK, UserError

EXIT_FAILED = 1
NOTE = "Seconds of the tests themselves, beside each other on as many workers."


@dataclasses.dataclass(frozen=True)
class Case:
    """A test that was run.

    file:    that it is in.
    outcome: passed, failed or skipped.
    """

    file: str
    outcome: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; 1: a test failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m experiments.slow_tests")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args(words)
    return ended("slow_tests", lambda: run(given, command("slow_tests", words)))


def run(given: argparse.Namespace, said: str) -> int:
    """The tests, then their record."""
    if given.workers < 1:
        raise UserError("--workers: must be above 0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.xml"
        words = ["-m", "slow", "-n", str(given.workers), f"--junitxml={path}"]
        start(words)
        if not path.exists():
            raise UserError("pytest ended before it ran a test; it says why above")
        found = rows(cases(path.read_text("utf-8")))
    print(write_record("foundation.slow_tests", found, said, {}, NOTE, given.out))
    return EXIT_FAILED if any(row["failed"] for row in found) else EXIT_OK


def start(words: Sequence[str]) -> None:
    """Runs pytest, which says itself what it finds."""
    subprocess.run([sys.executable, "-m", "pytest", *words])


def cases(text: str) -> list[Case]:
    """Of a JUnit file."""
    found = []
    for one in ElementTree.fromstring(text).iter("testcase"):
        kinds = {child.tag for child in one}
        outcome = "passed"
        if kinds & {"failure", "error"}:
            outcome = "failed"
        elif "skipped" in kinds:
            outcome = "skipped"
        file = one.get("classname", "").replace(".", "/") + ".py"
        found.append(Case(file, outcome, float(one.get("time", 0))))
    return found


def rows(found: Iterable[Case]) -> list[dict[str, Any]]:
    """How many tests of each file ended how, and their seconds."""
    by_file: dict[str, list[Case]] = {}
    for case in found:
        by_file.setdefault(case.file, []).append(case)
    return [
        {
            "file": file,
            "tests": len(mine),
            **{
                outcome: sum(case.outcome == outcome for case in mine)
                for outcome in ("passed", "failed", "skipped")
            },
            "seconds": sum(case.seconds for case in mine),
        }
        for file, mine in sorted(by_file.items())
    ]


if __name__ == "__main__":
    sys.exit(main())
