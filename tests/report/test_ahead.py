from pathlib import Path

from uets_jax.report.ahead import DECAYS, ROWS, ahead
from uets_jax.report.blocks import DASH, TIMES, Heading, Note, Picture, Table
from uets_jax.report.run import Run


def record(step, **more):
    return {"step": step, "loss": 3.0, "flops": 1e9 * step, **more}


def run(*records, name="a", **summary) -> Run:
    config = {"train": {"baseline": "stored/b2m.json"}}
    return Run(name, Path(name), config, summary, list(records), [])


FIRST = record(1, ahead_flops_below=0.5, ahead_bytes=0.9)
MANY = [record(n, ahead_flops=n / 10, ahead_seconds=n / 20) for n in range(2, 101)]


def test_a_run_without_a_baseline_has_no_section():
    assert ahead([run(record(1), record(2))]) == []


def test_rows_show_bounds_and_ratios():
    picture, told, table = ahead([run(FIRST, *MANY)])
    assert isinstance(picture, Picture)
    assert "Ahead of the baseline" in picture.draw()
    assert isinstance(told, Note)
    assert told.text.startswith("Against b2m. ")
    assert isinstance(table, Table)
    texts = [[cell.text for cell in row] for row in table.rows]
    assert list(table.head) == ["step", "FLOPs", "time", "peak memory"]
    assert texts[0] == ["1", f"<0.5{TIMES}", DASH, f"0.9{TIMES}"]
    assert texts[-1] == ["100", f"10{TIMES}", f"5{TIMES}", DASH]
    assert len(texts) <= ROWS


def test_an_own_decay_is_marked():
    blocks = ahead([run(*MANY, record(101, ahead_flops=11.0, ahead_decays=1.0))])
    table = next(b for b in blocks if isinstance(b, Table))
    assert [row[-1].text for row in table.rows][-2:] == ["", "decays"]
    assert blocks[-1] == Note(DECAYS)


def test_validations_stand_in_where_training_can_not_be_compared():
    valid = {"step": 4, "valid_loss": 2.0, "bits_per_byte": 1.5, "flops": 4e9}
    steps = [record(n) for n in range(1, 5)]
    picture_less = ahead([run(*steps, {**valid, "ahead_flops": 2.0})])
    assert [type(b) for b in picture_less] == [Note, Table]
    mixed = ahead([run(*MANY, {**valid, "step": 101, "ahead_flops": 99.0})])
    assert "99" not in str([b for b in mixed if isinstance(b, Table)])


def test_several_runs_have_a_table_each():
    blocks = ahead([run(*MANY), run(*MANY, name="b", baseline={"name": "b0"})])
    assert [b.text for b in blocks if isinstance(b, Heading)] == ["a", "b"]
    assert any(isinstance(b, Note) and "Against b2m, b0." in b.text for b in blocks)
