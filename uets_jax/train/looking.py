"""What a run's layers, heads and units do, measured on a batch and charged."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uets_jax.measure.jaxpr import count
from uets_jax.measure.signals import look, removal
from uets_jax.measure.work import Cost
from uets_jax.step import Program
from uets_jax.train.mesh import put_batch
from uets_jax.train.run import Run
from uets_jax.types import Batch

SHOWN = ("influence", "rank", "similarity", "gradient", "saturation", "heads")


@functools.lru_cache(maxsize=32)
def _compiled(program: Program, mesh: Mesh, what: str, documents: bool) -> Any:
    """`(params, batch) -> readings`, whole on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    inspect: Any = program.inspect
    if what == "look":
        read = lambda p, b: look(inspect, p, b, documents)
    else:
        read = lambda p, b: removal(inspect, p, b)
    return jax.jit(read, out_shardings=everywhere)


def measured(run: Run, batch: Batch, what: str) -> Any:
    """`look` or `removal` of the model on a batch, on the host; charged to growth."""
    session = run.session
    documents = session.config.model.mask_documents
    call = _compiled(session.program, session.mesh, what, documents)
    given = (run.state.params, put_batch(batch, session.mesh))
    costs = count(call.trace(*given).jaxpr).most().values()
    run.ledger.charge({"growth": sum(costs, Cost())})
    return jax.tree.map(np.asarray, jax.device_get(call(*given)))


def looked(run: Run, batch: Batch) -> dict[str, np.ndarray]:
    """What the report shows as maps over layers and time."""
    found = measured(run, batch, "look")
    values = {name: getattr(found, name) for name in SHOWN}
    return {
        **values,
        "removal": measured(run, batch, "removal"),
        "noise_scale": found.noise_scale,
    }
