import dataclasses

import pytest

from uets_jax.data.composition import Mixture
from uets_jax.errors import UserError


def test_the_recipe_is_that_of_the_protocol():
    recipe = Mixture()
    assert recipe.target == "encyclopedic"
    assert not {"code", "other_lang", "web_noisy"} & set(recipe.near)
    shares = (recipe.unique, recipe.near_share, recipe.duplicates, recipe.noise)
    assert shares == (0.10, 0.25, 0.30, 0.35)
    assert recipe.bytes >= 20_000_000
    assert (recipe.copies, recipe.edit_rate) == ((2, 50), (0.02, 0.05))
    assert (recipe.edited, recipe.duplicated_target) == (0.5, 0.5)
    assert (recipe.word_shuffled, recipe.char_shuffled) == (0.5, 0.25)


def test_it_is_a_static_value():
    assert hash(Mixture()) == hash(Mixture())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Mixture().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"unique": 0.2}, "add up to 1"),
        ({"unique": -0.1, "near_share": 0.45}, "add up to 1"),
        ({"edited": 1.5}, "edited"),
        ({"overlap": -0.1}, "overlap"),
        ({"word_shuffled": 0.8}, "more than 1"),
        ({"copies": (1, 5)}, "copies"),
        ({"copies": (5, 2)}, "copies"),
        ({"edit_rate": (0.05, 0.02)}, "edit_rate"),
        ({"edit_rate": (0.0, 0.02)}, "edit_rate"),
        ({"piece": 100}, "pieces of 400 or more"),
        ({"bytes": 5000}, "ten times"),
        ({"near": ("encyclopedic",)}, "near"),
        ({"near": ("",)}, "near"),
        ({"target": "fiction"}, "near"),
        ({"unique": 0.0, "near_share": 0.35, "duplicated_target": 0.0}, "target text"),
        ({"seed": -1}, "seed"),
        ({"sample_bytes": -1}, "sample_bytes"),
    ],
)
def test_a_composition_that_cannot_be(wrong, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        Mixture(**wrong)
    assert "\n" not in str(caught.value)


def test_shuffled_text_has_the_topics_of_clean_text():
    assert Mixture().target_part == pytest.approx((0.10 + 0.15) / 0.65)


def test_needs_add_up_to_all_text_but_boilerplate_with_two_copies_each():
    recipe = Mixture(bytes=1_000_000, sample_bytes=5_000)
    clean = 0.10 + 0.25 + 0.30 / 2 + 0.35 * 0.75
    assert sum(recipe.needs) == pytest.approx(clean * 1_000_000 + 5_000)
    target, near = recipe.needs
    assert target == pytest.approx(5_000 + 175_000 + 262_500 * recipe.target_part)
    assert near == pytest.approx(sum(recipe.needs) - target)
