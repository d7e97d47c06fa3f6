import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from uets_jax.config import GrowthConfig
from uets_jax.errors import UserError
from uets_jax.growth.prune import (
    counts,
    gradual,
    keep_heads,
    keep_hidden,
    keep_layers,
    magnitude,
    random_scores,
    schedule,
)
from uets_jax.growth.stages import parse

SCORES = np.array([[1.0, 4, 3, 2], [9, 0, 1, 5]])


# How much by when


@pytest.mark.parametrize("kind", ["once", "linear", "cubic"])
def test_a_schedule_rises_from_nothing_to_all_of_it(kind):
    share = schedule(kind, 0.2, 0.7, 0.5)
    found = [share(p) for p in np.linspace(0, 1, 41)]
    assert share(0.19) == 0
    assert share(0.7) == share(1.0) == 0.5
    assert found == sorted(found)


def test_the_curves_are_the_papers():
    half = lambda kind: schedule(kind, 0.0, 1.0, 0.8)(0.5)
    assert half("once") == 0.8
    assert half("linear") == pytest.approx(0.4)
    assert half("cubic") == pytest.approx(0.8 + (0 - 0.8) * (1 - 0.5) ** 3)


def test_without_time_all_goes_at_once():
    share = schedule("cubic", 0.5, 0.5, 0.25)
    assert (share(0.49), share(0.5)) == (0.0, 0.25)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (("cubical", 0.0, 1.0, 0.5), "kind: 'cubical': did you mean 'cubic'"),
        (("once", 0.6, 0.5, 0.5), "start, end: 0.6, 0.5"),
        (("once", -0.1, 0.5, 0.5), "start, end"),
        (("once", 0.1, 0.5, 1.0), "final: 1.0"),
    ],
)
def test_a_schedule_that_is_none(given_, message):
    with pytest.raises(UserError, match=message):
        schedule(*given_)


# How many


@pytest.mark.parametrize(
    ("share", "units", "multiple", "kept"),
    [
        (0.0, 12, 1, 12),
        (0.7, 10, 1, 3),  # 1 - 0.7 is a little more than 0.3
        (0.34, 12, 1, 8),
        (0.34, 12, 4, 8),
        (0.3, 12, 4, 12),
        (0.99, 12, 4, 4),
    ],
)
def test_never_more_goes_than_asked(share, units, multiple, kept):
    assert counts(share, units, multiple) == kept


@pytest.mark.parametrize(("share", "units", "m"), [(1.0, 4, 1), (0.5, 6, 4), (0, 4, 0)])
def test_counts_that_are_none(share, units, m):
    with pytest.raises(UserError, match=r"share: 1.0|units: 6|units: 4"):
        counts(float(share), units, m)


# A plan of both


def test_a_gradual_plan_follows_the_schedule():
    plan = gradual("hidden", 256, 128, 0.5, 0.8, events=4, multiple=8)
    stages = parse(GrowthConfig("fixed", plan))
    assert [s.share for s in stages] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    sizes = [op.size for s in stages for op in s.ops]
    share = schedule("cubic", 0.5, 0.8, 0.5)
    for number, size in enumerate(sizes[:-1], 1):
        wanted = 256 * (1 - share(0.5 + 0.3 * number / 4))
        assert wanted <= size < wanted + 8
    assert sizes[-1] == 128


def test_events_that_take_nothing_away_are_left_out():
    assert gradual("depth", 4, 2, 0.5, 0.8, events=8).count("=") <= 2
    assert gradual("heads", 8, 4, 0.5, 0.5, events=1) == "heads=4:0.5"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"field": "width"}, "field: 'width'"),
        ({"final": 8}, "final: 8: need 1 to 7 of the 8"),
        ({"events": 0}, "events"),
        ({"end": 0.5}, "need room"),
        ({"end": 1.0}, "need 0 < start <= end < 1"),
        ({"start": 0.0}, "need 0 < start <= end < 1"),
        ({"kind": "cubics"}, "did you mean 'cubic'"),
    ],
)
def test_a_bad_gradual_plan_is_one_line(changes, complaint):
    good = {"field": "heads", "units": 8, "final": 4, "start": 0.5, "end": 0.8}
    with pytest.raises(UserError, match=complaint):
        gradual(**{**good, **changes})


# Which


def test_the_best_heads_of_each_layer_stay_in_their_order():
    kept = keep_heads(SCORES, 2, groups=4)
    assert kept.query == kept.key == ((1, 2), (0, 3))


def test_groups_of_heads_stay_or_go_as_one():
    """Sums 5 : 5 (the first wins) and 9 : 6."""
    kept = keep_heads(jnp.asarray(SCORES), 2, groups=2)
    assert kept.query == ((0, 1), (0, 1))
    assert kept.key == ((0,), (0,))
    assert keep_heads(SCORES[:, ::-1], 2, groups=2).key == ((0,), (1,))


def test_kept_groups_attend_as_before():
    """Cut out of a grouped attention, the kept heads put out what they did."""
    draw = lambda seed, n: jax.random.normal(jax.random.key(seed), (2, 5, n, 4))
    q, k, v = draw(0, 6), draw(1, 3), draw(2, 3)
    kept = keep_heads(np.array([[1.0, 1, 0, 0, 2, 2]]), 4, groups=3)
    query, key = (jnp.asarray(rows[0]) for rows in kept)
    attend = lambda *x: jax.nn.dot_product_attention(*x, is_causal=True)
    cut = attend(q[:, :, query], k[:, :, key], v[:, :, key])
    np.testing.assert_allclose(cut, attend(q, k, v)[:, :, query], rtol=1e-5)


@given(
    hnp.arrays(np.float64, (2, 8), elements=st.floats(0, 9)), st.sampled_from([1, 3, 8])
)
@settings(max_examples=25)
def test_nothing_that_goes_is_better_than_what_stays(scores, n):
    for row, kept in zip(scores, keep_hidden(scores, n), strict=True):
        assert list(kept) == sorted(set(kept))
        assert len(kept) == n
        gone = np.delete(row, kept)
        assert not gone.size or gone.max() <= row[list(kept)].min()


def test_the_first_layer_always_stays():
    increase = np.array([-1.0, 0.3, 0.1, 0.2])
    assert keep_layers(increase, 3) == (0, 1, 3)
    assert keep_layers(increase, 2) == (0, 1)
    assert keep_layers(increase, 1) == (0,)
    assert keep_layers(increase, 4) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: keep_heads(SCORES, 3, 2), "n: 3 heads: need a multiple of 2"),
        (lambda: keep_heads(SCORES, 0, 4), "n: 0 heads"),
        (lambda: keep_heads(SCORES, 2, 3), "groups: 3: need a divisor of the 4"),
        (lambda: keep_hidden(SCORES, 5), "n: 5 units: need 1 to 4"),
        (lambda: keep_layers(SCORES[0], 5), "n: 5 layers: need 1 to 4"),
        (lambda: keep_hidden(np.where(SCORES > 8, np.nan, 1), 2), r"nan at \(1, 0\)"),
    ],
)
def test_a_choice_that_is_none(choose, message):
    with pytest.raises(UserError, match=message):
        choose()


# The arms to compare with


def test_magnitude_is_the_norm_of_what_a_unit_writes_with(program, tiny):
    model = tiny.model
    params = jax.tree.map(
        lambda x: x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) / x.size,
        program.init(jax.random.key(0)),
    )
    heads, hidden = magnitude(params)
    assert heads.shape == (model.depth, model.heads)
    assert hidden.shape == (model.depth, model.hidden)
    blocks = params["blocks"]
    one = np.linalg.norm(np.ravel(blocks["attention"]["output"]["w"][1, 0]))
    np.testing.assert_allclose(heads[1, 0], one, rtol=1e-5)
    one = np.linalg.norm(blocks["mlp"]["down"]["w"][0, 7])
    np.testing.assert_allclose(hidden[0, 7], one, rtol=1e-5)


def test_magnitude_of_another_model_is_an_error():
    with pytest.raises(UserError, match="blocks/attention/output/w is no array"):
        magnitude({"blocks": {"attention": {}}})


def test_a_random_choice_is_fair_and_repeats(key):
    draws = [keep_hidden(random_scores(k, 1, 4), 2) for k in jax.random.split(key, 400)]
    number = np.bincount(np.ravel(draws), minlength=4)
    np.testing.assert_allclose(number, 200, atol=50)  # 5 sd
    again = lambda: random_scores(jax.random.key(3), 2, 4)
    np.testing.assert_array_equal(again(), again())
