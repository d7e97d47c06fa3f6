import math

from experiments.optimizer_small_tuning import MOST, tuned


def bowl(at, tried):
    """(factor - at) squared on a log scale; what is asked for goes into `tried`."""

    def score(factor):
        tried.append(factor)
        return (math.log(factor) - math.log(at)) ** 2

    return score


def test_the_factor_is_the_argmin_of_the_grid():
    tried = []
    assert tuned(bowl(3.0, tried)) == 3.0
    assert sorted(tried) == [1 / 9, 1 / 3, 1.0, 3.0, 9.0]


def test_the_grid_goes_on_past_its_edge():
    for at in (3.0**5, 3.0**-4):
        tried = []
        found = tuned(bowl(at, tried))
        assert math.isclose(found, at)
        assert min(tried) < found < max(tried)


def test_a_rule_that_never_stops_to_gain_ends_the_search():
    tried = []
    assert tuned(bowl(3.0**99, tried)) == max(tried)
    assert len(tried) == MOST


def test_what_diverges_everywhere_is_tried_further_down():
    tried = []
    assert tuned(lambda factor: tried.append(factor) or min(1.0, factor / 0.02)) < 0.02
    assert min(tried) < 0.02
