"""Tasks with right answers: minimal pairs, last words, multiple choice.

A task is a JSONL file whose lines are all of one form, see `items`.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uets_jax.data.faults import BadDocument
from uets_jax.data.files import LINE, lines, open_bytes
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate.items import Item, group_means, read_item, subset
from uets_jax.evaluate.likelihood import Likelihoods, Shape, batch_cost, likelihoods
from uets_jax.evaluate.passages import passages
from uets_jax.evaluate.perplexity import bits_per_byte
from uets_jax.measure.work import Cost
from uets_jax.step import Program
from uets_jax.types import Batch, Params

TIE = 1e-6  # relative: sums in float32 that differ by less are equal
SUFFIXES = (".xz", ".gz", ".zst", ".zstd", ".jsonl", ".json")


class Task(NamedTuple):
    """The items of a file, all of one form: pair, cloze, options or choice."""

    name: str
    form: str
    items: tuple[Item, ...]


class TaskScores(NamedTuple):
    """What a model makes of a task.

    metrics: flat; every name begins with the task's: `blimp_accuracy`.
    groups:  accuracy by kind and name of group: `groups["phenomenon"]["ellipsis"]`.
    shapes:  batches that were computed, by rows and length; see `task_cost`.
    """

    metrics: dict[str, float | int]
    groups: dict[str, dict[str, float]]
    shapes: dict[Shape, int]


def read_task(path: str | Path) -> Task:
    """The items of a plain or packed (.gz, .xz, .zst) JSONL file, named by its stem.

    Raises:
      UserError: naming the file and line that can't be used.
    """
    path, form, items = str(path), "", []
    where = path
    try:
        with open_bytes(path) as stream:
            for number, line in lines(stream):
                where = f"{path}, line {number}"
                if line is None:
                    raise BadDocument("too long", f"is longer than {LINE // 2**20} MB")
                if not line.strip():
                    continue
                here, item = read_item(line)
                if form and here != form:
                    raise BadDocument("mixed", f"is of form {here!r}, others {form!r}")
                form = here
                items.append(item)
        if not items:
            raise BadDocument("empty", "holds no items")
    except BadDocument as bad:
        raise UserError(f"{where}: {bad}") from None
    name = Path(path).name
    while (suffix := Path(name).suffix) in SUFFIXES:
        name = name.removesuffix(suffix)
    return Task(name, form, tuple(items))


def evaluate_task(
    program: Program,
    params: Params,
    tokenizer: Tokenizer,
    task: Task,
    context: int,
    limit: int = 0,
    put: Callable[[Batch], Batch] = lambda batch: batch,
    shards: int = 1,
) -> TaskScores:
    """Metrics of a model on a task, each under the task's name and an underscore.

    accuracy: share of items whose right option has the largest log-likelihood; options
      with the same share the point. In a cloze: share of items whose every scored
      token is likelier than all others, given those before it.
    accuracy_per_byte: by log-likelihood per byte of the scored text (choice only).
    ..._ci_low, ..._ci_high: 95 % Wilson interval over items.
    bits_per_byte: of the right options' scored text; bytes: its size.
    items, texts: how many items, and how many options they have in all.
    cut: texts longer than the context: their last tokens stayed.
    forward_tokens: tokens that went through the model, padding included.

    Args:
      context: tokens that the model sees at once.
      limit: see `subset`.
      put: places a batch on the devices.
      shards: the rows of a batch are a multiple of it.

    Raises:
      UserError: for text that the tokenizer can't encode, or ids beyond the model's.
    """
    items = subset(task.items, limit)
    texts = [option for item in items for option in item.options]
    found = passages(tokenizer, texts, context)
    cloze = task.form == "cloze"
    how = {"greedy": cloze, "put": put, "shards": shards}
    measured = likelihoods(program, params, tokenizer, found, context, **how)
    metrics, points = _metrics(task.form, items, measured)
    named = {f"{task.name}_{key}": value for key, value in metrics.items()}
    return TaskScores(named, group_means(items, points), measured.shapes)


def _metrics(
    form: str, items: Sequence[Item], measured: Likelihoods
) -> tuple[dict[str, float | int], np.ndarray]:
    """Flat metrics, and the points of each item."""
    ends = np.cumsum([len(item.options) for item in items])[:-1]
    firsts = np.array([0, *ends], int)
    gold = [item.gold for item in items]
    rates = -measured.nats / np.maximum(measured.bytes, 1)
    if measured.greedy is not None:
        points = measured.greedy.astype(float)
    else:
        points = _points(-measured.nats, ends, gold)
    metrics = accuracy("accuracy", points)
    if form == "choice":
        metrics |= accuracy("accuracy_per_byte", _points(rates, ends, gold))
    right = firsts + np.array(gold, int)
    size = int(measured.bytes[right].sum())
    return {
        **metrics,
        "bits_per_byte": bits_per_byte(math.fsum(measured.nats[right]), size),
        "bytes": size,
        "items": len(items),
        "texts": len(measured.nats),
        "cut": int(measured.cut.sum()),
        "forward_tokens": sum(b * l * n for (b, l), n in measured.shapes.items()),
    }, points


def _points(scores: np.ndarray, ends: np.ndarray, gold: list[int]) -> np.ndarray:
    parts = np.split(scores, ends)
    return np.array([point(*pair) for pair in zip(parts, gold, strict=True)])


def point(scores: np.ndarray, gold: int) -> float:
    """1 if `gold` has the largest score, a share of it where others are as large."""
    best = scores.max()
    ties = scores >= best - TIE * abs(best)
    return float(ties[gold] / max(ties.sum(), 1))


def accuracy(name: str, points: np.ndarray) -> dict[str, float | int]:
    """Mean of points in [0, 1] and its 95 % interval (Wilson 1927)."""
    mean, n, z = float(points.mean()), len(points), 1.959964
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    bounds = max(0.0, centre - half), min(1.0, centre + half)
    return {name: mean, f"{name}_ci_low": bounds[0], f"{name}_ci_high": bounds[1]}


def task_cost(program: Program, scores: TaskScores) -> Cost:
    """FLOPs of an evaluation, for the ledger's category `evaluation`."""
    each = (batch_cost(program, shape) * n for shape, n in scores.shapes.items())
    return sum(each, Cost())
