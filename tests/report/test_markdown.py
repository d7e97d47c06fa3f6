"""The Markdown report has the figures of the HTML one, and nothing breaks out."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.errors import UserError
from uets_jax.report import html, markdown
from uets_jax.report.blocks import Cell, Fold, Heading, Note, Picture, Sample, Table
from uets_jax.report.run import load_runs

EVIL = "| a | `b` <script> \\ *c* [x](y)\n# d"
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture
def runs(tmp_path):
    """Two run directories with costs, events and phases."""
    for name, scale in (("slow", 2.0), ("fast", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"name": name, "a": scale}))
        lines = [
            {"step": n, "loss": 3 - n / 9, "tokens": n * 100 * scale, "flops": n * 1e9}
            for n in range(1, 9)
        ]
        lines.append({"step": 8, "valid_loss": 2.5, "bits_per_byte": 1.25})
        lines.append({"step": 6, "event": "growth", "detail": "2 | 3"})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        summary = {
            "name": name,
            "bits_per_byte": 1.25,
            "tokens": 800 * scale,
            "flops": {"forward_backward": 6e9 * scale, "optimizer": 2e9},
            "matmul_flops": {"forward_backward": 3e9 * scale},
            "seconds": {"train": 3.0, "compile": 1.0},
            "joules": None,
            "joules_estimate": 12.0,
            "bytes": {"step_peak": 2**20},
            "phases": [{"phase": 0, "mfu": 0.31, "line": "Bound by memory."}],
            "versions": {"jax": "0.10.2"},
            "commit": "83a22cf",
            "samples": [{"prompt": "The", "text": " ```old``` man."}],
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return [tmp_path / "slow", tmp_path / "fast"]


def table_rows(text):
    """Every table line as its cells, split at bars that are not escaped."""
    lines = [line for line in text.split("\n") if line.startswith("| ")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_one_run_has_every_part(runs, tmp_path):
    out = tmp_path / "r.md"
    assert markdown.write_markdown(runs[:1], out) == out
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# slow\n\nReached **1.250 bits per byte**")
    for part in (
        "| forward backward | 12G | 85.7% | 50.0% |",
        "| total | 14G | 100.0% | 42.9% |",
        "| train | 3 s | 75.0% |",
        "| measured | not measured |",
        "| estimate, not measured | 12 J |",
        "| peak of the step, as compiled | 1 MiB |",
        "| 6 | growth | 1.2k | 6G | 2 \\| 3 |",
        "Bound by memory.",
        "| 8 | 2.1",
        "█",
        "````text\nThe ```old``` man.\n````",
        "| `a` | `2.0` |",
        "| commit | `83a22cf` |",
    ):
        assert part in text


def test_several_runs_are_compared_with_the_base(runs):
    loaded = load_runs(runs)
    text = markdown.render_markdown(loaded)
    assert "| slow (base) | 1.250 | 1.6k |" in text
    assert "| fast | 1.250 (1×) | 800 (2×) |" in text  # noqa: RUF001
    assert "| differs | slow | fast |" in text
    assert "fast (base)" in markdown.render_markdown(loaded, "fast")
    with pytest.raises(UserError, match="base 'fst' is no run here"):
        markdown.render_markdown(loaded, "fst")


def test_both_renderings_have_the_same_figures(runs):
    loaded = load_runs(runs)
    page = html.render(loaded)
    for cells in table_rows(markdown.render_markdown(loaded)):
        for cell in cells:
            value = re.sub(r"[`\\]|---:?", "", cell).split(" (")[0].strip()
            assert markdown.escape(value) in page or value in page


def test_equal_input_gives_equal_bytes_and_no_image(runs, tmp_path):
    texts = [
        markdown.write_markdown(runs, tmp_path / name).read_bytes() for name in "ab"
    ]
    assert texts[0] == texts[1]
    assert b"![" not in texts[0]
    assert b"](" not in texts[0]


def test_lines_of_a_table_have_equal_cells(runs):
    for block in markdown.render_markdown(load_runs(runs)).split("\n\n"):
        assert len({len(row) for row in table_rows(block)}) <= 1


@given(ANY)
def test_no_text_leaves_its_cell_or_its_line(text):
    cells = [Cell(text, text), Cell(text, code=True)]
    shown = markdown.render(Table("t", [text, "b"], [cells, cells]))
    assert len(shown.split("\n")) == 4
    bare = re.sub(r"\\[\\|]", "", re.sub(r"(?<=[^`])`+ .*? `+(?= \|)", "", shown))
    assert all(line.count("|") <= 3 for line in bare.split("\n")) or "\\" in text
    for block in (Note(text), Heading(text)):
        assert "\n" not in markdown.render(block)


@given(ANY)
def test_a_fence_is_longer_than_any_in_the_text(text):
    shown = markdown.render(Sample("`" * (len(text) % 7), text))
    fence = shown.split("text\n")[0]
    inside = shown.removeprefix(f"{fence}text\n").removesuffix(f"\n{fence}")
    assert set(fence) == {"`"}
    assert fence not in inside


def test_hostile_text_is_plain():
    shown = markdown.escape(EVIL)
    assert "<" not in shown
    assert "\n" not in shown
    assert r"\[x\](y)" in shown
    assert r"\| a \| \`b\`" in shown
    assert markdown.code("a`b|c\nd") == r"`` a`b\|c d ``"
    assert markdown.code("") == ""


def test_folds_and_pictures():
    fold = Fold("a <b> _c_", [Note("n")])
    shown = markdown.render(fold)
    assert "<summary>a &lt;b&gt; _c_</summary>\n</details>" not in shown
    assert shown == ("<details>\n<summary>a &lt;b&gt; _c_</summary>\n\nn\n\n</details>")
    picture = Picture(lambda: "<svg/>", "words", [Note("n")])
    assert markdown.render(picture) == "```text\nwords\n```\n\nn"
    assert markdown.render(Picture(lambda: "<svg/>")) == ""
