"""References that are kept for who made them; costs of windows and scores."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.augment import PLAIN
from uets_jax.meta.episode import doubling, mean_curve, reference
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.validate import scorer
from uets_jax.meta.workshop import Scoring, Workshop, bench, flops_of, references

CONFIG = MetaConfig(updates=1, episodes=4, window=5, reference=2, augment=PLAIN)


@pytest.fixture(scope="module")
def made(toy, bowl, tmp_path_factory):
    """References of two families, and their file."""
    path = tmp_path_factory.mktemp("references") / "reference.json"
    families = (bowl("one"), bowl("two", 3))
    return references(toy.make, toy.start, families, CONFIG, path), families, path


def test_references_are_those_of_the_nominal_rule(made, toy):
    found, families, path = made
    for i, family in enumerate(families):
        key = jax.random.fold_in(jax.random.key(CONFIG.seed), i)
        own = jax.jit(
            lambda key, family=family: reference(
                toy.make, toy.start, family, PLAIN, key, 2
            )
        )(key)
        np.testing.assert_allclose(found[family.name].curve, own.curve, rtol=1e-5)
        np.testing.assert_allclose(found[family.name].scale, own.scale, rtol=1e-5)
    assert json.loads(path.read_text()).keys() == {"one", "two"}


def unused(theta):
    raise AssertionError("the curve is known")


def moved(theta):
    raise RuntimeError("it is made again")


def test_a_known_curve_is_read_and_another_theta_or_setting_is_not(made, toy, tmp_path):
    found, families, path = made
    copy = tmp_path / "reference.json"
    copy.write_text(path.read_text())
    again = references(unused, toy.start, families, CONFIG, copy)
    for name, row in found.items():
        np.testing.assert_array_equal(row.curve, again[name].curve)
    other = {**toy.start, "momentum": jnp.ones(())}
    slower = (dataclasses.replace(families[0], learning_rate=0.01),)
    for theta, some, config in (
        (other, families, CONFIG),
        (toy.start, slower, CONFIG),
        (toy.start, families, dataclasses.replace(CONFIG, reference=3)),
    ):
        with pytest.raises(RuntimeError, match="made again"):
            references(moved, theta, some, config, copy)


@pytest.mark.parametrize("text", ["", "[1]", '{"one": {"curve": [1.0]}}', '{"one": 3}'])
def test_a_broken_file_is_made_again(text, toy, bowl, tmp_path):
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(RuntimeError, match="made again"):
        references(moved, toy.start, (bowl("one"),), CONFIG, path)


@pytest.mark.parametrize(("name", "signs"), [("nres", 2), ("tbptt", 1)])
def test_a_bench_counts_steps_and_flops_of_both_signs(name, signs, made, toy):
    found, (family, _), _ = made
    config = dataclasses.replace(CONFIG, estimator=name)
    one = bench(toy.make, toy.start, family, config, found["one"])
    assert one.steps == signs * 4 * 5
    twice = dataclasses.replace(config, episodes=8)
    two = bench(toy.make, toy.start, family, twice, found["one"])
    assert two.steps == 2 * one.steps
    assert 1.8 < two.flops / one.flops < 2.2


def test_flops_are_counted_or_unknown():
    a = jnp.ones((3, 4))
    assert flops_of(lambda x: x @ x.T, a) == 2 * 3 * 3 * 4
    endless = lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x)
    assert flops_of(endless, a) is None


def test_scores_are_stacked_by_family(toy, bowl):
    families = (bowl("one"), bowl("two", 3))
    scoring, scales = Scoring(toy.make, families), []
    found = scoring(toy.start, 5, 3)
    for row, family in zip(found, families, strict=True):
        score = jax.jit(scorer(toy.make, family))
        own, falls = score(toy.start, jnp.arange(5, 8), jnp.ones(()))
        np.testing.assert_allclose(row, own, rtol=1e-5, atol=1e-6)
        scales.append(float(doubling(mean_curve(falls))))
    np.testing.assert_allclose(scoring.scales, scales, rtol=1e-4)
    kept = list(scoring.scales)
    scoring({**toy.start, "log_step": jnp.ones(())}, 5, 3)
    assert scoring.scales == kept
    ratio = scoring.flops(toy.start, 6) / scoring.flops(toy.start, 3)
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_a_workshop_is_shared_by_equal_runs_only(toy, bowl, tmp_path):
    tasks = Tasks((bowl("one"),), (bowl("two"),))
    shop = Workshop(toy.make, toy.start, tasks, CONFIG, tmp_path / "own" / "r.json")
    assert [*shop.benches] == ["one"]
    free = dataclasses.replace(CONFIG, sigma=0.5, rate=0.1, seed=3)
    shop.check(toy.make, tasks, free, None)
    for make, config in (
        (moved, CONFIG),
        (toy.make, dataclasses.replace(CONFIG, episodes=CONFIG.episodes * 2)),
    ):
        with pytest.raises(UserError, match="another rule or settings"):
            shop.check(make, tasks, config, None)
