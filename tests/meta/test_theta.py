"""Weights of a learned rule on disk: exact, without pickle, with a card."""

import dataclasses
import json

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.theta import Card, load_theta, save_theta

CARD = Card(
    "toy", ("a", "b"), ("c",), 12.5, 1e9, 640, (50, 400), -0.1, 0.02, "abc", "make it"
)
THETA = {
    "gate": [np.float32([[1 / 3, -1e-30], [3e38, 0.0]]), np.float32([0.1])],
    "rate": np.float32(2.5),
}


def test_round_trip_is_exact(tmp_path):
    save_theta(tmp_path / "t.json", THETA, CARD)
    theta, card = load_theta(tmp_path / "t.json", THETA)
    chex.assert_trees_all_equal(theta, THETA)
    assert card == CARD
    assert not list(tmp_path.glob("*.tmp"))


def test_unknown_flops_stay_unknown(tmp_path):
    save_theta(tmp_path / "t.json", THETA, dataclasses.replace(CARD, flops=None))
    assert load_theta(tmp_path / "t.json", THETA)[1].flops is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r["weights"].pop("rate"), "'rate' is missing"),
        (lambda r: r["weights"].update(rat=0), "did you mean 'rate'"),
        (lambda r: r["weights"]["rate"].update(shape=[2]), r"shape \[2\], not \[\]"),
        (lambda r: r["weights"]["rate"].update(values=["x"]), "finite numbers"),
        (lambda r: r["card"].pop("commit"), "'commit' is missing"),
        (lambda r: r["card"].update(horizon=[1]), "two numbers"),
        (lambda r: r.pop("card"), "card: give an object"),
    ],
)
def test_a_wrong_file_is_named(change, match, tmp_path):
    path = tmp_path / "t.json"
    save_theta(path, THETA, CARD)
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=match):
        load_theta(path, THETA)


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(UserError, match="a is int32"):
        save_theta(tmp_path / "t.json", {"a": jnp.ones((), jnp.int32)}, CARD)
    with pytest.raises(UserError, match="not finite"):
        save_theta(tmp_path / "t.json", {"a": jnp.full((), jnp.nan)}, CARD)
    with pytest.raises(UserError, match="can't be read"):
        load_theta("nothing", THETA)
