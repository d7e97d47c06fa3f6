"""What AQL v2 trains on, by the provenance that it never reads.

    python -m experiments.aql_shares

The arm `aql_v2` of the mixture track at U/4, in both modes, is trained step by step;
after each one the windows that were drawn are looked up in the pool's provenance.
Writes the record `aql.shares` and, from it and from a short run with a curriculum, the
page `report.html` of --runs.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import aql_page, arms, tracks
from experiments.aql_plan import AQL, MODES, Arm, Options, configure
from experiments.aql_provenance import pool_row, provenance, share_rows
from experiments.page import write
from experiments.records import write_record
from uets_jax.config import CurriculumConfig, ExperimentConfig, to_dict, window_length
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code
from uets_jax.train.executable import executable
from uets_jax.train.mesh import put_batch
from uets_jax.train.session import open_session

BUDGET, SHORT = 0.25, 0.125  # of U: of the arms, and of the curriculum's run
RATE, SEED = 0.01, 1
EARLY = 0.02  # of the run: the buffer is filled
NOTE = (
    "share: of the windows that were drawn; a window belongs to the document that most "
    "of its tokens are of. repeated: had been drawn before in the run; copied: it, or "
    "about the same passage of a copy of its document, had. tenth: of the run; none: "
    "all of it. The row without a mode: every window of the pool, in its order."
)


class Trail(NamedTuple):
    """What a run left step by step.

    ids:     int [steps, B], numbers of the windows that were trained on.
    scores:  of the buffer's rows, by the step after which they were read.
    metrics: of each step, those of the curriculum.
    """

    ids: np.ndarray
    scores: dict[int, np.ndarray]
    metrics: list[dict[str, float]]


def followed(config: ExperimentConfig) -> Trail:
    """Trains, and looks after every step."""
    session = open_session(config)
    step = executable(session.program, session.mesh, session.config, session.assets)
    state, steps = session.initial_state(), config.train.steps
    looked_at = {max(round(EARLY * steps), 1), max(steps // 2, 1), steps}
    ids, scores, metrics = [], {}, []
    for i in range(steps):
        pool = put_batch(session.windows[i], session.mesh)
        state, told = step.call(state, pool, session.assets)
        told = {k: told[k] for k in told if k.startswith("curriculum_")}
        metrics.append({k: float(v) for k, v in jax.device_get(told).items()})
        chosen = state.parts["select"]
        if hasattr(chosen, "drawn"):
            ids.append(np.asarray(chosen.drawn.batch.ids))
            if i + 1 in looked_at:
                scores[i + 1] = np.asarray(chosen.buffer.keys)
    return Trail(np.array(ids), scores, metrics)


def configs(stores: Path, unit: float) -> dict[str, ExperimentConfig]:
    """The runs: one per mode, and `curriculum`: easy windows first, no selection."""
    options = Options(stores, (), unit=unit)
    chosen = [Arm("aql_v2", mode, "mixture", select=AQL) for mode in MODES]
    make = lambda arm, budget: configure(options, arm, budget, SEED, RATE, "a")
    plain = make(Arm("rarity", "", "mixture"), SHORT)
    order = CurriculumConfig(difficulty="rarity")
    found = {arm.mode: make(arm, BUDGET) for arm in chosen}
    return found | {"curriculum": dataclasses.replace(plain, curriculum=order)}


def measure(
    plan: Mapping[str, ExperimentConfig], stores: Path
) -> tuple[list[dict[str, Any]], dict[str, Trail]]:
    """The rows of the record, and what each run left."""
    store = tracks.opened(stores, "mixture")
    lines = tracks.rows(stores / "pool" / "provenance.jsonl")
    length = window_length(plan[MODES[0]])
    known = provenance(store.tokens("train"), store.tokenizer.eot, lines, length)
    trails = {name: followed(config) for name, config in plan.items()}
    rows = [pool_row(known)]
    for mode in MODES:
        rows += share_rows(mode, trails[mode].ids, known)
    return rows, trails


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.aql_shares")
    flag = found.add_argument
    flag("--out", type=Path, default=Path("results"))
    flag("--runs", type=Path, default=Path("runs/aql"))
    flag("--stores", type=Path, default=Path("runs/baselines/data"))
    flag("--unit", type=float, default=arms.UNIT, help="FLOPs of U")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser().parse_args(words)
    try:
        if not given.unit > 0:
            raise UserError(f"--unit: must be above 0, got {given.unit:g}")
        plan = configs(given.stores, given.unit)
        rows, trails = measure(plan, given.stores)
        command = " ".join(["python -m experiments.aql_shares", *words])
        told = {name: to_dict(config) for name, config in plan.items()}
        print(write_record("aql.shares", rows, command, told, NOTE, out=given.out))
        scores = {mode: trails[mode].scores for mode in MODES}
        stages = trails["curriculum"].metrics
        page = aql_page.page(rows, scores, stages, aql_page.diagrams(given.out))
        said = "python -m experiments.aql_shares"
        print(write(page, given.runs / "report.html", said))
    except ENDS as error:
        print(f"aql_shares: error: {error}", file=sys.stderr)
        return exit_code(error)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
