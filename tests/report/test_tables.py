"""Tables that compare: ratios to the base run, and what can't be compared."""

from pathlib import Path

import pytest

from uets_jax.report import tables
from uets_jax.report.blocks import DASH, TIMES, Cell, Note, Table
from uets_jax.report.run import Run

TOKENIZERS = "The tokenizers differ"
CORPORA = "The corpora differ"


def run(name="a", config=None, records=(), **summary) -> Run:
    return Run(name, Path(name), config or {}, summary, list(records), [])


def column(blocks, name):
    [table] = [block for block in blocks if isinstance(block, Table)]
    return [row[table.head.index(name)] for row in table.rows]


def notes(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, Note))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"tokenizer_sha256": "x"}, {"tokenizer_sha256": "y"}, TOKENIZERS),
        ({"tokenizer_sha256": "x"}, {"tokenizer_sha256": "x"}, None),
        ({"tokenizer_sha256": "x"}, {}, None),
        ({"tokenizer_sha256": "x"}, {"tokenizer_sha256": None}, None),
        ({}, {}, None),
        ({"corpus_sha256": "x"}, {"corpus_sha256": "y"}, CORPORA),
        ({"corpus_sha256": "x"}, {}, None),
    ],
)
def test_only_known_differences_are_told(first, second, said):
    shown = notes(tables.comparison([run(**first), run("b", **second)]))
    assert [s for s in (TOKENIZERS, CORPORA) if s in shown] == ([said] if said else [])


def test_the_name_of_a_tokenizer_says_nothing():
    one, two = ({"data": {"tokenizer": name}} for name in ("bpe:4096", "bytes"))
    same = {"tokenizer_sha256": "x"}
    for summary in (same, {}):
        compared = tables.comparison([run("a", one, **summary), run("b", two)])
        assert TOKENIZERS not in notes(compared)


def test_ratios_are_base_over_run():
    runs = [run(tokens=2000), run("b", tokens=1000), run("c")]
    shown = tables.comparison(runs)
    twice = Cell("1k", f"2{TIMES}")
    assert column(shown, "tokens") == [Cell("2k"), twice, Cell(DASH)]
    assert column(shown, "run")[0] == Cell("a", "base", color=0)
    assert "a over the run, so above 1 is better" in notes(shown)
    half = Cell("2k", f"0.5{TIMES}")
    shown = tables.comparison(runs, 1)
    assert column(shown, "tokens") == [half, Cell("1k"), Cell(DASH)]
    assert "b over the run" in notes(shown)


def test_columns_without_any_value_are_left_out():
    table, *_ = tables.comparison([run(tokens=1), run("b")])
    assert isinstance(table, Table)
    assert table.head == ["run", "tokens"]


def test_energy_is_compared_where_it_was_measured():
    runs = [run(joules=10.0), run("b", joules=None), run("c", joules=4.0)]
    shown = column(tables.comparison(runs), "energy measured")
    assert shown == [Cell("10 J"), Cell(DASH), Cell("4 J", f"2.5{TIMES}")]


def test_reach_is_the_first_record_as_good_as_the_base_at_its_end():
    quality = lambda *bits: [
        {"bits_per_byte": b, "tokens": 100 * (i + 1)} for i, b in enumerate(bits)
    ]
    runs = [run(records=quality(3.0, 2.0)), run("b", records=quality(1.9, 1.8))]
    shown = tables.reach([*runs, run("c", records=quality(2.1))])
    assert "at or below 2.000" in notes(shown)
    twice = Cell("100", f"2{TIMES}")
    assert column(shown, "tokens") == [Cell("200"), twice, Cell(DASH)]
    assert column(tables.reach(runs, 1), "tokens") == [Cell(DASH), Cell("200")]
    assert tables.reach([run()]) == []
