import argparse
from pathlib import Path

import pytest

from experiments.arms import UNIT
from experiments.script import check_queue, command, ended, queue_parser
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError


def test_the_command_can_be_pasted_into_a_shell():
    found = command("growth", ["--only", "a b", "--seeds", "3"])
    assert found == "python -m experiments.growth --only 'a b' --seeds 3"


@pytest.mark.parametrize(
    ("error", "code"), [(UserError, 2), (NonFiniteLossError, 3), (StoppedError, 75)]
)
def test_what_ends_a_run_is_one_line_and_its_exit_code(error, code, capsys):
    def run():
        raise error("no such thing")

    assert ended("growth", run) == code
    assert capsys.readouterr().err == "growth: error: no such thing\n"


def test_a_run_that_ends_well_says_nothing(capsys):
    assert ended("growth", lambda: 0) == 0
    assert capsys.readouterr().err == ""


def test_an_error_of_the_program_is_not_hidden():
    def run():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ended("growth", run)


def test_the_flags_of_a_queue():
    found = queue_parser("growth", "runs/growth", seeds=5).parse_args([])
    assert (found.seeds, found.workers, found.worker, found.unit) == (5, 1, -1, UNIT)
    assert found.runs == Path("runs/growth")
    given = queue_parser("growth", "x").parse_args(["--runs", "y", "--unit", "1e9"])
    assert (given.runs, given.unit) == (Path("y"), 1e9)


def test_numbers_that_no_queue_can_have_are_refused():
    good = {"seeds": 1, "workers": 1, "unit": 1.0}
    check_queue(argparse.Namespace(**good))
    for bad in ({"seeds": 0}, {"workers": 0}, {"unit": 0.0}, {"unit": float("nan")}):
        with pytest.raises(UserError, match="above 0"):
            check_queue(argparse.Namespace(**good | bad))
