"""The plan of a run as text: which stage of shapes comes next, and when at the latest.

    depth=2:0.3,depth=4:0.6,heads=4:0.6

Two stages: from 30 % of the steps on two layers, from 60 % on four, with four heads.
`frozen=2:0.7` changes no shape: from 70 % on the first two blocks are not trained, and
`frozen=0:0.9` thaws them.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from uets_jax.config import SNAPSHOT, ExperimentConfig, GrowthConfig, ModelConfig
from uets_jax.errors import UserError, nearest

SIZES = ("depth", "heads", "hidden", "width", "experts", "memory_rows")
FIELDS = (*SIZES, "frozen")
# ways to make what is new; the first one where an op names none
WAYS = {
    "depth": ("identity", "random", "stack", "interleave", "middle"),
    "heads": ("new", "split"),
    "hidden": ("new", "split"),
}


@dataclasses.dataclass(frozen=True)
class Op:
    """One change of shape: `field` of the model becomes `size`.

    how:  of new layers identity, random, stack, interleave or middle; of new heads and
      units new or split; "": the first of these.
    keep: of a pruned field the indices that stay, rising, for each layer; of depth one
      tuple. With a value residual a head reads the values of the first layer's head in
      its place: let all layers keep the same ones.
    """

    field: str
    size: int
    how: str = ""
    keep: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        """As in a plan: `depth=4`."""
        return f"{self.field}={self.size}"


@dataclasses.dataclass(frozen=True)
class Stage:
    """Changes that come together, when `share` of the steps are done at the latest."""

    ops: tuple[Op, ...]
    share: float

    def __str__(self) -> str:
        """`depth=4, heads=4`."""
        return ", ".join(map(str, self.ops))


def parse(growth: GrowthConfig) -> tuple[Stage, ...]:
    """The stages of `growth.plan`, in order.

    Raises:
      UserError: for the first part that can't be read.
    """
    parts = [part.strip() for part in growth.plan.split(",") if part.strip()]
    pairs = [_pair(part, growth) for part in parts]
    shares = [share for _, share in pairs]
    for before, share in itertools.pairwise([0.0, *shares]):
        if not before <= share < 1 or share <= 0:
            raise UserError(
                f"growth.plan: {growth.plan!r}: shares must rise and lie in (0, 1), "
                f"got {share:g} after {before:g}"
            )
    groups = itertools.groupby(pairs, key=lambda pair: pair[1])
    return tuple(Stage(tuple(op for op, _ in group), share) for share, group in groups)


def _pair(part: str, growth: GrowthConfig) -> tuple[Op, float]:
    name, equals, rest = part.partition("=")
    size, colon, share = rest.partition(":")
    field = name.strip()
    try:
        found = int(size), float(share)
    except ValueError:
        equals = ""
    if not equals or not colon:
        raise UserError(
            f"growth.plan: {part!r}: write field=size:share, as depth=4:0.5"
        )
    if field not in FIELDS:
        raise UserError(f"growth.plan: {part!r}: {nearest(field, FIELDS)}")
    how = {"depth": growth.depth, "heads": growth.units, "hidden": growth.units}
    return Op(field, found[0], how.get(field, "")), found[1]


def after(config: ExperimentConfig, stage: Stage) -> ExperimentConfig:
    """The config once a stage has been applied.

    Raises:
      UserError: for an op that can't be applied to the model.
    """
    model = config.model
    for op in stage.ops:
        model = resized(model, op)
    return dataclasses.replace(config, model=model)


def ladder(config: ExperimentConfig) -> tuple[ExperimentConfig, ...]:
    """The config as it starts, and after each stage of its plan.

    Raises:
      UserError: for a plan that can't be read or applied.
    """
    stages = parse(config.growth)
    return (config, *itertools.accumulate(stages, after, initial=config))[1:]


def resized(model: ModelConfig, op: Op) -> ModelConfig:
    """The model after an op.

    With as many key as query heads both change; else growing keeps the key heads and
    pruning takes whole groups.

    Raises:
      UserError: for a size that the op can't reach.
    """
    if op.field not in FIELDS:
        raise UserError(f"growth.plan: {op}: {nearest(op.field, FIELDS)}")
    before = getattr(model, op.field)
    why = _refused(model, op, before)
    if why:
        raise UserError(f"growth.plan: {op}: {why}")
    changes = {op.field: op.size}
    if op.field == "heads":
        group = model.heads // model.kv_heads
        if group == 1 or op.size < before:
            changes["kv_heads"] = op.size // group
    return dataclasses.replace(model, **changes)


def prunes(model: ModelConfig, op: Op) -> bool:
    """Whether the op takes something from the model."""
    return op.field != "frozen" and op.size < getattr(model, op.field)


def referred(config: ExperimentConfig, model: ModelConfig) -> bool:
    """Whether selection refers to the model of `config` once it is this one: where
    `select.reference` is the snapshot, and some size has grown.
    """
    larger = (getattr(model, f) > getattr(config.model, f) for f in SIZES)
    return config.select.reference == SNAPSHOT and any(larger)


def snapshots(
    rungs: Sequence[ExperimentConfig],
) -> tuple[ExperimentConfig | None, ...]:
    """Of each rung of a ladder the one that its selection refers to, or None."""
    found: list[ExperimentConfig | None] = [None]
    for before, now in itertools.pairwise(rungs):
        found.append(before if referred(before, now.model) else found[-1])
    return tuple(found)


def _refused(model: ModelConfig, op: Op, before: int) -> str:
    """Why an op can't be applied; empty where it can."""
    size, field = op.size, op.field
    if op.how and op.how not in WAYS.get(field, ()):
        ways = nearest(op.how, WAYS[field]) if field in WAYS else "there is but one way"
        return f"{op.how!r}: {ways}"
    least = 0 if field == "frozen" else 1
    if size < least:
        return f"a size must be at least {least}"
    if size == before:
        return f"the model has {before} already"
    if field in ("width", "memory_rows") and before and size % before:
        return f"must be a multiple of the {before} that there are"
    if field == "experts" and (before or size < 2):
        return "experts come once, two or more, in place of a dense MLP"
    if field == "hidden" and model.experts:
        return "the units of experts can't be changed"
    if op.how == "split" and size > 2 * before:
        return f"split at most doubles the {before} that there are"
    group = model.heads // model.kv_heads
    step = model.kv_heads if size > before and group > 1 else group
    if field == "heads" and size % step:
        return f"must be a multiple of {step}, for grouped keys"
    if field in ("depth", "frozen"):
        return _refused_depth(model, op)
    return ""


def _refused_depth(model: ModelConfig, op: Op) -> str:
    sizes = {"depth": model.depth, "frozen": model.frozen, op.field: op.size}
    if sizes["frozen"] >= sizes["depth"]:
        return "{frozen} of {depth} blocks frozen leave none to train".format(**sizes)
    grows = op.size > model.depth
    if grows and op.how in ("stack", "interleave") and op.size % model.depth:
        return f"{op.how} needs a multiple of the {model.depth} layers that there are"
    return ""
