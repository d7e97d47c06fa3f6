"""What growth will cost beside the steps: looks, losses around a change, probes.

As the ledger charges them, for a run that grows at the shares of its plan. Left out:
what pruning reads before it chooses.
"""

from collections.abc import Mapping
from typing import Any

import jax

from uets_jax.build import build
from uets_jax.config import ExperimentConfig, window_length
from uets_jax.growth.stages import Stage, after, ladder, parse, referred, snapshots
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.train.executable import (
    abstract_batch,
    evaluation_cost,
    shapes,
    trace_step,
)
from uets_jax.train.footprint import one_device, stage_assets, traceable
from uets_jax.train.growing import (
    SCORED,
    decision_steps,
    due_step,
    only_growing,
    probe_lengths,
)
from uets_jax.train.looking import reading
from uets_jax.train.mesh import abstract_state

Own = Mapping[str, Any]


def growth_costs(
    config: ExperimentConfig, overrides: Own | None = None
) -> dict[str, Cost]:
    """By category: growth (looks and losses) and probe; {} for a run that stays still.

    Args:
      overrides: own parts of the program, see `build`.

    Raises:
      UserError: for a plan that can't be read.
    """
    steps, stages, configs = config.train.steps, parse(config.growth), ladder(config)
    ends = [*(due_step(config, stage) for stage in stages), steps]
    every, first = config.growth.look_every, 0
    watched, probed = Cost(), Cost()
    stands = zip(configs, snapshots(configs), ends, strict=True)
    for number, (now, before, end) in enumerate(stands):
        looks = end // every - first // every if every else 0
        watched += look_cost(now, overrides) * looks if looks else Cost()
        left = stages[number:]
        if left:
            watched += sum(
                (_losses(c, overrides) for c in configs[number : number + 2]), Cost()
            )
        if left and config.growth.method == "probe":
            asked = decision_steps(config, left, first, end)
            probed += probe_cost(now, left, overrides, before) * len(asked)
        first = end
    found = {"growth": watched, "probe": probed}
    return {name: cost for name, cost in found.items() if cost.total}


def look_cost(config: ExperimentConfig, overrides: Own | None = None) -> Cost:
    """Of one look at layers and heads, as `looking.looked` takes it."""
    program = build(traceable(config), overrides)
    rows = config.train.batch // config.train.microbatches
    batch = abstract_batch(rows, window_length(config))
    params = abstract_state(program, one_device()).params
    total = Cost()
    for what in ("look", "removal"):
        read = reading(program, what, config.model.mask_documents)
        costs = count(jax.jit(read).trace(params, batch).jaxpr).most().values()
        total += sum(costs, Cost())
    return total


def probe_cost(
    config: ExperimentConfig,
    stages: tuple[Stage, ...],
    overrides: Own | None = None,
    before: ExperimentConfig | None = None,
) -> Cost:
    """Of one probe: every fork's steps, and the batches on which all are scored.

    `before`: the stage that selection refers to, see `growth.stages.snapshots`.
    """
    candidates = only_growing(config, stages)
    if not candidates:
        return Cost()
    configs = _ladder(config, candidates)
    refers = lambda each: config if referred(config, each.model) else before
    costs = [_step(each, overrides, refers(each)) for each in configs]
    lengths = probe_lengths(
        config.growth.probe_steps, [float(cost.total) for cost in costs]
    )
    trained = (cost * n for cost, n in zip(costs, lengths, strict=True))
    scored = (_losses(each, overrides) * SCORED for each in configs)
    return sum([*trained, *scored], Cost())


def _ladder(
    config: ExperimentConfig, stages: tuple[Stage, ...]
) -> list[ExperimentConfig]:
    """The config as it is, and after each of these stages."""
    found = [config]
    for stage in stages:
        found.append(after(found[-1], stage))
    return found


def _step(
    config: ExperimentConfig, overrides: Own | None, before: ExperimentConfig | None
) -> Cost:
    """Of a train step at its costliest."""
    program = build(traceable(config), overrides)
    fed = shapes(config, stage_assets(config, overrides, before))
    step = trace_step(program, one_device(), fed)
    return sum(count(step.jaxpr).most().values(), Cost())


def _losses(config: ExperimentConfig, overrides: Own | None) -> Cost:
    """Of a batch's loss."""
    return evaluation_cost(build(traceable(config), overrides), one_device(), config)
