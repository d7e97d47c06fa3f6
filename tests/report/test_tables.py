"""Tables that count: ratios to the first run, shares, and what can't be compared."""

from pathlib import Path

import pytest

from uets_jax.report import tables, units
from uets_jax.report.markup import DASH, TIMES
from uets_jax.report.run import Run

TOKENIZERS = "The tokenizers differ"
CORPORA = "The corpora differ"


def run(name="a", config=None, records=(), **summary) -> Run:
    return Run(name, Path(name), config or {}, summary, list(records), [])


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
    shown = tables.comparison([run(**first), run("b", **second)])
    assert [s for s in (TOKENIZERS, CORPORA) if s in shown] == ([said] if said else [])


def test_the_name_of_a_tokenizer_says_nothing():
    one, two = ({"data": {"tokenizer": name}} for name in ("bpe:4096", "bytes"))
    same = {"tokenizer_sha256": "x"}
    shown = tables.comparison([run("a", one, **same), run("b", two, **same)])
    assert TOKENIZERS not in shown
    assert TOKENIZERS not in tables.comparison([run("a", one), run("b", two)])


def test_costs_are_compared_with_the_first_run():
    shown = tables.comparison([run(tokens=2000), run("b", tokens=1000), run("c")])
    assert f"<td>1k<small>0.5{TIMES}</small></td>" in shown
    assert "<td>2k</td>" in shown
    assert f"c</th><td>{DASH}</td>" in shown


def test_reach_is_the_first_record_as_good_as_the_first_run_at_its_end():
    quality = lambda *bits: [
        {"bits_per_byte": b, "tokens": 100 * (i + 1)} for i, b in enumerate(bits)
    ]
    runs = [run(records=quality(3.0, 2.0)), run("b", records=quality(1.9, 1.8))]
    shown = tables.reach([*runs, run("c", records=quality(2.1))])
    assert "at or below 2.000" in shown
    assert "<td>200</td>" in shown
    assert f"<td>100<small>0.5{TIMES}</small></td>" in shown
    assert f"c</th><td>{DASH}</td>" in shown
    assert tables.reach([run()]) == ""


def test_a_breakdown_has_shares_and_a_total():
    one = run(flops={"train": 9e9, "validation": 1e9})
    shown = tables.breakdown([one], "flops", "FLOPs", units.si)
    assert shown.index("train") < shown.index("validation")
    assert "<td>9G<small>90.0%</small>" in shown
    assert '<th scope="row">total</th><td>10G</td>' in shown
    assert "doesn" in tables.breakdown([run()], "flops", "FLOPs", units.si)
