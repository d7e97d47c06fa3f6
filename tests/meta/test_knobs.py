"""Scales of knobs; assets come back as they were written, and bad ones are named."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.errors import UserError
from uets_jax.meta import knobs
from uets_jax.meta.knobs import Asset, Knob

ASSET = Asset(
    name="aql",
    values={"temperature": 0.7, "ratio": 4.0},
    flops=1.5e15,
    runs=40,
    commit="7a52021",
    seeds=(0, 1, 2),
    source="python -m experiments.aql_v2 --meta",
)


@given(st.floats(1e-4, 1e2))
def test_a_place_and_its_value_belong_together(value):
    for log in (False, True):
        knob = Knob("x", 1e-4, 1e2, log, 1.0)
        assert knob.from_unit(knob.to_unit(value)) == pytest.approx(value, abs=1e-12)


def test_the_middle_of_a_log_scale_is_the_geometric_mean():
    assert Knob("x", 1e-2, 1e2, True, 1.0).from_unit(0.5) == pytest.approx(1.0)
    assert Knob("x", 0.0, 4.0, False, 1.0).from_unit(0.5) == 2.0
    assert Knob("x", 0.0, 4.0, False, 1.0).from_unit(1.5) == 4.0


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ((1.0, 1.0, False, 1.0), "x: low must be below high"),
        ((0.0, math.inf, False, 1.0), "x: low must be below high"),
        ((math.nan, 1.0, False, 1.0), "x: low must be below high"),
        ((0.0, 1.0, True, 0.5), "x: a log scale needs low above 0"),
        ((0.0, 1.0, False, 2.0), "x: the start 2.0 is out of bounds"),
    ],
)
def test_a_knob_that_is_none_is_refused(bad, complaint):
    with pytest.raises(UserError, match=complaint):
        Knob("x", *bad)


def test_an_asset_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "weights" / "aql.json"
    knobs.write(path, ASSET)
    assert knobs.read(path) == ASSET
    assert knobs.read(str(path), ["ratio", "temperature"]) == ASSET
    first = path.read_bytes()
    knobs.write(path, knobs.read(path))
    assert path.read_bytes() == first


def test_a_shipped_asset_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(knobs, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match="unknown asset 'aql': none is shipped"):
        knobs.read("aql")
    knobs.write(tmp_path / "aql.json", ASSET)
    assert knobs.read("aql") == ASSET
    with pytest.raises(UserError, match="unknown asset 'aqk': did you mean 'aql'"):
        knobs.read("aqk")


ROW = json.loads(json.dumps(dataclasses.asdict(ASSET)))
BROKEN = [
    ({"name": ""}, "name: give a text"),
    ({"values": {}}, "values: give an object of finite numbers"),
    ({"values": {"a": True}}, "values: give an object of finite numbers"),
    ({"values": {"a": "1"}}, "values: give an object of finite numbers"),
    ({"values": {"a": math.nan}}, "values: give an object of finite numbers"),
    ({"values": [1]}, "values: give an object of finite numbers"),
    ({"flops": 0}, "flops: give a number above 0, not 0"),
    ({"flops": math.inf}, "flops: give a number above 0"),
    ({"runs": 1.5}, "runs: give a whole number above 0"),
    ({"runs": True}, "runs: give a whole number above 0"),
    ({"commit": 7}, "commit: give a text, not 7"),
    ({"seeds": []}, "seeds: give a list of whole numbers"),
    ({"seeds": 3}, "seeds: give a list of whole numbers"),
    ({"seeds": [1, "2"]}, "seeds: give a list of whole numbers"),
    ({"note": None}, "note: give a text, not None"),
    ({"sead": [1]}, "unknown field 'sead': did you mean 'seeds'"),
]


@pytest.mark.parametrize(("change", "complaint"), BROKEN)
def test_a_wrong_field_is_named_with_its_file(tmp_path, change, complaint):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**ROW, **change}), "utf-8")
    with pytest.raises(UserError, match=rf"x.json: {complaint}"):
        knobs.read(path)


@pytest.mark.parametrize("field", [f for f in ROW if f != "note"])
def test_a_missing_field_is_named(tmp_path, field):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({k: v for k, v in ROW.items() if k != field}), "utf-8")
    with pytest.raises(UserError, match=rf"x.json: the field '{field}' is missing"):
        knobs.read(path)


def test_an_asset_that_is_made_wrong_is_refused():
    with pytest.raises(UserError, match="aql: runs: give a whole number above 0"):
        dataclasses.replace(ASSET, runs=0)


def test_whole_numbers_are_read_as_floats(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**ROW, "flops": 10**15, "values": {"a": 1}}), "utf-8")
    asset = knobs.read(path)
    assert isinstance(asset.flops, float)
    assert isinstance(asset.values["a"], float)


def test_values_of_other_knobs_are_refused(tmp_path):
    path = tmp_path / "x.json"
    knobs.write(path, ASSET)
    with pytest.raises(UserError, match=r"the knob 'band' is missing"):
        knobs.read(path, ["ratio", "temperature", "band"])
    with pytest.raises(
        UserError, match=r"unknown knob 'temperature': choose from ratio"
    ):
        knobs.read(path, ["ratio"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "broken JSON"), ("[1]", "expected an object"), ("\x00", "broken JSON")],
)
def test_a_file_that_is_no_object_is_refused(tmp_path, text, complaint):
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=rf"x.json: {complaint}"):
        knobs.read(path)
    with pytest.raises(UserError, match=r"y.json: can't be read"):
        knobs.read(tmp_path / "y.json")
