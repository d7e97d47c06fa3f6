"""Rules on small tasks: by hand, the shipped gate, a learned direction, an LSTM.

Each has two rows on every family: at the family's own learning rate, and at that times
the best factor of a grid, found on seeds that are not reported. What is learned here
(`optimizer_small_rules`) has not seen the families that are reported, what is shipped
has seen most of them; the column `seen` says so. The last rows are of learned initial
parameters (`optimizer_small_starts`), a comparison and no part of the product.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import optimizer_small_starts
from experiments.optimizer_small_rules import (
    RECIPES,
    VALIDATE,
    Arm,
    hand_written,
    learned,
    shipped,
    tasks,
)
from experiments.optimizer_small_tuning import TUNING, tuned
from experiments.records import write_record
from uets_jax.meta.family import Family
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.task_sine import sine
from uets_jax.meta.task_vision import conv, digits, mlp, shapes, vision
from uets_jax.meta.validate import WORST, scorer
from uets_jax.train.session import use_compilation_cache

SEEDS, TUNE = 32, 16  # of a row, and of the search for its factor
NOTE = (
    "Whole runs of the families' horizons with warm-up and WSD. log_loss: mean over "
    "seeds of log(held-out loss at the end / at the start), below 0 is better, with "
    "its standard error; a run that diverged (not finite, or e times the start) counts "
    "as 1. Two rows for each rule: `tuned` false is the family's learning rate as it "
    "is, true that times rate_factor, the best of a grid of powers of 3 on other "
    "seeds. seen: whether the weights were learned on the family, on others of its "
    "kind or on neither. sgd has no momentum. mlp: scale_by_learned_mlp, by NRES, from "
    "m / sqrt(v) and random weights. lstm: that of Andrychowicz et al., by truncated "
    "backpropagation, here times the family's rate and schedule. core_seconds: of "
    "meta-training, compilation included, tuning not. Rows with a `loss` are starts, "
    "not rules: mean held-out loss after `steps` of SGD at a constant rate tuned "
    "likewise, its standard error over starts; maml, fomaml and reptile are learned "
    "for 5 steps, joint is plain training on the mixture. A start belongs to one "
    "network and one distribution; it is a comparison and no part of the product."
)
Score = Callable[[int, int, float], Float[np.ndarray, " n"]]


def run(given: argparse.Namespace, said: str) -> None:
    """Meta-trains or goes on, then runs all rules, then all starts.

    Args:
      given: minutes and updates of each meta-training, seed, runs, out.
      said: the command, for the record.
    """
    use_compilation_cache()
    folder, on = given.runs / "small", tasks()
    config = MetaConfig(
        updates=given.updates,
        minutes=given.minutes,
        seed=given.seed,
        validate=VALIDATE,
    )
    new = [learned(name, config, on, folder / name) for name in RECIPES]
    arms = [*hand_written(), shipped(), *new]
    made = rows(arms, families())
    made += optimizer_small_starts.rows(
        sine(), updates=given.updates or optimizer_small_starts.UPDATES
    )
    about = {
        "minutes": given.minutes,
        "updates": given.updates,
        "seed": given.seed,
        "families": [family.name for family in (*on.train, *on.valid)],
        "tuning_seeds": TUNE,
        "start_tasks": optimizer_small_starts.TASKS,
    }
    print(write_record("optimizer.small", made, said, about, NOTE, given.out))


def families() -> tuple[Family, ...]:
    """Those that are reported.

    Raises:
      UserError: without scikit-learn, which has the digits.
    """
    return (
        quadratic(8, 16),
        quadratic(32, 1),
        vision(digits(), mlp((32,), "relu")),
        vision(shapes(), mlp((24,), "tanh")),
        vision(shapes(), conv((8, 16), "gelu")),
        sine(),
    )


def rows(
    arms: Sequence[Arm],
    families: Sequence[Family],
    seeds: int = SEEDS,
    tune: int = TUNE,
) -> list[dict[str, Any]]:
    """Two for each family and arm: at the rate as it is, and at the tuned one.

    Args:
      arms: the rules.
      families: the tasks.
      seeds: of a row, a multiple of `tune`.
      tune: seeds of the search, others.
    """
    found = []
    for family in families:
        for arm in arms:
            score, told = scored(arm, family, tune), []
            best = tuned(
                lambda factor, score=score: float(score(TUNING, tune, factor).mean())
            )
            for factor in (1.0, best):
                told.append(row(arm, family, score(0, seeds, factor)))
                told[-1] |= {"tuned": len(told) > 1, "rate_factor": factor}
            print(*(f"{family.name} {arm.name} {r['log_loss']:+.3f}" for r in told))
            found += told
    return found


def scored(arm: Arm, family: Family, at_once: int) -> Score:
    """(first seed, seeds, factor) -> scores, by one program for `at_once` seeds."""
    go = jax.jit(scorer(arm.make, family))

    def score(first: int, seeds: int, factor: float) -> Float[np.ndarray, " n"]:
        begins = range(first, first + seeds, at_once)
        numbers = (jnp.arange(begin, begin + at_once) for begin in begins)
        rate = jnp.asarray(factor, jnp.float32)
        return np.concatenate([np.asarray(go(arm.theta, n, rate)[0]) for n in numbers])

    return score


def row(arm: Arm, family: Family, scores: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """What the seeds of an arm on a family tell."""
    scores = scores.astype(np.float64)
    return {
        "family": family.name,
        "arm": arm.name,
        "seen": arm.seen(family.name),
        "seeds": len(scores),
        "log_loss": scores.mean(),
        "loss": None,
        "standard_error": scores.std(ddof=1) / np.sqrt(len(scores)),
        "diverged": (scores >= WORST).mean(),
        "steps": family.horizon,
        "core_seconds": arm.core_seconds,
        "state_bytes_per_parameter": state_bytes(arm, family),
    }


def state_bytes(arm: Arm, family: Family) -> float:
    """Bytes of the rule's state for a parameter of the family."""

    def both() -> Any:
        own, init = jax.random.split(jax.random.key(0))
        params = family.init(family.instance(own), init)
        return params, arm.make(arm.theta).init(params)

    params, state = (jax.tree.leaves(tree) for tree in jax.eval_shape(both))
    return sum(x.size * x.dtype.itemsize for x in state) / sum(p.size for p in params)
