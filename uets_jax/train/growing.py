"""Growth and pruning between stretches of steps: look, decide, change, tell.

Decisions are taken at fixed steps and read the ledger and the losses only, so a
resumed run takes the same ones; all that is trained or evaluated for them is charged
(not the move itself, some elementwise work per parameter). A checkpoint is written
before what is decided at its step, so a run that goes on from one decides first.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from uets_jax.build import with_length
from uets_jax.config import (
    ExperimentConfig,
    ModelConfig,
    decay_share,
    window_length,
)
from uets_jax.curriculum.length import parse as parse_lengths
from uets_jax.curriculum.length import phases as length_phases
from uets_jax.evaluate.perplexity import compile_losses
from uets_jax.growth.grow import begun_anew, grow
from uets_jax.growth.plan import is_exact
from uets_jax.growth.policy import Budget, Decision, Signals, decide, load_policy
from uets_jax.growth.stages import Op, Stage, after, parse, prunes, resized
from uets_jax.measure import slope
from uets_jax.measure.work import Cost
from uets_jax.optim.rewarm import warm
from uets_jax.step import Program, evaluated
from uets_jax.train.choosing import completed
from uets_jax.train.executable import Executable, evaluation_cost, executable
from uets_jax.train.looking import looked
from uets_jax.train.mesh import abstract_state, put_batch
from uets_jax.train.monitor import slope_state
from uets_jax.train.run import Run
from uets_jax.train.session import Session
from uets_jax.train.snapshot import filled, put_by
from uets_jax.types import IGNORED, Batch, Params, TrainState

LOOKED_AT = 2  # stages ahead that a probe tries
SCORED = 4  # batches on which it compares them


def parts(session: Session) -> tuple[tuple[int, int], ...]:
    """(end, length) of the stretches with rows of one length."""
    config, full = session.config, window_length(session.config)
    lengths = parse_lengths(config.curriculum.lengths, full)
    return length_phases(config.train.steps, lengths, full)


def stage_executable(session: Session, length: int) -> Executable:
    """The train step of a stage on rows of a length."""
    program = with_length(session.program, length, window_length(session.config))
    return executable(program, session.mesh, session.config, session.assets)


def remaining(run: Run) -> tuple[Stage, ...]:
    """The stages of the plan that can still be taken: none once the run cools down."""
    return () if run.at.end else parse(run.origin.growth)[run.at.stage :]


def compile_ahead(run: Run) -> None:
    """Compiles the train step of every stage of the plan, so that no growth waits for
    it (the move and an evaluation compile when they come); before that a resumed run
    decides what its checkpoint's step has left to decide.
    """
    grow_if_due(run)
    run.ledger.switch("compile")
    config, session = run.session.config, run.session
    for stage in remaining(run):
        run.watchdog.beat(f"compiling {stage}")
        config = after(config, stage)
        session = session.reshaped(config.model)
        for end, length in parts(session):
            if end > due_step(run.origin, stage) or run.origin.growth.method != "fixed":
                stage_executable(session, length)


def due_step(config: ExperimentConfig, stage: Stage) -> int:
    """The step after which a stage comes at the latest: the first that reaches its
    share.
    """
    steps = config.train.steps
    step = max(1, math.ceil(stage.share * steps) - 1)  # the product is rounded
    while step / steps < stage.share:
        step += 1
    return step


def next_decision(run: Run) -> int:
    """The first step after this one at which there is something to decide; this one
    where a stage is due already, as after a rollback.
    """
    return min([*_decisions(run, run.at.step + 1), run.end])


def _decisions(run: Run, start: int) -> list[int]:
    """The next steps from `start` on with a decision; what is due already comes now."""
    return _next_decisions(run.origin, remaining(run), run.at.step, start)


def _next_decisions(
    config: ExperimentConfig, stages: Sequence[Stage], step: int, start: int
) -> list[int]:
    growth, steps = config.growth, config.train.steps
    if not stages or growth.method == "none":
        return []
    found = []
    if growth.method != "learned":
        found.append(max(step, due_step(config, stages[0])))
    if growth.method != "fixed":
        every = max(1, round(growth.every * steps))
        first = max(1, round(growth.earliest * steps))
        found.append(first + max(0, -(-(start - first) // every)) * every)
    return found


def decision_steps(
    config: ExperimentConfig, stages: Sequence[Stage], first: int, last: int
) -> list[int]:
    """All steps after `first` up to `last` with a decision on these stages, if none of
    them is taken before `last`.
    """
    found, step = [], first
    while True:
        coming = _next_decisions(config, stages, step, step + 1)
        step = min(coming, default=config.train.steps)
        if step > last or step >= config.train.steps:
            return found
        found.append(step)
        if step == last:
            return found


def grow_if_due(run: Run) -> None:
    """Takes the stages whose time has come, if this is a step at which to decide."""
    stages, step = remaining(run), run.at.step
    if step >= run.origin.train.steps or step not in _decisions(run, step):
        return
    before = run.ledger.switch("growth")
    decision = _decide(run, stages)
    if run.origin.growth.method != "fixed":
        found = {"decision": decision.why, "taken": len(decision.stages)}
        run.metrics.write({"step": step, **found, **run.spent()})
    if decision.stages:
        ops = [op for stage in decision.stages for op in stage.ops]
        apply(run, ops, decision.why)
        run.at.stage += len(decision.stages)
        run.at.slope, run.at.checks = [], []
    run.ledger.switch(before)


def _decide(run: Run, stages: tuple[Stage, ...]) -> Decision:
    growth, step = run.origin.growth, run.at.step
    budget = Budget(
        step=step,
        steps=run.origin.train.steps,
        flops=float(run.ledger.training_flops()),
        rates=_rates(run, stages),
        stages=stages,
        decay=_decay_begins(run.origin),
    )
    learned = growth.method == "learned"
    policy = load_policy(growth.policy or None) if learned else None
    return decide(policy, signals(run, stages), run.origin, budget)


def _decay_begins(config: ExperimentConfig) -> float:
    """Share of the steps at which the learning rate begins its last fall."""
    return 1 - decay_share(config) if config.optim.schedule == "wsd" else 1.0


def _rates(run: Run, stages: Sequence[Stage]) -> tuple[float, ...]:
    """FLOPs per step as the model is, and after each of the stages."""
    session, config = run.session, run.session.config
    found = [_flops(session)]
    for stage in stages:
        config = after(config, stage)
        session = session.reshaped(config.model)
        found.append(_flops(session))
    return tuple(found)


def _flops(session: Session) -> float:
    step = stage_executable(session, window_length(session.config))
    return float(sum(cost.total for cost in step.count.most().values()))


def signals(run: Run, stages: tuple[Stage, ...]) -> Signals:
    """What a decision looks at, as host numbers."""
    steps, step = run.origin.train.steps, run.at.step
    last = run.at.growth[-1]["step"] if run.at.growth else 0
    found = slope.read(slope_state(run.at.slope))
    probes = probe(run, stages) if run.origin.growth.method == "probe" else ()
    return Signals(
        progress=step / steps,
        loss=run.at.last_loss if run.at.last_loss is not None else float("nan"),
        slope=float(found.slope),
        error=float(found.error),
        age=(step - last) / steps,
        probes=probes,
    )


def probe(run: Run, stages: tuple[Stage, ...]) -> tuple[float, ...]:
    """Loss of the model as it is and grown by one or two stages, after equal FLOPs.

    Each fork trains on a copy of the state and the batches that come next; all are
    scored on the same `SCORED` batches after those. All of it is charged.
    """
    candidates = only_growing(run.session.config, stages)
    if not candidates:
        return ()
    rungs = itertools.accumulate(candidates, after, initial=run.session.config)
    rates = [_flops(run.session.reshaped(rung.model)) for rung in rungs]
    grown = [
        tuple(op for stage in candidates[: n + 1] for op in stage.ops)
        for n in range(len(candidates))
    ]
    lengths = probe_lengths(run.origin.growth.probe_steps, rates)
    scored = run.at.step + run.at.passed_over + lengths[0]
    forks = zip([(), *grown], lengths, strict=True)
    return tuple(_fork(run, ops, length, scored) for ops, length in forks)


def probe_lengths(steps: int, rates: Sequence[float]) -> tuple[int, ...]:
    """Steps of each fork of a probe, so that all spend about the same FLOPs.

    Args:
      steps: of the costliest one.
      rates: FLOPs per step of the model as it is, then of each candidate.
    """
    length = max(1, round(steps * max(rates) / rates[0]))
    others = (max(1, round(length * rates[0] / rate)) for rate in rates[1:])
    return (length, *others)


def only_growing(
    config: ExperimentConfig, stages: Sequence[Stage]
) -> tuple[Stage, ...]:
    """The stages ahead that a probe tries: those that only grow. (Freezing makes steps
    cheaper and no loss better: it comes at its share.)
    """
    found = []
    for stage in stages[:LOOKED_AT]:
        if any(op.field == "frozen" or prunes(config.model, op) for op in stage.ops):
            break
        found.append(stage)
        config = after(config, stage)
    return tuple(found)


def _fork(run: Run, ops: Sequence[Op], steps: int, scored: int) -> float:
    """Loss of a copy that is grown by `ops` and trained, on batches `scored` and on.

    Its fresh entries learn at full rate: warm-up may last longer than a probe.
    """
    session, state = run.session, jax.tree.map(lambda x: x.copy(), run.state)
    if ops:
        grown, state = changed(session, state, ops)
        session = filled(grown, session, evaluated(session.program, run.state))
        state = _warmed(state)
    step = stage_executable(session, window_length(session.config))
    first = run.at.step + run.at.passed_over
    cost = sum(step.count.most().values(), Cost())
    for number in range(first, first + steps):
        pool = put_batch(session.windows[number], session.mesh)
        state, _ = step.call(state, pool, session.assets)
    run.ledger.charge({"probe": cost * steps})
    batches = [_rows(run, session.windows[scored + n]) for n in range(SCORED)]
    params = evaluated(session.program, state)
    losses = [_loss(run, session, params, b, "probe") for b in batches]
    return float(np.mean(losses))


def _warmed(state: TrainState) -> TrainState:
    """With nothing left to warm up; on the same devices."""
    if "rewarm" not in state.parts:
        return state
    fresh = state.parts["rewarm"]
    put = lambda new, old: jax.device_put(new, old.sharding)
    warmed = jax.tree.map(put, warm(fresh), fresh)
    return state._replace(parts={**state.parts, "rewarm": warmed})


def apply(run: Run, ops: Sequence[Op], why: str) -> dict[str, Any]:
    """Changes the state's shapes, and tells what that did."""
    old, batch = run.session, next_batch(run)
    params = evaluated(old.program, run.state)
    before = _loss(run, old, params, batch, "growth")
    exact, begun, done = True, [], []
    for number, op in enumerate(ops):
        config, op = run.session.config, completed(run, batch, op)
        exact &= is_exact(op, config.model)
        change = _change(run.session, (op,), number)
        begun += change.begun
        run.session, run.state = changed(run.session, run.state, [op], number)
        done.append(op)
    run.session = filled(old.reshaped(run.session.config.model), old, params)
    if run.session.snapshot is not old.snapshot:
        put_by(run)
    entry = {
        "step": run.at.step,
        "ops": [_listed(op) for op in done],
        "why": why,
        "exact": exact,
        "loss_before": before,
        "loss_after": batch_loss(run, batch),
        "params": sum(x.size for x in jax.tree.leaves(run.state.params)),
        "step_flops_before": _flops(old),
        "step_flops": _flops(run.session),
        "flops": run.ledger.training_flops(),
        "begun_anew": len(begun),
    }
    run.at.growth.append(entry)
    detail = _told(old.config, run.session.config, ops, why)
    if begun:
        detail += f"; {len(begun)} leaves of optimizer or parts begin anew: {begun[0]}"
    told = {k: v for k, v in entry.items() if isinstance(v, int | float)}
    run.event("growth", detail, **{k: v for k, v in told.items() if k not in _SPENT})
    run.progress.note(f"step {run.at.step}: {detail}")
    return entry


_SPENT = ("step", "flops")


def _listed(op: Op) -> dict[str, Any]:
    """The op as JSON has it, so that a resumed run's history equals a whole one's."""
    return {**dataclasses.asdict(op), "keep": [list(row) for row in op.keep]}


def _told(
    old: ExperimentConfig, new: ExperimentConfig, ops: Sequence[Op], why: str
) -> str:
    """`depth 1 -> 4 (at its share)`."""
    size = lambda config, field: getattr(config.model, field)
    fields = dict.fromkeys(op.field for op in ops)
    moved = (f"{field} {size(old, field)} -> {size(new, field)}" for field in fields)
    return f"{', '.join(moved)} ({why})"


def changed(
    session: Session, state: TrainState, ops: Sequence[Op], first: int = 0
) -> tuple[Session, TrainState]:
    """Session and state in the new shapes, each leaf made where it belongs.

    Args:
      first: number of the first op among those of its step; see `grow`.
    """
    change = _change(session, tuple(ops), first)
    return session.reshaped(change.model), change.call(state)


class _Change(NamedTuple):
    """A change of shape: the model after it, state -> state compiled, and the leaves
    of optimizer and parts that have to begin anew.
    """

    model: ModelConfig
    call: Any
    begun: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a change depends on; runs that differ in anything else share it."""

    config: ExperimentConfig = dataclasses.field(compare=False)
    overrides: Any = dataclasses.field(compare=False)
    before: Program
    after: Program
    mesh: Mesh
    model: ModelConfig
    moments: str
    ops: tuple[Op, ...]
    first: int


def _change(session: Session, ops: tuple[Op, ...], first: int) -> _Change:
    config = session.config
    model = functools.reduce(resized, ops, config.model)
    asked = _Asked(
        config=config,
        overrides=session.overrides,
        before=session.program,
        after=session.reshaped(model).program,
        mesh=session.mesh,
        model=config.model,
        moments=config.growth.moments,
        ops=ops,
        first=first,
    )
    return _prepared(asked, model)


@functools.lru_cache(maxsize=16)
def _prepared(asked: _Asked, model: ModelConfig) -> _Change:
    config, ops, own = asked.config, asked.ops, asked.overrides
    where = jax.tree.map(lambda x: x.sharding, abstract_state(asked.after, asked.mesh))
    move = lambda state: grow(config, state, ops, own, first=asked.first)[1]
    call = jax.jit(move, out_shardings=where)
    return _Change(model, call, begun_anew(config, ops, own))


def next_batch(run: Run) -> Batch:
    """This process's share of rows that the next step reads, as many as an
    evaluation's.
    """
    return _rows(run, run.session.windows[run.at.step + run.at.passed_over])


def _rows(run: Run, batch: Batch) -> Batch:
    train = run.session.config.train
    rows = train.batch // train.microbatches // jax.process_count()
    return jax.tree.map(lambda x: x[:rows], batch)


def batch_loss(run: Run, batch: Batch) -> float:
    """Loss of the model on a batch, in nats per token; charged to growth."""
    params = evaluated(run.session.program, run.state)
    return _loss(run, run.session, params, batch, "growth")


def _loss(
    run: Run, session: Session, params: Params, batch: Batch, category: str
) -> float:
    put = put_batch(batch, session.mesh)
    total = compile_losses(session.program)(params, put)
    cost = evaluation_cost(session.program, session.mesh, session.config)
    run.ledger.charge({category: cost})
    return float(total) / max(int((put.targets != IGNORED).sum()), 1)


def take_a_look(run: Run) -> None:
    """Reads layers, heads and units on the next batch, for the report."""
    before = run.ledger.switch("growth")
    found = looked(run, next_batch(run))
    values = {
        name: np.asarray(value, np.float64).round(6).tolist()
        for name, value in found.items()
    }
    run.metrics.write({"step": run.at.step, "signals": values, **run.spent()})
    run.ledger.switch(before)
