"""Changes of a model's shape, in words and figures."""

from pathlib import Path

from uets_jax.report.blocks import DASH, TIMES, Note
from uets_jax.report.changes import ARROW, MOST_ROWS, changes, table
from uets_jax.report.run import Run

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


def run(*records, name="a", config=None, **summary) -> Run:
    return Run(name, Path(name), config or {}, summary, list(records), [])


def rows(one):
    [shown] = table(one, changes(one))
    return [dict(zip(shown.head, row, strict=True)) for row in shown.rows]


def test_a_change_has_one_row_with_all_its_figures():
    config = {"model": {"depth": 2}}
    one = run({"step": 9, "loss": 1.0, "flops": 2e7}, config=config, growth=[DEEPER])
    [row] = rows(one)
    assert {name: (cell.text, cell.small) for name, cell in row.items()} == {
        "step": ("5", ""),
        "change": (f"depth 2 {ARROW} 3 (identity)", "its share"),
        "loss before": ("3.0000", ""),
        "loss after": ("3.2500", "+0.2500"),
        "exact": ("yes", ""),
        "parameters": ("2k", ""),
        "FLOPs per step": (f"1M {ARROW} 3M", f"3{TIMES}"),
        "training FLOPs before": ("25%", "5M"),
    }


def test_without_a_summary_the_events_tell():
    detail = "depth 2 -> 3 (probe (1)); 4 leaves of optimizer or parts begin anew: mu"
    [row] = rows(run(event(5, detail, exact=False)))
    assert row["change"].text == f"depth 2 {ARROW} 3"
    told = "probe (1); 4 leaves of optimizer or parts begin anew: mu"
    assert row["change"].small == told
    assert row["exact"].text == "no"
    assert row["training FLOPs before"].text == "5M"


def test_sizes_follow_from_change_to_change():
    ops = [[("depth", 3, "")], [("depth", 4, "stack"), ("heads", 1, "")]]
    listed = [
        {"step": n, "ops": [{"field": f, "size": s, "how": h} for f, s, h in group]}
        for n, group in enumerate(ops)
    ]
    listed[1]["ops"][1]["keep"] = [[0], [0]]
    found = changes(run(config={"model": {"depth": 1}}, growth=listed))
    assert [change.words for change in found] == [
        f"depth 1 {ARROW} 3",
        f"depth 3 {ARROW} 4 (stack), heads {ARROW} 1 (pruned)",
    ]


def test_events_that_were_taken_back_are_left_out():
    taken = [event(5), event(8), event(5, "again (x)"), event(9)]
    found = changes(run(*taken))
    assert [(c.step, c.words) for c in found] == [
        (5, "again"),
        (9, f"depth 2 {ARROW} 3"),
    ]
    assert changes(run(*taken, growth=[])) == []


def test_what_is_unknown_is_a_dash_or_no_column():
    some = {"step": 7, "exact": True, "loss_after": 2.0}
    first, second = rows(run(growth=[{"step": 3}, some]))
    assert set(first) == {"step", "loss after", "exact"}
    assert (first["exact"].text, second["exact"].text) == (DASH, "yes")
    assert (first["loss after"].text, second["loss after"].text) == (DASH, "2.0000")


def test_what_begins_anew_is_said_without_events_too():
    [change] = changes(run(growth=[{**DEEPER, "begun_anew": 3}]))
    assert change.why == "its share; 3 leaves begin anew"


def test_rows_are_limited_and_the_rest_is_told():
    one = run(growth=[DEEPER] * (MOST_ROWS + 2))
    shown, told = table(one, changes(one))
    assert len(shown.rows) == MOST_ROWS
    assert told == Note("2 more are in metrics.jsonl.")
