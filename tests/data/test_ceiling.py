import numpy as np
import pytest

from uets_jax.data.ceiling import (
    Text,
    budgets,
    ceiling,
    ceilings,
    passes,
    useful_share,
)

POOL = 1000
TEXTS = [
    *[Text(10, 1, True)] * 10,
    *[Text(10, 1, False)] * 25,
    *[Text(10, 5, True)] * 3,
    *[Text(30, 5, False)] * 1,
]


def test_after_one_pass_every_text_counts_once():
    assert useful_share(TEXTS, POOL, True) == pytest.approx(0.13)
    assert useful_share(TEXTS, POOL, False) == pytest.approx(0.28)
    assert ceiling(TEXTS, POOL, 0.0) == pytest.approx(1 / 0.13)
    assert ceiling(TEXTS, POOL, 0.2) == pytest.approx(1 / (0.13 + 0.2 * 0.28))


def test_the_formula_of_the_notes_gives_the_figures_of_the_notes():
    shares = [Text(150, 1, True), Text(350, 1, False)]
    assert ceiling(shares, POOL, 0.2) == pytest.approx(4.5, abs=0.05)
    shares = [Text(100, 1, True), Text(350, 1, False)]
    assert ceiling(shares, POOL, 0.1) == pytest.approx(7.4, abs=0.05)


def test_at_the_start_every_copy_counts():
    assert useful_share(TEXTS, POOL, True, 0.0) == pytest.approx(0.25)
    near = useful_share(TEXTS, POOL, True, 1e-9)
    assert near == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("seen", [0.2, 0.5, 0.9])
def test_in_between_it_is_what_random_draws_meet_for_the_first_time(seen):
    rng = np.random.default_rng(0)
    target = [text for text in TEXTS if text.target]
    met = [
        sum(t.size * (rng.random(t.copies) < seen).any() for t in target)
        for _ in range(4000)
    ]
    expected = np.mean(met) / (seen * POOL)
    assert useful_share(TEXTS, POOL, True, seen) == pytest.approx(expected, rel=0.02)


def test_the_table_has_the_headline_last():
    table = ceilings(TEXTS, POOL)
    assert [row["transfer"] for row in table[-3:]] == [0.0, 0.1, 0.2]
    assert {row["seen"] for row in table[-3:]} == {1.0}
    assert table[-3]["token_factor"] == pytest.approx(1 / 0.13, abs=1e-3)
    factors = [row["token_factor"] for row in table if row["transfer"] == 0]
    assert factors == sorted(factors)


def test_passes_over_pool_and_target_text():
    assert passes(TEXTS, 260.0) == pytest.approx(2)
    table = budgets(TEXTS, POOL, per_token=2.0)
    assert table[0]["tokens"] == 500_000
    assert table[0]["pool_passes"] == 1000
    assert table[0]["target_text_passes"] == pytest.approx(1e6 / 130, rel=1e-6)
