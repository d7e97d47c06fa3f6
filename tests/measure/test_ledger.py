import json
import time

import pytest

from uets_jax.measure.ledger import Ledger
from uets_jax.measure.work import Cost


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
    step = Cost(matmul=10, elementwise=3, transcendental=2, bytes=40)
    first.charge({"forward_backward": step, "optimizer": Cost(matmul=1)}, tokens=5)
    first.charge({"evaluation": Cost(matmul=7)})
    first.joules = 3.0
    second.charge({"forward_backward": step * 2}, tokens=1)
    second.carry(json.loads(json.dumps(first.to_dict())))
    found = second.to_dict()
    assert found["flops"] == {"forward_backward": 39, "optimizer": 1, "evaluation": 7}
    assert found["matmul_flops"]["forward_backward"] == 30
    assert found["transcendentals"]["forward_backward"] == 6
    assert found["traffic_bytes"]["forward_backward"] == 120
    assert second.training_flops() == 40
    assert second.tokens == 6
    assert second.joules == 3.0
    assert second.seconds["prepare"] >= first.seconds["prepare"]
