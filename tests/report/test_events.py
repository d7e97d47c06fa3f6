"""Events as rows and as marks: summarised where many, placed where they happened."""

from pathlib import Path

from uets_jax.report import events
from uets_jax.report.blocks import DASH, TIMES, Note, Table
from uets_jax.report.run import Run


def steps(count):
    return [{"step": n, "loss": 1.0, "tokens": 10 * n} for n in range(1, count + 1)]


def event(kind, step, **more):
    return {"event": kind, "step": step, **more}


def run(*records, name="a", **summary) -> Run:
    return Run(name, Path(name), {}, summary, list(records), [])


def rows(blocks):
    [table] = [block for block in blocks if isinstance(block, Table)]
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def texts(blocks, name):
    return [row[name].text for row in rows(blocks)]


def test_growth_and_resume_have_a_row_each_in_their_order():
    kinds = ["resume", "growth", "resume", "rollback", "resume", "resume", "resume"]
    shown = events.events([run(*(event(k, i) for i, k in enumerate(kinds)))])
    assert texts(shown, "event") == kinds
    assert texts(shown, "step") == [str(i) for i in range(7)]


def test_many_skips_are_one_row():
    skips = [event("skip", n, detail=f"at {n}") for n in (3, 5, 9, 40)]
    shown = events.events([run(*skips[:3], event("growth", 20), skips[3])])
    assert texts(shown, "event") == [f"skip {TIMES} 4", "growth"]
    assert texts(shown, "step")[0] == f"3{DASH}40"
    assert texts(shown, "detail") == ["last: at 40", ""]
    few = events.events([run(*skips[:3])])
    assert texts(few, "step") == ["3", "5", "9"]


def test_costs_come_from_the_event_or_from_the_step_before():
    found = [event("growth", 2), event("resume", 2, tokens=25), event("skip", 0)]
    shown = events.events([run(*steps(3), *found)])
    assert texts(shown, "tokens") == ["20", "25", DASH]
    assert "FLOPs" not in rows(shown)[0]


def test_the_summary_counts_are_said():
    one = run(skipped_steps=1, rollbacks=0, resumes=2)
    assert events.events([one]) == [Note("1 skipped step, 2 resumes.")]
    two = run(name="b", rollbacks=1)
    assert events.events([one, two])[1] == Note("b: 1 rollback.")


def test_rows_are_limited_and_the_rest_is_told():
    records = [event(f"kind {n}", n) for n in range(events.MOST_ROWS + 7)]
    *_, table, told = events.events([run(*records)])
    assert isinstance(table, Table)
    assert len(table.rows) == events.MOST_ROWS
    assert told == Note("7 more are in metrics.jsonl.")


def test_no_event_is_no_table():
    assert events.events([run(*steps(3))]) == []


def test_marks_lie_at_the_event_or_at_the_step_before():
    found = [
        event("growth", 2, detail="deeper"),
        event("resume", 2, tokens=25),
        event("checkpoint", 3),
        event("skip", 0),
        {"event": "rollback"},
    ]
    first = run(*steps(3), *found)
    marks = events.marks([run(name="b"), first], "tokens")
    assert [(m.x, m.label, m.color) for m in marks] == [
        (20.0, "growth", 1),
        (25.0, "resume", 1),
    ]
    assert marks[0].detail == "a, step 2, growth: deeper"
    assert events.marks([first], "joules") == []
