"""Warm-up specs, phases, and the cut of a batch into shorter rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.curriculum.length import check, cut, parse, phases
from uets_jax.data import windows
from uets_jax.errors import UserError
from uets_jax.types import Batch


def test_a_spec_is_read_in_pairs():
    assert parse("32:0.1,64:0.3", 128) == ((32, 0.1), (64, 0.3))
    assert parse(" 32:.5 , ", 128) == ((32, 0.5),)
    assert parse("", 128) == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("32", "write length:share"),
        ("32:", "write length:share"),
        ("a:0.1", "'a:0.1'"),
        ("48:0.1", "48 must divide 128"),
        ("128:0.1", "128 must divide 128 and be less"),
        ("0:0.1", "0 must divide"),
        ("-32:0.1", "-32 must divide"),
        ("64:0.1,32:0.3", "lengths must rise, 64 came before"),
        ("32:0.3,64:0.3", "shares must rise from 0.3"),
        ("32:0", "shares must rise from 0"),
        ("32:1.5", "at most 1"),
        ("32:nan", "at most 1"),
    ],
)
def test_a_bad_spec_is_named(text, named):
    with pytest.raises(UserError, match=named):
        parse(text, 128)


def test_check_takes_pairs_from_code():
    assert check([(32, 0.1)], 64) == ((32, 0.1),)


def test_phases_cover_all_steps():
    assert phases(100, ((32, 0.1), (64, 0.3)), 128) == ((10, 32), (30, 64), (100, 128))
    assert phases(100, (), 128) == ((100, 128),)


def test_phases_without_steps_are_left_out():
    assert phases(4, ((16, 0.05), (32, 0.3), (64, 1.0)), 128) == ((1, 32), (4, 64))


@pytest.mark.parametrize("length", [4, 8, 16])
def test_a_cut_batch_is_that_of_windows_of_this_length(length):
    tokens = np.random.default_rng(0).integers(0, 6, 16 * 7 + 1).astype(np.int32)
    whole = windows.cut(tokens, 0, 16, np.arange(7))
    short = windows.cut(tokens, 0, length, np.arange(7 * 16 // length))
    found = jax.jit(cut, static_argnums=1)(Batch(*map(jnp.asarray, whole)), length)
    for name in ("tokens", "targets", "segments"):
        np.testing.assert_array_equal(getattr(found, name), getattr(short, name))
    np.testing.assert_array_equal(found.ids, np.repeat(np.arange(7), 16 // length))


def test_a_length_that_does_not_divide_is_an_error(batch):
    with pytest.raises(UserError, match="must divide the rows' length 32"):
        cut(batch, 12)
