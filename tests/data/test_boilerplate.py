import re
import zlib

import pytest

from uets_jax.data.boilerplate import BLOCKS, SLOTS, boilerplate
from uets_jax.data.draws import Draws


@pytest.mark.parametrize("size", [200, 777, 4096])
def test_it_is_nearly_as_long_as_asked_and_never_longer(size):
    for seed in range(5):
        text = boilerplate(size, Draws(seed))
        assert text.isascii()
        assert size - 60 < len(text) <= size
        assert text == text.strip()


@pytest.fixture(scope="module")
def pages():
    return [boilerplate(3000, Draws(seed)) for seed in range(20)]


def test_every_slot_is_filled(pages):
    assert not re.search(r"[{}]", "\n".join(pages))


def test_every_block_is_used_and_every_slot_known(pages):
    named = {name for block in BLOCKS for name in re.findall(r"\{([a-z]+)\}", block)}
    assert named - SLOTS.keys() == {"site", "mail"}
    text = "\n".join(pages)
    for block in BLOCKS:
        literal = max(re.split(r"\{[^}]*\}", block), key=len)
        assert literal in text


def test_a_page_is_of_one_site_and_pages_are_of_many(pages):
    sites = [set(re.findall(r"info@(\w+)\.example", page)) for page in pages]
    assert all(len(found) <= 1 for found in sites)
    assert len(set().union(*sites)) > 10


def test_boilerplate_packs_better_than_its_number_of_pages(pages):
    alone = sum(len(zlib.compress(page.encode())) for page in pages)
    assert len(zlib.compress("\n".join(pages).encode())) < 0.7 * alone


def test_equal_draws_give_equal_text():
    assert boilerplate(900, Draws("a")) == boilerplate(900, Draws("a"))
    assert boilerplate(900, Draws("a")) != boilerplate(900, Draws("b"))
