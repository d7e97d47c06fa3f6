"""The charts of a report: loss against each cost, learning rate, gradient norm."""

from collections.abc import Sequence

from uets_jax.report.axis import Axis
from uets_jax.report.blocks import Note
from uets_jax.report.events import MARKED, marks
from uets_jax.report.figures import pairs
from uets_jax.report.markup import escape, render
from uets_jax.report.run import Run
from uets_jax.report.scale import running_mean
from uets_jax.report.style import COLORS
from uets_jax.report.svg import Series, chart

LOSS = "loss (nats per token)"
COSTS = (
    ("tokens", Axis("training tokens", zero=True)),
    ("flops", Axis("training FLOPs", zero=True)),
    ("seconds", Axis("training time", "time", zero=True)),
    ("joules", Axis("measured energy (J)", zero=True)),
)
STEPS = (("learning_rate", "learning rate"), ("grad_norm", "gradient norm"))
WIDE, NARROW, HALF = (912, 400), (400, 330), (440, 300)
LABEL = 22  # longest direct label, characters


def loss_charts(runs: Sequence[Run]) -> str:
    """Loss against tokens over the full width, against the other costs beside it."""
    if not any(pairs(r, "step", k) for r in runs for k in ("loss", "valid_loss")):
        return _note("No loss was recorded, so there are no curves.")
    first, *others = (_cost_figure(runs, key, axis) for key, axis in COSTS)
    return f'{legend(runs)}\n{first}\n<div class="pair">{"".join(others)}</div>'


def step_charts(runs: Sequence[Run]) -> str:
    """Learning rate and gradient norm against steps, where they were recorded."""
    found = []
    for key, name in STEPS:
        curves = _step_series(runs, key)
        values = [y for s in curves for _, y in s.points]
        if not values:
            found.append(_note(f"No {name} was recorded."))
            continue
        wild = key == "grad_norm" and min(values) > 0 and max(values) > 20 * min(values)
        x, y = Axis("step", zero=True), Axis("", log=wild, pad=0.04, zero=not wild)
        svg = chart(curves, x, y, f"{name} against steps", HALF, _detail(runs))
        caption = f"<figcaption>{name.capitalize()}</figcaption>"
        found.append(f"<figure>{caption}{svg}</figure>")
    return f'<div class="pair">{"".join(found)}</div>'


def legend(runs: Sequence[Run]) -> str:
    """Runs by colour where there are several, and what each kind of line means."""
    names = "".join(
        f'<li><span class="swatch c{i % COLORS}"></span>{escape(run.name)}</li>'
        for i, run in enumerate(runs)
    )
    happened = any(r.get("event") in MARKED for run in runs for r in run.records)
    told = _note(
        "Thin: training loss of each step. Bold: its running mean. Circles: validation "
        "loss (hover for values)." + " Upright: events, listed below." * happened
    )
    return f'<ul class="legend">{names}</ul>{told}' if len(runs) > 1 else told


def _note(sentence: str) -> str:
    return render(Note(sentence))


def _cost_figure(runs: Sequence[Run], key: str, axis: Axis) -> str:
    """One chart, linear and logarithmic, switched without a script."""
    curves = _loss_series(runs, key)
    costs = [x for s in curves for x, _ in s.points if x > 0]
    if not costs and key == "joules":
        return ""  # energy is seldom measured, and the ledger says so
    if not costs:
        return _note(f"The metrics hold no loss with its {key}.")
    title = f"Loss against {axis.name}"
    linear, log = (
        f'<div class="{kind}">{_renditions(runs, key, curves, axis)}</div>'
        for kind, axis in (("linear", axis), ("log", axis._replace(log=True)))
    )
    inside = _switch(key, title) + linear + log
    if max(costs) < 10 * min(costs):
        inside = linear
    return f"<figure><figcaption>{title}</figcaption>{inside}</figure>"


def _switch(key: str, title: str) -> str:
    """Radio buttons; FLOPs start logarithmic, for methods differ by decades in them."""
    chosen = "log" if key == "flops" else "linear"
    return "".join(
        f'<input type="radio" class="to-{kind}" name="{key}" id="{key}-{kind}" '
        f'aria-label="{title}, {kind} axis"'
        f"{' checked' if kind == chosen else ''}>"
        f'<label for="{key}-{kind}">{kind}</label>'
        for kind in ("linear", "log")
    )


def _renditions(
    runs: Sequence[Run], key: str, curves: Sequence[Series], x: Axis
) -> str:
    """One chart; for tokens one with direct labels and another one for phones."""
    y, title, detail = _loss_axis(curves), f"loss against {x.name}", _detail(runs)
    bare, happened = [s._replace(label="") for s in curves], marks(runs, key)
    if key != "tokens":
        return chart(bare, x, y, title, HALF, detail, happened)
    wide = chart(curves, x, y, title, WIDE, detail, happened)
    narrow = chart(bare, x, y, title, NARROW, detail, happened)
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def _loss_axis(curves: Sequence[Series]) -> Axis:
    """Logarithmic where the loss halves, or the steep start would flatten the rest."""
    values = [y for s in curves for _, y in s.points]
    return Axis(LOSS, log=0 < 2 * min(values) < max(values), pad=0.04)


def _loss_series(runs: Sequence[Run], key: str) -> list[Series]:
    """Faint training losses first, so that means and validation lie on top."""
    faint, means, marks = [], [], []
    for i, run in enumerate(runs):
        points, valid = pairs(run, key, "loss"), pairs(run, key, "valid_loss")
        names = ("training", "validation")
        if len(runs) > 1:
            names = (_short(run.name), "" if points else _short(run.name))
        faint.append(Series(points, i, "faint"))
        means.append(Series(running_mean(points), i, "line", names[0]))
        marks.append(Series(valid, i, "marks", names[1]))
    return faint + means + marks


def _step_series(runs: Sequence[Run], key: str) -> list[Series]:
    """The values of each step, and where they are noisy their running mean."""
    each = [Series(pairs(run, "step", key), i) for i, run in enumerate(runs)]
    if key != "grad_norm":
        return each
    faint = [s._replace(style="faint") for s in each]
    return faint + [s._replace(points=running_mean(s.points)) for s in each]


def _short(name: str) -> str:
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"


def _detail(runs: Sequence[Run]) -> float:
    """Fewer points per curve the more there are, so that the file stays small."""
    return min(1.0, 5 / len(runs))
