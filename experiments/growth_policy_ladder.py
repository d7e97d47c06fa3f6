"""What grows in the runs of the growth policy, and what a step costs at each size.

width   16 -> 32 -> 64, one layer of one head and 32 hidden units. A quarter of a
        million tokens is enough for a wider one to pay: the default
depth   1 -> 2 -> 4 layers of b2. At this length deeper is worse at equal tokens, so
        that there is nothing to learn but to refuse
"""

import dataclasses
import functools
from typing import Any

from experiments import arms
from experiments.aql_plan import RECIPES
from uets_jax.build import build
from uets_jax.config import ExperimentConfig
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.mesh import make_mesh

RECIPE, RATE = "b2", 0.01
BATCH = RECIPES[RECIPE]["batch"]
TOKENS = BATCH * arms.LENGTH  # of a step


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Three sizes of a field of the model; `model`: what else differs from b2's."""

    field: str
    sizes: tuple[int, int, int]
    model: tuple[tuple[str, Any], ...] = ()

    def plan(self, first: float, second: float) -> str:
        """All three sizes, from these shares on."""
        one, two = (f"{self.field}={size}" for size in self.sizes[1:])
        return f"{one}:{first:g},{two}:{second:g}"

    def leap(self, share: float) -> str:
        """From the first size to the last one."""
        return f"{self.field}={self.sizes[-1]}:{share:g}"


ONE_HEAD = (("heads", 1), ("kv_heads", 1), ("hidden", 32))
LADDERS = {
    "width": Ladder("width", (16, 32, 64), ONE_HEAD),
    "depth": Ladder("depth", arms.DEPTHS),
}


def configure(
    ladder: Ladder, size: int, source: str, steps: int, seed: int
) -> ExperimentConfig:
    """b2 at one size, for so many steps."""
    settings = {**RECIPES[RECIPE], "learning_rate": RATE}
    flops = steps * arms.step_flops(RECIPE, 1, BATCH)
    config = arms.config(RECIPE, source, settings, 1, flops, seed)
    changes = {**dict(ladder.model), ladder.field: size}
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, **changes)
    )


@functools.lru_cache(maxsize=16)
def step_flops(ladder: Ladder, size: int) -> int:
    """Total FLOPs of one training step, counted on its trace; nothing is compiled."""
    config = configure(ladder, size, "", 1, 0)
    mesh = make_mesh(config.train.mesh)
    cost = count(trace_step(build(config), mesh, shapes(config)).jaxpr).total()
    return int(sum(cost.values(), start=Cost()).total)
