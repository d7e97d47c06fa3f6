"""What counts know alone: the back-off model of the ladder without a network.

Nothing is trained: all of the text is counted, and the gate says the counts' chances
only. A rung with these tables and little training is hardly more than this.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.baseline_rows import quality
from experiments.bench_again import find
from experiments.bench_arms import Rung, axes, configure
from experiments.bench_plan import TUNED, Options
from uets_jax.models.backoff import backoff_tables, operations
from uets_jax.train.assets import asset_costs
from uets_jax.train.counting import chosen_text, counted_text
from uets_jax.train.session import open_session
from uets_jax.train.validation import validation
from uets_jax.types import IGNORED, Params

# those whose text is counted: all of it, or what selection would choose
ARMS = {
    "clean": ("clean/+ backoff",),
    "mixture": (
        "mixture/+ backoff",
        "mixture/+ select/target",
        "mixture/+ select/blind",
    ),
}
CLOSED = -40.0  # the logit of the network's share
NOTE = (
    "n-grams up to five tokens of the whole training text (mode: of what selection "
    "would choose of it), smoothed, no network, nothing trained; read on valid-B. "
    "statistics_flops: integer operations of counting, and what selection knows."
)


def rows(options: Options, data: Path) -> list[dict[str, Any]]:
    """A row for each text of the tracks that are asked for.

    Args:
      options: of the ladder.
      data: folder with the texts of BLiMP and last words.
    """
    paths = [path for track in options.tracks for path in ARMS[track]]
    return [row(find(path), options, data) for path in paths]


def row(rung: Rung, options: Options, data: Path) -> dict[str, Any]:
    """Of the text that the rung counts."""
    settings = {axis.name: axis.values[axis.start] for axis in axes(rung)}
    budget = TUNED * options.unit
    session = open_session(configure(options.stores, rung, settings, budget))
    config = session.config
    text = counted_text(session.windows, 0)
    chosen = chosen_text(config, session.assets, text)
    params = closed(jax.jit(session.program.init)(jax.random.key(0)))
    tables = jax.tree.map(jnp.asarray, backoff_tables(config.model, chosen))
    params["backoff"] = {name: tables[name] for name in params["backoff"]}
    knowing = sum(int(c.total) for c in asset_costs(config, session.store).values())
    flops = knowing + operations(config.model, text.targets.size)
    found = validation(session, params, "valid", 0)
    _, t2 = options.targets[rung.track, rung.mode]
    return {
        "track": rung.track,
        "mode": rung.mode or None,
        "bits_per_byte": found["bits_per_byte"],
        "t2_bits_per_byte": t2,
        "tokens_counted": int((np.asarray(chosen.targets) != IGNORED).sum()),
        "statistics_flops": flops,
        "units": flops / options.unit,
        **quality(config, session.program, params, data),
    }


def closed(params: Params) -> dict[str, Any]:
    """With a gate that leaves the network nothing."""
    blend = {k: jnp.zeros_like(v) for k, v in params["blend"].items()}
    return {**params, "blend": {**blend, "b": jnp.full_like(blend["b"], CLOSED)}}
