"""How runs changed their model's shape, what that cost, and what the layers did."""

from collections.abc import Sequence

from uets_jax.report import changes, looks, maps, units
from uets_jax.report.axis import Axis
from uets_jax.report.blocks import Block, Heading, Note, Picture
from uets_jax.report.changes import Change
from uets_jax.report.figures import figure
from uets_jax.report.run import Run
from uets_jax.report.scale import Point, number
from uets_jax.report.svg import Series, chart

MAPPED = 4  # runs whose layers are drawn
HALF = (440, 260)
TOLD = (
    "Losses in nats per token, on one batch, right before and right after the change. "
    "Exact: it keeps the function that the model computes, up to rounding."
)
FALL = "Fall of the loss per log-FLOP, since the last change of shape"
NOISE = (
    "In batches of fewer rows each further row helps nearly in full; of far more it "
    "hardly helps. Readings of one batch each, so they scatter."
)


def growth(runs: Sequence[Run]) -> list[Block]:
    """Changes, cost per step and noise scale, and of each run its layers over time."""
    changed = [changes.changes(run) for run in runs]
    looked = [looks.looks(run) for run in runs]
    if not any(changed) and not any(looked):
        return []
    blocks: list[Block] = []
    stairs = [_stairs(*pair) for pair in zip(runs, changed, strict=True)]
    noises = [looks.noise(found) for found in looked]
    falls = [looks.fall(found) for found in looked]
    if any(stairs) or any(noises) or any(falls):
        blocks.append(Picture(lambda: _charts(stairs, noises, falls)))
    blocks += _noise_told(runs, looked, noises)
    blocks += [Note(TOLD)] if any(changed) else []
    drawn = [i for i, found in enumerate(looked) if found][:MAPPED]
    for i, run in enumerate(runs):
        marks = [(c.step, f"step {c.step:.0f}: {c.words}") for c in changed[i]]
        shown: list[Block] = []
        if i in drawn:
            shown = maps.maps(looked[i], marks, len(drawn), i == drawn[0])
        inside = [*changes.table(run, changed[i]), *shown]
        head = [Heading(run.name)] if len(runs) > 1 and inside else []
        blocks += [*head, *inside]
    more = sum(map(bool, looked)) - len(drawn)
    told = f"The layers of {more} more are shown in their own reports."
    return blocks + ([Note(told)] if more else [])


def _stairs(run: Run, changed: Sequence[Change]) -> list[Point]:
    """FLOPs per step against steps, with upright risers; [] where it's unknown."""
    points: list[Point] = []
    for change in changed:
        was = number(change.record.get("step_flops_before"))
        now = number(change.record.get("step_flops"))
        if was is None or now is None:
            return []
        points += [(change.step, was), (change.step, now)]
    last = figure(run, "steps")
    if points:
        points.insert(0, (0.0, points[0][1]))
        points.append((max(last or 0.0, points[-1][0]), points[-1][1]))
    return points


def _charts(
    stairs: Sequence[list[Point]],
    noises: Sequence[list[Point]],
    falls: Sequence[list[Point]],
) -> str:
    """FLOPs per step, noise scale and slope of the loss, where they are known."""
    found, step = [], Axis("step", zero=True)
    if any(stairs):
        curves = [Series(points, i) for i, points in enumerate(stairs)]
        svg = chart(curves, step, Axis("", zero=True), "FLOPs per step", HALF)
        found.append(_figure("FLOPs per step", svg))
    if any(noises):
        values = [y for points in noises for _, y in points]
        wild = max(values) > 20 * min(values)
        y = Axis("rows", log=wild, zero=not wild, pad=0.04 * wild)
        curves = [Series(points, i, "marks") for i, points in enumerate(noises)]
        svg = chart(curves, step, y, "gradient noise scale against steps", HALF)
        found.append(_figure("Gradient noise scale", svg))
    if any(falls):
        curves = [Series(points, i, "marks") for i, points in enumerate(falls)]
        svg = chart(curves, step, Axis("nats per log-FLOP"), FALL, HALF)
        found.append(_figure(FALL, svg))
    return f'<div class="pair">{"".join(found)}</div>'


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def _noise_told(
    runs: Sequence[Run],
    looked: Sequence[list[looks.Look]],
    noises: Sequence[list[Point]],
) -> list[Block]:
    """The last noise scale of each run, and how often there was none."""
    said = []
    for run, found, points in zip(runs, looked, noises, strict=True):
        who = f"{run.name}: " if len(runs) > 1 else ""
        if points:
            step, value = points[-1]
            said.append(
                f"{who}{units.si(value)} rows at step {step:.0f}; finite in "
                f"{len(points)} of {len(found)} looks."
            )
    return [Note(" ".join(["Gradient noise scale.", *said, NOISE]))] if said else []
