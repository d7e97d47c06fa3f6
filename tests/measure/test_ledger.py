import time

import pytest

from uets_jax.measure.ledger import Ledger


def test_categories_add_up_to_the_wall_clock():
    start = time.perf_counter()
    ledger = Ledger()
    assert ledger.switch("train") == "prepare"
    time.sleep(0.02)
    assert ledger.switch("eval") == "train"
    time.sleep(0.01)
    found = ledger.to_dict()["seconds"]
    wall = time.perf_counter() - start
    assert sum(found.values()) == pytest.approx(wall, abs=0.005)
    assert found["train"] >= 0.02
    assert ledger.training_seconds() == pytest.approx(found["train"])


def test_an_account_goes_on_after_a_resume():
    first, second = Ledger(), Ledger()
    first.charge({"train": 10, "optimizer": 1}, tokens=5)
    first.charge({"evaluation": 7})
    first.joules = 3.0
    second.charge({"train": 20}, tokens=1)
    second.carry(first.to_dict())
    assert second.flops == {"train": 30, "optimizer": 1, "evaluation": 7}
    assert second.training_flops() == 31
    assert second.tokens == 6
    assert second.joules == 3.0
    assert second.seconds["prepare"] >= first.seconds["prepare"]
