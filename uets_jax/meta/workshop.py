"""What meta-training compiles once: windows, references and scores of each family."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.meta.episode import (
    KNOTS,
    Make,
    Reference,
    doubling,
    mean_curve,
    problem,
    reference,
)
from uets_jax.meta.estimators import compile_window, estimator, sizes_like
from uets_jax.meta.family import Family, Tasks
from uets_jax.meta.jitted import quick_jit
from uets_jax.meta.settings import MetaConfig, fixed
from uets_jax.meta.validate import scorer
from uets_jax.train.files import told, write_json


@dataclasses.dataclass(frozen=True)
class Bench:
    """A family's compiled window.

    init:   (theta, key) -> Carry, jitted.
    window: (theta, carry, key, sizes) -> (gradient, Carry, metrics), jitted.
    flops:  of a window; None where the rule has an operation that nothing counts.
    steps:  inner steps of a window, of both signs.
    """

    init: Callable[..., Any]
    window: Callable[..., Any]
    flops: float | None
    steps: int


def bench(
    make: Make,
    theta: Any,
    family: Family,
    config: MetaConfig,
    against: Reference,
    mesh: Mesh | None = None,
) -> Bench:
    """Traces the window of a family; it is compiled when it is first run."""
    steps = problem(make, family, config.augment, config.window, against)
    made = estimator(config.estimator, steps, config.episodes, config.window)
    signs = 1 if config.estimator == "tbptt" else 2
    key, sizes = jax.random.key(0), sizes_like(theta, config.sigma)
    carry = jax.eval_shape(made.init, theta, key)
    flops = flops_of(made.window, theta, carry, key, sizes)
    window = compile_window(made, config.episodes, mesh)
    total = signs * config.episodes * config.window
    return Bench(quick_jit(made.init), window, flops, total)


def flops_of(function: Callable[..., Any], *inputs: Any) -> float | None:
    """FLOPs of one call; None where something in it can't be counted."""
    try:
        costs = count(jax.make_jaxpr(function)(*inputs)).total()
    except UserError:
        return None
    return float(sum(cost.total for cost in costs.values()))


class Scoring:
    """Scores of held-out families: [families, seeds] for a theta.

    scales: of the families (see `validate.compare`), from the first call, unless they
    are set before it.
    """

    def __init__(self, make: Make, families: Sequence[Family]) -> None:
        self.families = tuple(families)
        self._plain = [scorer(make, family) for family in families]
        self._compiled = [quick_jit(score) for score in self._plain]
        self._flops: dict[int, float | None] = {}
        self.scales: list[float] | None = None

    def __call__(
        self, theta: Any, first: int, seeds: int
    ) -> Float[np.ndarray, "families seeds"]:
        """Of seeds first, first + 1, .."""
        numbers = jnp.arange(first, first + seeds)
        one = jnp.ones(())
        both = [f(theta, numbers, one) for f in self._compiled]
        if self.scales is None:
            self.scales = [float(doubling(mean_curve(falls))) for _, falls in both]
        return np.stack([np.asarray(scores) for scores, _ in both])

    def flops(self, theta: Any, seeds: int) -> float | None:
        """Of one call."""
        if seeds not in self._flops:
            numbers = jnp.arange(seeds)
            inputs = (theta, numbers, jnp.ones(()))
            parts = [flops_of(score, *inputs) for score in self._plain]
            known = None not in parts
            self._flops[seeds] = sum(filter(None, parts)) if known else None
        return self._flops[seeds]


class Workshop:
    """All that a run of meta-training compiles; runs of equal tasks can share it.

    benches: by the name of a family that is learned on. scoring: of the held-out ones.
    """

    def __init__(
        self,
        make: Make,
        theta: Any,
        tasks: Tasks,
        config: MetaConfig,
        path: Path,
        nominal: tuple[Make, Any] | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Arguments as of `trainer.meta_train`; path: of the reference curves."""
        curves = references(*(nominal or (make, theta)), tasks.train, config, path)
        self.made_of = (make, tasks, _program(config), mesh)
        self.benches = {
            f.name: bench(make, theta, f, config, curves[f.name], mesh)
            for f in tasks.train
        }
        self.scoring = Scoring(make, tasks.valid)

    def check(self, make: Make, tasks: Tasks, config: MetaConfig, mesh: Any) -> None:
        """Raises `UserError` where it was made of other things than a run's."""
        if self.made_of != (make, tasks, _program(config), mesh):
            raise UserError("meta: the workshop was made for another rule or settings")


def _program(config: MetaConfig) -> tuple[Any, ...]:
    """The settings that are constants of the compiled windows."""
    names = ("estimator", "episodes", "window", "reference", "augment")
    return tuple(getattr(config, name) for name in names)


def references(
    make: Make,
    theta: Any,
    families: Sequence[Family],
    config: MetaConfig,
    path: Path,
) -> dict[str, Reference]:
    """The nominal curve of every family, read from `path` where it is known.

    A stored curve counts only for the settings, the theta and the family that made it.
    """
    stored = _stored(path)
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    rows = {}
    for i, family in enumerate(families):
        mark = _mark(theta, family, config)
        row = stored.get(family.name)
        if not isinstance(row, dict) or row.get("mark") != mark:
            key = jax.random.fold_in(jax.random.key(0), i)
            go = quick_jit(
                lambda key, family=family: reference(
                    make, theta, family, config.augment, key, config.reference
                )
            )
            made = go(key)
            curve = [float(x) for x in np.asarray(made.curve)]
            row = {"mark": mark, "curve": curve, "scale": float(made.scale)}
        rows[family.name] = row
        write_json(path, {**stored, **rows})
    return {name: _reference(row) for name, row in rows.items()}


def _reference(row: dict[str, Any]) -> Reference:
    return Reference(_floats(row["curve"]), _floats(row["scale"]))


def _floats(values: Any) -> Array:
    return jnp.asarray(values, jnp.float32)


def _stored(path: Path) -> dict[str, Any]:
    """What the file has; nothing if it is none or broken: it is made again."""
    import json

    try:
        rows = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(rows, dict):
        return {}
    sound = lambda r: isinstance(r, dict) and len(r.get("curve", ())) == KNOTS
    return {name: row for name, row in rows.items() if sound(row)}


def _mark(theta: Any, family: Family, config: MetaConfig) -> str:
    """A digest of all that a reference depends on but the code."""
    settings = {k: fixed(config)[k] for k in ("augment", "reference")}
    own = (family.name, family.batch, family.horizon)
    own += (family.learning_rate, family.weight_decay)
    digest = hashlib.sha256(repr((settings, own)).encode())
    for leaf in jax.tree.leaves(theta):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
