"""The figures of a run: curves out of its metrics, totals out of its summary."""

from uets_jax.report.run import Run
from uets_jax.report.scale import PLAIN, Point, number

EVALUATION = ("evaluation", "eval", "validation")  # not training, under any name


def pairs(run: Run, x: str, y: str) -> list[Point]:
    """(x, y) of every record, events aside, that has both as numbers."""
    found = []
    for record in run.records:
        a, b = record.get(x), record.get(y)
        if type(a) in PLAIN and type(b) in PLAIN and "event" not in record:
            left, right = number(a), number(b)
            if left is not None and right is not None:
                found.append((left, right))
    return found


def last(run: Run, key: str) -> float | None:
    """The last finite value of `key` in the metrics, events aside."""
    values = (number(r.get(key)) for r in reversed(run.records) if not r.get("event"))
    return next((v for v in values if v is not None), None)


def parts(run: Run, key: str) -> dict[str, float]:
    """The categories of `summary[key]` that are numbers, without their total."""
    table = run.summary.get(key)
    if not isinstance(table, dict):
        return {}
    known = {str(name): number(value) for name, value in table.items()}
    return {n: v for n, v in known.items() if v is not None and n != "total"}


def _training(spent: dict[str, float], kind: str) -> float | None:
    """Seconds of steps and of waiting for data; FLOPs of all but evaluation."""
    if kind == "seconds":
        return spent["train"] + spent.get("data", 0.0) if "train" in spent else None
    charged = [v for name, v in spent.items() if name not in EVALUATION]
    return sum(charged) if charged else None


def figure(run: Run, key: str) -> float | None:
    """A headline number: the summary's, the sum of its categories, or the last metric.

    Keys: those of summary.json (`flops` and `seconds` are summed over categories);
    `train_flops` and `train_seconds`, as the metrics count them; and `time`, which is
    `seconds` where a summary has it and else `train_seconds`.
    """
    if key == "time":
        total = figure(run, "seconds")
        return figure(run, "train_seconds") if total is None else total
    if key in ("train_flops", "train_seconds"):
        kind = key.removeprefix("train_")
        counted = last(run, kind)
        return _training(parts(run, kind), kind) if counted is None else counted
    if parts(run, key):
        return sum(parts(run, key).values())
    value = number(run.summary.get(key))
    if value is not None or key == "seconds":
        return value
    return last(run, {"steps": "step", "final_loss": "valid_loss"}.get(key, key))
