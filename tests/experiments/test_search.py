import math

import pytest

from experiments.search import (
    Axis,
    best,
    edges,
    moved,
    next_point,
    settings,
    start,
    unbracketed,
)
from uets_jax.errors import UserError

AXES = (
    Axis("rate", (1, 2, 4, 8, 16), 2),
    Axis("decay", (0.0, 0.1, 0.3), 1, closed=True),
    Axis("schedule", ("wsd", "cosine"), 0, closed=True, closed_above=True),
)


def search(loss, trials=50, axes=AXES):
    """All trials of a search, in order."""
    losses = {}
    while (point := next_point(axes, losses, trials)) is not None:
        assert point not in losses
        losses[point] = loss(**settings(axes, point))
    return losses


def bowl(rate, decay, schedule):
    return math.log(rate / 8) ** 2 + (decay - 0.1) ** 2 + (schedule == "wsd")


def test_the_least_of_a_bowl_is_found_and_bracketed():
    losses = search(bowl)
    assert settings(AXES, best(losses)) == {
        "rate": 8,
        "decay": 0.1,
        "schedule": "cosine",
    }
    assert not edges(AXES, best(losses))
    assert not unbracketed(AXES, losses)
    assert next(iter(losses)) == start(AXES)


def test_it_ends_after_so_many_trials_and_says_what_is_open():
    losses = search(bowl, trials=3)
    assert len(losses) == 3
    assert "decay" in unbracketed(AXES, losses)


def test_a_best_value_at_an_open_end_is_on_an_edge():
    losses = search(lambda rate, decay, schedule: -rate - decay)
    assert set(edges(AXES, best(losses))) == {"rate", "decay"}
    losses = search(lambda rate, decay, schedule: abs(rate - 4) + decay)
    assert edges(AXES, best(losses)) == []  # no decay below 0


def test_what_diverges_is_worse_than_everything():
    losses = search(lambda rate, decay, schedule: None if rate > 1 else decay)
    assert settings(AXES, best(losses))["rate"] == 1
    with pytest.raises(UserError, match="every trial diverged"):
        best({(0, 0, 0): None})


def test_the_next_trial_depends_on_the_losses_alone():
    losses = search(bowl)
    points = list(losses)
    for n in range(1, len(points)):
        some = {p: losses[p] for p in reversed(points[:n])}
        assert next_point(AXES, some, 50) == points[n]


def test_moves_end_at_the_grid():
    assert moved(AXES, (4, 0, 0), 0, 1) is None
    assert moved(AXES, (4, 0, 0), 1, -1) is None
    assert moved(AXES, (4, 0, 0), 0, -1) == (3, 0, 0)
