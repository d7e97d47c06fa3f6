import pytest

from uets_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_NON_FINITE,
    EXIT_STOPPED,
    NonFiniteLossError,
    StoppedError,
    UserError,
    exit_code,
    nearest,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), EXIT_BAD_INPUT),
        (NonFiniteLossError("x"), EXIT_NON_FINITE),
        (StoppedError("x"), EXIT_STOPPED),
    ],
)
def test_every_end_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_a_near_word_is_suggested_and_a_far_one_lists_the_choices():
    assert nearest("lenght", ["length", "depth"]) == "did you mean 'length'?"
    assert nearest("zzz", ["b", "a"]) == "choose from a, b"
