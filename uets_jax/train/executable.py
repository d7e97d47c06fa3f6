"""One executable for each phase of constant shapes, and what it costs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from uets_jax.config import ExperimentConfig, candidates, window_length
from uets_jax.evaluate.perplexity import compile_losses
from uets_jax.measure.branches import Count
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.step import Program
from uets_jax.train.mesh import abstract_state, compile_step
from uets_jax.types import Batch


class Executable(NamedTuple):
    """A compiled train step, its FLOPs and the bytes that it needs.

    call:  (state, pool, assets) -> (state, metrics); the state is donated.
    count: what one call costs, by category.
    bytes: step_arguments, step_outputs, step_temporaries and step_peak, per device, as
      XLA's memory analysis says; None where it says nothing.
    """

    call: Callable[..., Any]
    count: Count
    bytes: dict[str, int | None]


def abstract_batch(rows: int, length: int) -> Batch:
    """Shapes of a batch of `rows` windows."""
    shapes = ((rows, length), (rows, length), (rows,), (rows, length))
    return Batch(*(jax.ShapeDtypeStruct(s, np.int32) for s in shapes))  # pyright: ignore


class Shapes(NamedTuple):
    """What a step is fed: rows of a pool, their length, the assets' shapes."""

    rows: int
    length: int
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    tree: Any


def shapes(config: ExperimentConfig, assets: Any = None) -> Shapes:
    """Of a config's pool and of these assets; hashable."""
    abstract = lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype)
    leaves, tree = jax.tree.flatten(jax.tree.map(abstract, assets))
    rows = config.train.batch * candidates(config)
    return Shapes(rows, window_length(config), tuple(leaves), tree)


@functools.lru_cache(maxsize=16)
def trace_step(program: Program, mesh: Mesh, fed: Shapes) -> Any:
    """The traced train step, as `jax.jit(...).trace` gives it; nothing is compiled."""
    state, batch = abstract_state(program, mesh), abstract_batch(fed.rows, fed.length)
    assets = jax.tree.unflatten(fed.tree, fed.leaves)
    return compile_step(program, mesh).trace(state, batch, assets)


@functools.lru_cache(maxsize=16)
def _executable(program: Program, mesh: Mesh, fed: Shapes) -> Executable:
    traced = trace_step(program, mesh, fed)
    compiled = traced.lower().compile()
    return Executable(compiled, count(traced.jaxpr), _bytes(compiled))


def executable(
    program: Program, mesh: Mesh, config: ExperimentConfig, assets: Any = None
) -> Executable:
    """Compiles the train step; cached, so that runs which differ only in traced values
    (rate, decay, warm-up, horizon, seed, knobs) share it.
    """
    return _executable(program, mesh, shapes(config, assets))


@functools.lru_cache(maxsize=16)
def _losses_cost(program: Program, mesh: Mesh, rows: int, length: int) -> Cost:
    params = abstract_state(program, mesh).params
    traced = compile_losses(program).trace(params, abstract_batch(rows, length))
    return sum(count(traced.jaxpr).most().values(), Cost())


def evaluation_cost(program: Program, mesh: Mesh, config: ExperimentConfig) -> Cost:
    """Of one batch of an evaluation, whatever category its parts name.

    Nothing counts the predicates there: a counted branch is charged its costlier arm.
    """
    rows = config.train.batch // config.train.microbatches
    return _losses_cost(program, mesh, rows, window_length(config))


def _bytes(compiled: Any) -> dict[str, int | None]:
    found = compiled.memory_analysis()
    if found is None:
        names = ("step_arguments", "step_outputs", "step_temporaries", "step_peak")
        return dict.fromkeys(names)
    sizes = {
        "step_arguments": found.argument_size_in_bytes,
        "step_outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "step_temporaries": found.temp_size_in_bytes,
    }
    return {**sizes, "step_peak": sum(sizes.values())}
