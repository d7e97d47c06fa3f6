import dataclasses
import json

import pytest

from uets_jax.errors import UserError
from uets_jax.growth.learned import SHIPPED, Policy, load_policy, save_policy
from uets_jax.growth.score import FEATURES, START

POLICY = Policy(START, 1e12, 300.0, {"track": "clean", "steps": [240]}, "abc", "cmd")


def test_a_policy_comes_back_as_it_was(tmp_path):
    save_policy(tmp_path / "new" / "p.json", POLICY)
    assert load_policy(tmp_path / "new" / "p.json") == POLICY


def test_the_shipped_policy_says_what_it_cost():
    found = load_policy()
    assert found == load_policy(SHIPPED)
    assert len(found.weights) == len(FEATURES)
    assert found.flops > 0
    assert found.core_seconds > 0
    assert found.config


ODD = [
    ({"weights": [1.0]}, "weights: give 8 finite numbers"),
    ({"weights": [float("inf")] * 8}, "weights: give 8 finite numbers"),
    ({"weights": [True] * 8}, "weights: give 8 finite numbers"),
    ({"features": ["bias"]}, "features: give ['bias', 'progress'"),
    ({"flops": -1}, "flops: give a finite number"),
    ({"config": None}, "config: give an object"),
    ({"commit": ""}, "commit: give a text"),
    ({"weigths": 1}, "unknown field 'weigths': did you mean 'weights'?"),
]


@pytest.mark.parametrize(("change", "said"), ODD)
def test_an_odd_file_is_refused_by_name(change, said, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(dataclasses.asdict(POLICY) | change))
    with pytest.raises(UserError) as error:
        load_policy(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "{}"])
def test_a_broken_file_is_refused(text, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken JSON|expected an object|is missing"):
        load_policy(path)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"experiments\.growth_policy"):
        load_policy(tmp_path / "none.json")
