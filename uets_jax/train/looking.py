"""What a run's layers, heads and units do, measured on a batch and charged."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uets_jax.measure import slope
from uets_jax.measure.jaxpr import count
from uets_jax.measure.signals import look, removal
from uets_jax.measure.work import Cost
from uets_jax.step import Program, evaluated
from uets_jax.train import monitor
from uets_jax.train.mesh import put_batch
from uets_jax.train.run import Run
from uets_jax.types import Batch, Params

SHOWN = ("influence", "rank", "similarity", "gradient", "saturation", "heads")


@functools.lru_cache(maxsize=32)
def _compiled(program: Program, mesh: Mesh, what: str, documents: bool) -> Any:
    """`(params, batch) -> readings`, whole on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(reading(program, what, documents), out_shardings=everywhere)


def reading(
    program: Program, what: str, documents: bool
) -> Callable[[Params, Batch], Any]:
    """`(params, batch) -> look or removal`, to be jitted."""
    inspect: Any = program.inspect
    if what == "look":
        return lambda params, batch: look(inspect, params, batch, documents)
    return lambda params, batch: removal(inspect, params, batch)


def measured(run: Run, batch: Batch, what: str) -> Any:
    """`look` or `removal` of the model on a batch, on the host; charged to growth."""
    session = run.session
    documents = session.config.model.mask_documents
    call = _compiled(session.program, session.mesh, what, documents)
    given = (evaluated(session.program, run.state), put_batch(batch, session.mesh))
    costs = count(call.trace(*given).jaxpr).most().values()
    run.ledger.charge({"growth": sum(costs, Cost())})
    return jax.tree.map(np.asarray, jax.device_get(call(*given)))


def looked(run: Run, batch: Batch) -> dict[str, np.ndarray]:
    """What the report shows as maps over layers and time."""
    found = measured(run, batch, "look")
    values = {name: getattr(found, name) for name in SHOWN}
    fall = slope.read(monitor.slope_state(run.at.slope))
    return {
        **values,
        "units": in_use(found.hidden_raw),
        "removal": measured(run, batch, "removal"),
        "noise_scale": found.noise_scale,
        "slope": np.asarray(fall.slope),
        "slope_error": np.asarray(fall.error),
    }


def in_use(importance: np.ndarray) -> np.ndarray:
    """Share of the units [layers, F] over which each layer's importance spreads.

    The participation ratio (sum s)^2 / (F sum s^2): 1 where all are alike, 1 / F where
    one has it all; 0 in a layer in which none has any.
    """
    squares = importance.shape[1] * np.square(importance).sum(1)
    whole = np.square(importance.sum(1))
    return np.where(squares > 0, whole / np.where(squares > 0, squares, 1.0), 0.0)
