import math

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.records import check_kept, read_record, settings_hash, write_record
from uets_jax.config import ExperimentConfig, OptimConfig, to_dict
from uets_jax.errors import UserError
from uets_jax.measure.machine import machine, versions

ROW = {"arm": "a", "bits_per_byte": 1.5, "steps": 3, "tuned": False, "joules": None}


def test_what_is_written_is_read_with_its_origin(tmp_path):
    config = {"arm": {"train": {"steps": 3}}}
    path = write_record("topic.table", [ROW], "run me", config, "note", out=tmp_path)
    assert path == tmp_path / "topic.table.json"
    record = read_record("topic.table", tmp_path)
    assert record["rows"] == [ROW]
    assert (record["command"], record["notes"]) == ("run me", "note")
    assert (record["machine"], record["versions"]) == (machine(), versions())
    assert record["config"] == config
    assert len(record["date"].split("-")) == 3
    assert "commit" in record


def test_a_second_record_replaces_the_first(tmp_path):
    for steps in (1, 2):
        write_record("a.b", [{"steps": steps}], "run", {}, out=tmp_path / "new")
    assert read_record("a.b", tmp_path / "new")["rows"] == [{"steps": 2}]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.b.json"]


def test_array_scalars_become_numbers(tmp_path):
    row = {"a": np.float32(0.5), "b": np.int64(2), "c": jnp.float32(1.5), "d": np.True_}
    write_record("a.b", [row], "run", {}, out=tmp_path)
    [plain] = read_record("a.b", tmp_path)["rows"]
    assert plain == {"a": 0.5, "b": 2, "c": 1.5, "d": True}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (math.nan, "row 1: x: nan is not finite"),
        (-math.inf, "not finite"),
        (np.float32("nan"), "not finite"),
        ([1, 2], "not a number or a text"),
        ({"train": 1}, "not a number or a text"),
        (np.zeros(2), "not a number or a text"),
        (1j, "not a number or a text"),
    ],
)
def test_a_value_that_no_table_can_show_is_refused(tmp_path, value, complaint):
    with pytest.raises(UserError, match=complaint):
        write_record("a.b", [ROW, {"x": value}], "run", {}, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", ["", "overhead", "a/b.c", "../a.b", "a..b", "a.b\n"])
def test_a_bad_name_is_refused(tmp_path, table):
    with pytest.raises(UserError, match=r"use topic\.table"):
        write_record(table, [ROW], "run", {}, out=tmp_path)


def test_no_rows_and_a_config_that_is_no_json_are_refused(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        write_record("a.b", [], "run", {}, out=tmp_path)
    for bad in (math.inf, object()):
        with pytest.raises(UserError, match=r"a\.b: config"):
            write_record("a.b", [ROW], "run", {"x": bad}, out=tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", r"a\.b\.json"),
        ("[]", "not the record"),
        ('{"table": "a.c"}', "not the record of a.b"),
        ('{"table": "a.b", "rows": [], "date": "", "command": ""}', "machine is miss"),
    ],
)
def test_a_broken_record_is_named(tmp_path, text, complaint):
    with pytest.raises(UserError, match=r"a\.b\.json"):
        read_record("a.b", tmp_path)
    (tmp_path / "a.b.json").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_record("a.b", tmp_path)


def test_a_settings_hash_is_of_what_is_not_default():
    plain = to_dict(ExperimentConfig())
    other = to_dict(ExperimentConfig(optim=OptimConfig(b1=0.5)))
    assert settings_hash(plain) != settings_hash(other)
    for config in (plain, other):
        before = settings_hash(config)
        config["optim"].pop("gate_every")  # as of a program that lacks the field
        assert settings_hash(config) == before


def test_a_part_does_not_take_the_place_of_the_whole(tmp_path):
    rows = [{"track": t, "arm": a} for t in ("clean", "mixture") for a in ("x", "y")]
    keys, whole = ("track", "arm"), {(r["track"], r["arm"]) for r in rows}
    check_kept("a.table", keys, set(), tmp_path)  # nothing there yet
    write_record("a.table", rows, "a command", {}, out=tmp_path)
    check_kept("a.table", keys, whole | {("clean", "z")}, tmp_path)
    with pytest.raises(UserError, match=r"clean y and 1 more.*--out"):
        check_kept("a.table", keys, {("clean", "x"), ("mixture", "x")}, tmp_path)
