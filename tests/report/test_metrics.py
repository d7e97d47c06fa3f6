"""The metrics file survives kills and holds valid JSON only."""

import json
import math

import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.report.metrics import MetricsWriter, cut_back, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def write(path, *records):
    with MetricsWriter(path) as writer:
        for record in records:
            writer.write(record)


def test_records_come_back_in_order_and_across_writers(path):
    write(path, {"step": 1, "loss": 3.5}, {"step": 2, "event": "stop", "detail": "é\n"})
    write(path, {"step": 3, "loss": np.float32(2.5), "tokens": np.int64(7)})
    assert read_metrics(path) == [
        {"step": 1, "loss": 3.5},
        {"step": 2, "event": "stop", "detail": "é\n"},
        {"step": 3, "loss": 2.5, "tokens": 7},
    ]


def test_non_finite_numbers_are_null_and_named(path):
    bad = {"step": 1, "loss": math.nan, "grad_norm": np.float32(np.inf)}
    write(path, {**bad, "parts": {"a": [1.0, -math.inf]}})

    def fail(constant):
        raise AssertionError(constant)

    record = json.loads(path.read_text(), parse_constant=fail)
    assert record["loss"] is record["grad_norm"] is record["parts"]["a"][1] is None
    assert record["nonfinite"] == ["loss", "grad_norm", "parts.a"]


def test_flush_makes_records_visible_and_close_can_be_repeated(path):
    writer = MetricsWriter(path)
    writer.write({"step": 1})
    writer.flush()
    assert read_metrics(path) == [{"step": 1}]
    writer.close()
    writer.close()


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/metrics\.jsonl"):
        MetricsWriter(tmp_path / "file" / "metrics.jsonl")


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3', "1", "\x00" * 5000])
def test_a_torn_last_line_is_ignored_and_never_glued_to_the_next(path, torn):
    write(path, {"step": 1}, {"step": 2})
    with open(path, "a") as file:
        file.write(torn)
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    write(path, {"step": 3})
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3]


def test_a_whole_last_line_without_its_end_is_kept(path):
    write(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2}')
    write(path, {"step": 3})
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3]


def test_a_broken_line_inside_names_file_and_line(path):
    write(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: "):
        read_metrics(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(UserError, match=r"metrics\.jsonl: No such file"):
        read_metrics(path)


def test_cut_back_keeps_lines_up_to_the_step_byte_for_byte(path):
    path.parent.mkdir()
    kept = '{"step":1,"loss":3.50}\n{"event": "start"}\n{"step": 2, "valid_loss": 3}\n'
    path.write_text(kept + '{"step": 3, "loss": 2.9}\n{"step": 4, "lo')
    cut_back(path, 2)
    assert path.read_text() == kept
    cut_back(path, 2)
    assert path.read_text() == kept
    assert [p.name for p in path.parent.iterdir()] == ["metrics.jsonl"]
    cut_back(path, 0)
    assert read_metrics(path) == [{"event": "start"}]


def test_cut_back_of_a_missing_file_does_nothing(path):
    cut_back(path, 3)
    assert not path.exists()


@pytest.fixture
def full(tmp_path):
    """A writer whose disk is full, with a line waiting."""
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer._file.close()
    writer._file = open("/dev/full", "ab")  # noqa: SIM115
    writer._file.write(b"{}")
    return writer


def test_a_full_disk_is_one_line_that_names_the_file(full):
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space left.*make room"):
        full.flush()
    with pytest.raises(UserError, match="No space left"):
        full.close()


def test_the_first_error_is_not_hidden_by_a_full_disk(full):
    with pytest.raises(KeyError), full:
        raise KeyError
