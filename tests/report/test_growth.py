"""Changes of a model's shape, in words and figures, and what its layers did."""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from uets_jax.report import html, markdown
from uets_jax.report.blocks import Heading, Note, Picture, Table
from uets_jax.report.changes import ARROW
from uets_jax.report.growth import FALL, MAPPED, growth
from uets_jax.report.metrics import MetricsWriter
from uets_jax.report.page import page
from uets_jax.report.run import Run, load_run

NS = "{http://www.w3.org/2000/svg}"
EVIL = "<script>alert('x')</script>\"&|`"
FIELDS = {"exact": True, "loss_before": 3.0, "loss_after": 3.25, "params": 2000}
FLOPS = {"step_flops_before": 1e6, "step_flops": 3e6, "flops": 5e6}
DEEPER = {
    "step": 5,
    "ops": [{"field": "depth", "size": 3, "how": "identity", "keep": []}],
    "why": "its share",
    "begun_anew": 0,
    **FIELDS,
    **FLOPS,
}


def event(step, detail="depth 2 -> 3 (its share)", **more):
    return {
        "step": step,
        "event": "growth",
        "detail": detail,
        **FIELDS,
        **FLOPS,
        **more,
    }


def look(step, depth=2, many=2, **more):
    values = [0.5 / (i + 1) for i in range(depth)]
    names = ("influence", "removal", "rank", "similarity", "gradient", "saturation")
    signals = dict.fromkeys(names, values)
    signals["heads"] = [[v] * many for v in values]
    return {"step": step, "signals": {**signals, "noise_scale": 8.0 * step, **more}}


def run(*records, name="a", config=None, **summary) -> Run:
    return Run(name, Path(name), config or {}, summary, list(records), [])


def table(blocks, name="changes"):
    [found] = [b for b in blocks if isinstance(b, Table) and b.name == name]
    return [dict(zip(found.head, row, strict=True)) for row in found.rows]


def pictures(blocks):
    """The SVG elements in the drawn pictures, by their names."""
    drawn = "".join(b.draw() for b in blocks if isinstance(b, Picture))
    trees = map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", drawn, re.DOTALL))
    return {tree.get("aria-label"): tree for tree in trees}


def cells(svg):
    groups = [g for g in svg.iter(f"{NS}g") if g.get("class") == "heat"]
    return [[cell.findtext(f"{NS}title") for cell in group] for group in groups]


@pytest.mark.parametrize("odd", [None, "x", {}, [], ["x"], math.nan, 10**400])
def test_nonsense_is_no_error(odd):
    listed = [{**DEEPER, key: odd} for key in DEEPER]
    listed += [{**DEEPER, "ops": [{"field": odd, "size": odd, "keep": odd}]}]
    signals = dict.fromkeys(("influence", "heads", "rank", "noise_scale"), odd)
    lines = [{"step": 1, "signals": signals}, {"step": odd, "signals": odd}, event(odd)]
    config = {"model": odd}
    for summary in ({"growth": odd}, {"growth": listed}, {"growth": [odd]}):
        one = run(*lines, config=config, **summary)
        assert "<html" in html.render([one])
        assert markdown.render_markdown([one]).startswith("#")


def test_flops_per_step_are_stairs():
    one = run(growth=[DEEPER, {**DEEPER, "step": 8}], steps=10)
    [svg] = pictures(growth([one])).values()
    ends = "curve: from step 0, value 1M to step 10, value 3M"
    assert svg.findtext(f"{NS}desc") == ends
    [path] = [p for p in svg.iter(f"{NS}path") if "line" in p.get("class", "")]
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
    across, down = numbers[::2], numbers[1::2]
    assert across == sorted(across)
    moves = zip(across, across[1:], down, down[1:], strict=False)
    assert all(a == b or c == d for a, b, c, d in list(moves)[:2])


def test_layers_and_heads_have_a_map_each_with_blanks():
    lines = [look(2), look(4), look(6, depth=3, many=3)]
    shown = pictures(growth([run(*lines, growth=[DEEPER])]))
    named = [n for n in shown if n.endswith("of each layer against steps")]
    assert len(named) == 5
    for name in named:
        assert [len(row) for row in cells(shown[name])] == [3, 3, 1]
    heads = cells(shown["Head importance of each layer.head against steps"])
    assert [len(row) for row in heads] == [3, 3, 1, 3, 3, 1, 1, 1, 1]
    assert heads[5] == ["layer 1, head 2, step 6: 0.25"]
    marks = [g for g in shown[named[0]].iter(f"{NS}g") if g.get("class") == "mark c1"]
    assert [m.findtext(f"{NS}title") for m in marks] == [
        f"step 5: depth {ARROW} 3 (identity)"
    ]


def test_missing_and_infinite_readings_are_survived(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as file:
        file.write(look(1, influence=[math.nan, 0.5], noise_scale=math.inf))
        file.write({"step": 2, "signals": {"influence": [0.25, math.inf, 0.1]}})
        file.write(look(3, rank=None, similarity=[None, None], heads=[0.5]))
    (tmp_path / "summary.json").write_text("{}")
    one = load_run(tmp_path)
    assert not [note for note in one.notes if "NaN" in note]
    shown = pictures(growth([one]))
    rows = cells(shown["Influence of each layer against steps"])
    assert [len(row) for row in rows] == [3, 3, 1]
    assert rows[0][0] == "layer 0, step 1: no finite value"
    assert "gradient noise scale against steps" in shown


def test_only_signals_may_be_infinite_without_a_warning(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as file:
        file.write({"step": 1, "loss": 1.0, "signals": {"noise_scale": math.inf}})
        file.write({"step": 2, "loss": math.nan, "signals": {"noise_scale": math.nan}})
    [*_, told] = load_run(tmp_path).notes
    assert told.startswith(
        "1 metrics record (the first at step 2) held NaN or infinity in loss;"
    )


def test_several_runs_have_a_heading_each_and_bounded_maps():
    runs = [run(*(look(n, 4, 4) for n in range(300)), name=f"r{i}") for i in range(7)]
    blocks = growth([*runs, run(name="quiet")])
    titles = [b.text for b in blocks if isinstance(b, Heading)]
    assert titles == [f"r{i}" for i in range(MAPPED)]
    assert blocks[-1] == Note("The layers of 3 more are shown in their own reports.")
    drawn = "".join(b.draw() for b in blocks if isinstance(b, Picture))
    assert len(drawn) < 600_000


def test_the_noise_scale_is_said():
    [told] = [
        b.text
        for b in growth([run(look(2), look(4, noise_scale=None))])
        if isinstance(b, Note) and "noise" in b.text
    ]
    assert "16 rows at step 2; finite in 1 of 2 looks." in told


def test_the_fall_of_the_loss_is_drawn_where_it_was_read():
    assert FALL in pictures(growth([run(look(2, slope=-0.5), look(4, slope=-0.2))]))
    assert FALL not in pictures(growth([run(look(2), look(4))]))


def test_the_section_is_there_where_a_run_grew_or_looked():
    titles = lambda one: [s.title for s in page([one]).sections if s.blocks]
    plain = run({"step": 1, "loss": 1.0}, growth=[])
    assert growth([plain]) == []
    assert "Growth" not in titles(plain)
    assert "## Growth" not in markdown.render_markdown([plain])
    assert "<h2>Growth</h2>" not in html.render([plain])
    for one in (run(look(1)), run(event(5)), run(growth=[DEEPER])):
        assert "Growth" in titles(one)
        assert "<h2>Growth</h2>" in html.render([one])
    assert titles(run(event(5))).index("Growth") == 2


def test_hostile_text_breaks_nothing():
    evil = {**DEEPER, "ops": [{"field": EVIL, "size": EVIL, "how": EVIL}], "why": EVIL}
    lines = [look(2), look(9), event(5, EVIL), look(12, influence=[EVIL, {EVIL: 1}])]
    for summary in ({"growth": [evil]}, {}):
        pair = [run(*lines, name=EVIL, **summary), run(*lines, name="b", **summary)]
        shown = html.render(pair)
        assert "<script" not in shown
        assert "&lt;script&gt;alert" in shown
        told = markdown.render_markdown(pair)
        assert "<script" not in told
        section = told.split("## Growth")[1].split("\n## ")[0]
        rows = [line for line in section.split("\n") if line.startswith("| 5 ")]
        assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {2 + 8}


def test_json_round_trip_gives_equal_bytes(tmp_path):
    lines = [look(2), look(4), event(5), look(6, depth=3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "summary.json").write_text(json.dumps({"growth": [DEEPER]}))
    one, two = (html.write_report([tmp_path], tmp_path / n) for n in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
    assert "Influence of each layer against steps" in one.read_text()
