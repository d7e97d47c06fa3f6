"""Meta-training in stages: few weights with much noise first, then more of them.

    1  role_bias                  36 numbers: mixture, step, decay, memories of a role
    2  direct                     how steps and memories follow noise, rate, age
    3  role_progress              how those of a role change over the run
    4  output                     how steps and memories depend on what it has seen

The recurrent part keeps its random weights, as in an echo state network (Jaeger 2001):
an evolution strategy's noise grows with the number of weights that it moves. Each stage
is a run of its own folder, named after what it starts from, and goes on where it has
stopped: with a larger budget the first one goes on, and where that changes its outcome
the next ones begin again.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Bool

from uets_jax.meta.augment import PLAIN, AugmentConfig
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.trainer import Result, meta_train, start_digest
from uets_jax.meta.workshop import Workshop
from uets_jax.models.axes import hidden_matrix, is_matrix, layer_axis, map_axes, role
from uets_jax.optim.features import NAMES, PROGRESS
from uets_jax.optim.gate import AWAKE, KEEP, GateSettings, GateTheta, init_theta
from uets_jax.optim.gated import scale_by_gated_rules
from uets_jax.optim.optimizer import minus_rate
from uets_jax.train.files import write_json
from uets_jax.types import Params

RATE, DECAY = 0.02, 0.1  # where a task gives none


class Stage(NamedTuple):
    """fields: of theta that are learned. share: of the budget. sigma: of the noise.
    rate: of AdamW on theta, at first; a tenth of it at the end. features: of `direct`
    and `role_progress`, outputs: of these and `output`, that are learned; none named:
    all.
    """

    fields: tuple[str, ...]
    share: float
    sigma: float
    rate: float
    features: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def learned(self, theta: GateTheta, settings: GateSettings) -> GateTheta:
        """Which numbers of theta are learned: a mask or a bool for each array."""
        columns = _which(settings.columns, self.outputs)
        rows = {"direct": NAMES, "role_progress": PROGRESS}

        def mask(name: str, field: Any) -> Any:
            if name == "output" and name in self.fields:
                return np.ones((len(field), 1), bool) & columns
            if name in self.fields and name in rows:
                return _which(rows[name], self.features)[:, None] & columns
            return jax.tree.map(lambda _: name in self.fields, field)

        return GateTheta(*(mask(n, field) for n, field in theta._asdict().items()))


def _which(names: tuple[str, ...], chosen: tuple[str, ...]) -> Bool[np.ndarray, " n"]:
    return np.array([not chosen or name in chosen for name in names])


_MEMORY = ("b1", "b2")
STAGES = (
    Stage(("role_bias",), 0.4, 0.1, 0.03),
    Stage(
        ("direct",),
        0.25,
        0.1,
        0.03,
        ("signal_to_noise", "gradient_momentum", "rate", "age"),
        ("step", *_MEMORY),
    ),
    Stage(
        ("role_progress",),
        0.15,
        0.1,
        0.02,
        ("progress_0.1", "progress_0.5", "progress_0.9"),
        ("step", "b1"),
    ),
    Stage(("output",), 0.2, 0.1, 0.02, outputs=("step", *_MEMORY)),
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to meta-train; the first of `VARIANTS` is the one that is shipped.

    awake: at first, of the output that skips.
    """

    settings: GateSettings = GateSettings()
    stages: tuple[Stage, ...] = STAGES
    augment: AugmentConfig = AugmentConfig()
    awake: float = AWAKE


def _deciding(*more: str) -> tuple[Stage, ...]:
    """The stages, with more outputs that depend on what is seen."""
    told = lambda stage: stage._replace(outputs=(*stage.outputs, *more))
    return tuple(told(s) if s.outputs else s for s in STAGES)


_RULES = GateSettings().rules
_MLP = Stage(("output", "mlp"), 0.2, 0.03, 0.003)
VARIANTS = {
    "gate": Variant(),
    "bias": Variant(stages=(STAGES[0]._replace(share=1.0),)),
    "schedule": Variant(
        stages=(STAGES[0]._replace(share=0.6), STAGES[2]._replace(share=0.4)),
    ),
    "all_weights": Variant(
        stages=(Stage(GateTheta._fields[:-1], 1.0, 0.05, 0.01),),
    ),
    "gate_mlp": Variant(GateSettings(rules=(*_RULES, "mlp")), (*STAGES[:3], _MLP)),
    "no_recurrence": Variant(GateSettings(recurrent=False)),
    "no_muon": Variant(
        GateSettings(rules=("adam", "lion", "momentum"), nominal="adamw")
    ),
    "no_augmentation": Variant(augment=PLAIN),
    "every_4": Variant(GateSettings(every=4)),
    "every_4_nominal": Variant(GateSettings(every=4, between="nominal")),
    "every_4_learned": Variant(
        GateSettings(every=4, between="learned"), _deciding(KEEP)
    ),
    "skip": Variant(GateSettings(skip=True), _deciding("skip"), awake=-0.2),
}


def make(
    theta: GateTheta | None, settings: GateSettings
) -> optax.GradientTransformationExtraArgs:
    """The rule whose theta is learned; None: the nominal one."""
    known = {"matrices": hidden_matrix, "decayed": is_matrix}
    known |= {"layer_axis": layer_axis, "roles": role}
    rules = {}
    for own in (False, True):
        of = lambda fn: functools.partial(map_axes, fn)
        about = {name: of(fn) for name, fn in known.items()} if own else {}
        gated = scale_by_gated_rules(
            theta, weight_decay=DECAY, settings=settings, **about
        )
        rules[own] = optax.chain(gated, minus_rate(RATE))

    def init(params: Params) -> Any:
        return rules[_ours(params)].init(params)

    def update(updates, state, params=None, **extra):
        return rules[_ours(params)].update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)


def _ours(params: Params) -> bool:
    """Whether the parameters are those of this house's transformer."""
    return isinstance(params, dict) and "blocks" in params


class SetUp(NamedTuple):
    """What came before the stages: texts aside, nominal curves and programs."""

    seconds: float
    core_seconds: float


class Learned(NamedTuple):
    """theta, the result of every stage, and what came before them."""

    theta: GateTheta
    stages: tuple[Result, ...]
    setup: SetUp


def learn(
    variant: Variant,
    tasks: Tasks,
    config: MetaConfig,
    runs: Path,
    told: Callable[[str], None] = print,
) -> Learned:
    """Every stage with its share of `config`'s updates and minutes.

    A stage whose weights don't beat its start on held-out families hands its start on.
    """
    theta = init_theta(jax.random.key(config.seed), variant.settings, variant.awake)
    rule = functools.partial(make, settings=variant.settings)
    config = dataclasses.replace(config, augment=variant.augment)
    nominal = (lambda nothing: rule(None), None)
    begun = time.monotonic(), time.process_time()
    shop = Workshop(rule, theta, tasks, config, runs / "reference.json", nominal)
    setup = _set_up(runs / "setup.json", *begun)
    results = []
    for number, stage in enumerate(variant.stages, 1):
        own = dataclasses.replace(
            config,
            updates=round(config.updates * stage.share),
            minutes=config.minutes * stage.share,
            sigma=stage.sigma,
            rate=stage.rate,
            last_rate=stage.rate / 10,
        )
        told(f"stage {number}: {', '.join(stage.fields)}")
        learned = stage.learned(theta, variant.settings)
        name = f"stage-{number}-{start_digest(theta, learned)[:8]}"
        given = (rule, theta, tasks, own, runs / name)
        results.append(meta_train(*given, learned=learned, shop=shop))
        theta = results[-1].theta
    return Learned(theta, tuple(results), setup)


def _set_up(path: Path, wall: float, core: float) -> SetUp:
    """What it took when it was first done: later the curves are read from a file."""
    spent = SetUp(time.monotonic() - wall, time.process_time() - core)
    if not path.exists():
        write_json(path, spent._asdict())
    return SetUp(**json.loads(path.read_text("utf-8")))
