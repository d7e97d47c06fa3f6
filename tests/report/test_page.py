"""What a report says first, and which parts it has."""

from pathlib import Path

import pytest

from uets_jax.report.page import lead, page, tiles
from uets_jax.report.run import Run


def run(name="a", records=(), **summary) -> Run:
    return Run(name, Path(name), {}, summary, list(records), ["odd"])


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([run()], "No validation result yet."),
        ([run(steps=7)], "No validation result yet, after 7 steps."),
        ([run(bits_per_byte=2.0)], "Reached [2.000 bits per byte] on held-out text."),
        (
            [run(bits_per_byte=2.0), run("b", bits_per_byte=1.5, tokens=2000)],
            "Best: [b] with [1.500 bits per byte] on held-out text for 2k tokens.",
        ),
        (
            [run(bits_per_byte=2, tokens=9, flops={"a": 1e12}, seconds={"a": 2.0})],
            "Reached [2.000 bits per byte] on held-out text for 9 tokens, 1 TFLOPs "
            "and 2 s.",
        ),
        (
            [run(bits_per_byte=2, unigram_bits_per_byte=4)],
            "Reached [2.000 bits per byte] on held-out text (unigram model: 4.000).",
        ),
    ],
)
def test_the_lead_says_what_came_out(runs, said):
    pieces = lead(runs)
    marked = [f"[{p}]" if i % 2 else p for i, p in enumerate(pieces)]
    assert "".join(marked) == said


def test_a_run_alone_has_tiles_and_no_comparison():
    shown = page([run()])
    titles = {s.title for s in shown.sections if s.blocks}
    assert (shown.title, shown.warnings) == ("a", ["odd"])
    assert len(shown.tiles) == 6
    assert "Comparison" not in titles


def test_several_runs_are_compared_and_their_warnings_named():
    shown = page([run(bits_per_byte=1), run("b")])
    assert shown.title == "Comparison of 2 runs"
    assert shown.warnings == ["a: odd", "b: odd"]
    assert shown.tiles == []
    assert shown.sections[0].title == "Comparison"
    assert shown.sections[0].blocks


def test_tiles_count_training_without_evaluation():
    seconds = {"compile": 5.0, "train": 15.0, "data": 1.0, "eval": 2.0}
    one = run(tokens=4096, steps=8, flops={"a": 9e9, "b": 1e9}, seconds=seconds)
    found = {tile.name: tile for tile in tiles(one)}
    assert found["time in all"].value == "23 s"
    assert found["time in all"].beside == "training 16 s"
    assert found["FLOPs"].value == "10G"
    assert found["training tokens"].beside == "8 steps"
    assert found["parameters"].value == "\N{EN DASH}"
