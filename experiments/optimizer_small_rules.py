"""The rules of the small comparison: by hand, shipped, and learned within minutes.

The learned direction and the LSTM are meta-trained here, on quadratics and a small MLP
of other shapes than those that are reported; convolutions, digits and sinusoids stay
out. Each has a folder and goes on where it has stopped.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from experiments import meta_stages
from uets_jax.meta.episode import Make
from uets_jax.meta.family import Tasks
from uets_jax.meta.nets import mlp
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.task_vision import shapes, vision
from uets_jax.meta.trainer import meta_train
from uets_jax.optim.lstm import SCALE, init_lstm, scale_by_lstm
from uets_jax.optim.mlp import MlpTheta, init_mlp, scale_by_learned_mlp
from uets_jax.optim.optimizer import minus_rate
from uets_jax.optim.stored import load_theta

RATE = meta_stages.RATE  # where a task gives none
VALIDATE = 50  # updates
_FEATURE, _REST = 10, 0.1  # m / sqrt(v) of the shortest memory; weight of the others


class Arm(NamedTuple):
    """A rule that is compared.

    make:         from theta to it.
    theta:        () of a rule by hand, which nobody has learned.
    families:     names of those that theta was learned on; None: by hand.
    core_seconds: of learning it.
    """

    name: str
    make: Make
    theta: Any = ()
    families: tuple[str, ...] | None = None
    core_seconds: float = 0.0

    def seen(self, family: str) -> str | None:
        """`yes`, `kind` (others of its kind: quadratic, mlp, ..) or `no`."""
        if self.families is None:
            return None
        kinds = {name.partition("-")[0] for name in self.families}
        kind = "kind" if family.partition("-")[0] in kinds else "no"
        return "yes" if family in self.families else kind


def by_hand(direction: optax.GradientTransformation) -> Make:
    """A rule without theta; the rate is the task's."""
    return lambda nothing: optax.chain(direction, minus_rate(RATE))


def hand_written() -> list[Arm]:
    """SGD without momentum, Adam, and Muon with Adam on what is no hidden matrix."""
    muon = functools.partial(meta_stages.make, settings=load_theta(None).settings)
    return [
        Arm("sgd", by_hand(optax.identity())),
        Arm("adam", by_hand(optax.scale_by_adam())),
        Arm("muon", lambda nothing: muon(None)),
    ]


def shipped() -> Arm:
    """The gate whose weights are in the package."""
    found = load_theta(None)
    make = functools.partial(meta_stages.make, settings=found.settings)
    tasks = tuple(dict.fromkeys(t.rpartition("#")[0] for t in found.card["tasks"]))
    return Arm("gate", make, found.theta, tasks, found.card["core_seconds"])


def make_mlp(theta: MlpTheta) -> optax.GradientTransformationExtraArgs:
    """A network's direction in hidden matrices, Adam elsewhere."""
    return optax.chain(scale_by_learned_mlp(theta), minus_rate(RATE))


def first_mlp(key: Key[Array, ""]) -> MlpTheta:
    """Random weights, and through two units of each layer m / sqrt(v) as it is.

    Random ones alone are as likely to climb as to descend.
    """
    drawn = init_mlp(key)
    signs = jnp.array([1.0, -1.0])
    return drawn._replace(
        w1=drawn.w1.at[:, :2].set(0.0).at[_FEATURE, :2].set(signs),
        w2=drawn.w2.at[:, :2].set(0.0).at[:2, :2].set(jnp.eye(2)),
        w3=(_REST * drawn.w3).at[:2, 0].set(signs),
    )


def make_lstm(theta: Any) -> optax.GradientTransformationExtraArgs:
    """An output of 1 is a step of the task's rate; gradients are constants to theta."""
    constant = optax.stateless(lambda updates, _: jax.lax.stop_gradient(updates))
    lstm = scale_by_lstm(theta)
    return optax.chain(constant, lstm, optax.scale(1 / SCALE), minus_rate(RATE))


def first_lstm(key: Key[Array, ""]) -> Any:
    """Random weights, the output's sign so that a steady gradient is descended."""
    theta = init_lstm(key)
    rule, ends = scale_by_lstm(theta), []
    for g in (jnp.full(1, 0.01), jnp.full(1, -0.01)):
        state = rule.init(g)
        for _ in range(5):
            u, state = rule.update(g, state)
        ends.append(u)
    sign = jnp.where(ends[0] - ends[1] < 0, -1.0, 1.0)
    return theta | {"out": {**theta["out"], "w": sign[:, None] * theta["out"]["w"]}}


def waiting(nothing: Any) -> optax.GradientTransformationExtraArgs:
    """Adam that stands still for half of the run: what an LSTM is measured against.

    All of its fall is in the second half, and is the unit of a value (`episode`). So no
    value is clipped, which would leave backpropagation without a slope, and the
    objective is the mean log loss but for a constant and a factor.
    """
    adam = by_hand(optax.scale_by_adam())(nothing)

    def update(updates, state, params=None, *, progress, **extra):
        updates, state = adam.update(updates, state, params, **extra)
        go = jnp.where(progress < 0.5, 0.0, 1.0)
        return jax.tree.map(lambda u: go * u, updates), state

    return optax.GradientTransformationExtraArgs(adam.init, update)


def tasks() -> Tasks:
    """What the network and the LSTM are learned on; none of it is reported."""
    of = lambda *net: vision(shapes(), mlp(*net))
    train = (quadratic(12, 12), quadratic(24, 1), of((16,), "relu"))
    return Tasks(train, (quadratic(16, 8), of((16, 16), "gelu")))


class Recipe(NamedTuple):
    """How an arm is learned. settings: of `MetaConfig`. against: the rule whose curve
    is the nominal one; None: that of the first theta.
    """

    make: Make
    first: Callable[[Key[Array, ""]], Any]
    settings: dict[str, Any]
    against: Make | None = None


RECIPES = {
    "mlp": Recipe(make_mlp, first_mlp, {"estimator": "nres", "sigma": 0.05}),
    "lstm": Recipe(
        make_lstm,
        first_lstm,
        {"estimator": "tbptt", "window": 20, "episodes": 8},
        waiting,
    ),
}


def learned(name: str, config: MetaConfig, on: Tasks, folder: Path) -> Arm:
    """An arm of `RECIPES`, learned within the budget or as far as it was.

    Args:
      name: of the arm.
      config: budget and seed; the recipe's settings win over its others.
      on: the families.
      folder: of this run.
    """
    recipe = RECIPES[name]
    own = dataclasses.replace(config, **recipe.settings)
    theta = recipe.first(jax.random.key(config.seed))
    nominal = (recipe.against, ()) if recipe.against else None
    made = meta_train(recipe.make, theta, on, own, folder, nominal=nominal)
    families = tuple(family.name for family in on.train)
    return Arm(name, recipe.make, made.theta, families, made.core_seconds)
