"""The recurrent gate: from features of every layer of every leaf to decisions.

x -> GRU -> [h, mean of h over all] -> linear: weights of the update rules (softmax),
and log multipliers of step, weight decay, 1 - b1 and 1 - b2, softly clipped. To
that come a linear function of the features, a bias of each role, and each role's own
linear function of how far the run is: a schedule. One set of weights serves all leaves
and layers.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from uets_jax.errors import UserError, nearest
from uets_jax.optim.features import NAMES, PROGRESS
from uets_jax.optim.leaves import ROLES, Leaf
from uets_jax.optim.mlp import MlpTheta, init_mlp

RULES = ("adam", "muon", "lion", "momentum", "mlp")
OUTPUTS = ("step", "decay", "b1", "b2", "skip")  # of the gate, beside the rules
KEEP = "keep"  # one more, where it is learned when the mixture applies
BETWEEN = ("held", "nominal", "learned")
NOMINAL_BIAS = 5.0  # of the nominal rule's logit: its weight among five is 0.97
AWAKE = -4.0  # bias of the output that skips


@dataclasses.dataclass(frozen=True)
class GateSettings:
    """What is fixed about a gated rule; all that is learned is in its theta.

    rules:      that are mixed, from `RULES`.
    nominal:    "muon": Muon on hidden matrices, Adam on the rest, as `rules.rule` has
                them; "adamw": Adam throughout.
    hidden:     size of the recurrent state.
    recurrent:  False: each decision forgets those before.
    every:      steps between two decisions.
    between:    what holds until the next: "held", the last decision; "nominal", the
                nominal rule alone, with the last multipliers; or "learned", of the
                last mixture a share that the gate decides, and of the nominal rule the
                rest: one output more.
    skip:       the gate may leave out the update of a layer; its moments go on.
    cautious:   decay never opposes the step (Chen et al. 2025, arXiv:2510.12402).
    step_bound, decay_bound, momentum_bound: of the logs of the multipliers; the last
                of those of 1 - b1 and 1 - b2.
    divergence: the nominal rule takes over while the loss is this multiple of its
                least value, or more.
    b1, b2, eps, momentum: of the rules, as in `OptimConfig`.
    adam_ratio, rest_ratio: likewise; the first with nominal "muon", the second with
                "adamw".
    ahead:      Adam in its Nesterov form.
    lion_mix:   share of the momentum in Lion's direction.

    Raises:
      UserError: for a setting that can't be.
    """

    rules: tuple[str, ...] = ("adam", "muon", "lion", "momentum")
    nominal: str = "muon"
    hidden: int = 8
    recurrent: bool = True
    every: int = 1
    between: str = "held"
    skip: bool = False
    cautious: bool = False
    step_bound: float = 1.6
    decay_bound: float = 1.6
    momentum_bound: float = 2.5
    divergence: float = 1.3
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    adam_ratio: float = 2.0
    rest_ratio: float = 1.0
    ahead: bool = False
    lion_mix: float = 0.9

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in RULES:
                raise UserError(f"gate.rules: {rule!r}: {nearest(str(rule), RULES)}")
        if self.nominal not in ("muon", "adamw"):
            raise UserError(f"gate.nominal: 'muon' or 'adamw', not {self.nominal!r}")
        if self.between not in BETWEEN:
            hint = nearest(str(self.between), BETWEEN)
            raise UserError(f"gate.between: {self.between!r}: {hint}")
        for rule in ("adam", *(["muon"] if self.nominal == "muon" else [])):
            if rule not in self.rules:
                raise UserError(f"gate.rules: the nominal rule needs {rule!r}")
        if len({*self.rules}) < len(self.rules):
            raise UserError(f"gate.rules: {self.rules}: name each once")
        for name in ("hidden", "every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"gate.{name}: an integer, at least 1, not {value!r}")
        for name in ("step_bound", "decay_bound", "momentum_bound", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"gate.{name}: must be above 0 and finite")
        for name in ("b1", "b2", "momentum", "lion_mix"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"gate.{name}: must be in [0, 1)")
        if not self.divergence > 1:
            raise UserError("gate.divergence: must be above 1")
        for name in ("adam_ratio", "rest_ratio"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"gate.{name}: must be 0 or more, and finite")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what a decision consists of."""
        keep = (KEEP,) if self.between == "learned" else ()
        return (*self.rules, *OUTPUTS, *keep)

    @property
    def outputs(self) -> int:
        """Columns of a decision."""
        return len(self.columns)

    def nominal_of(self, leaf: Leaf) -> int:
        """Place in `rules` of what a leaf follows without a gate."""
        muon = self.nominal == "muon" and leaf.axes is not None
        return self.rules.index("muon" if muon else "adam")


class GateTheta(NamedTuple):
    """What is learned; F features, H hidden, K outputs.

    role_progress: of the 8 features that say how far the run is.
    mlp: of the learned direction, None without.
    """

    input: Float[Array, "f 3h"]
    recurrent: Float[Array, "h 3h"]
    bias: Float[Array, " 3h"]
    output: Float[Array, "2h k"]
    direct: Float[Array, "f k"]
    role_bias: Float[Array, "4 k"]
    role_progress: Float[Array, "4 8 k"]
    mlp: MlpTheta | None


def init_theta(
    key: Key[Array, ""], settings: GateSettings | None = None, awake: float = AWAKE
) -> GateTheta:
    """Almost the nominal rule, whatever the features: its weight is 0.95 or more.

    awake: bias of the output that skips, below 0.
    """
    s = settings or GateSettings()
    f, h = len(NAMES), s.hidden
    into, again, network = jax.random.split(key, 3)
    bias = np.zeros((len(ROLES), s.outputs), np.float32)
    for number, role in enumerate(ROLES):
        muon = role == "hidden" and s.nominal == "muon"
        bias[number, s.rules.index("muon" if muon else "adam")] = NOMINAL_BIAS
    bias[:, s.columns.index("skip")] = awake
    return GateTheta(
        input=jax.random.normal(into, (f, 3 * h)) / f**0.5,
        recurrent=jax.random.normal(again, (h, 3 * h)) / h**0.5,
        bias=jnp.zeros(3 * h),
        output=jnp.zeros((2 * h, s.outputs)),
        direct=jnp.zeros((f, s.outputs)),
        role_bias=jnp.asarray(bias),
        role_progress=jnp.zeros((len(ROLES), len(PROGRESS), s.outputs)),
        mlp=init_mlp(network, 1) if "mlp" in s.rules else None,
    )


def check_theta(theta: GateTheta, settings: GateSettings, where: str) -> None:
    """Raises `UserError` where the weights are of another shape than the settings."""
    wanted = jax.eval_shape(lambda: init_theta(jax.random.key(0), settings))
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if jax.tree.structure(theta) != jax.tree.structure(wanted):
        raise UserError(f"{where}: not the fields of rules {settings.rules}")
    for name, got, want in zip(
        GateTheta._fields, shapes(theta), shapes(wanted), strict=True
    ):
        if got != want:
            raise UserError(f"{where}: {name}: shape {got}, expected {want}")


class Units(NamedTuple):
    """Layers of leaves, one after the other: n of them.

    role:    number in `ROLES`.
    nominal: one-hot over the rules.
    allowed: rules that a unit may follow.
    """

    role: Int[np.ndarray, " n"]
    nominal: Float[np.ndarray, "n k"]
    allowed: Bool[np.ndarray, "n k"]


def units_of(leaves: list[Leaf], settings: GateSettings) -> Units:
    """Static facts of every unit; Muon is for hidden matrices only."""
    rules, layers = settings.rules, [leaf.layers for leaf in leaves]
    role = [ROLES.index(leaf.role) for leaf in leaves]
    places = [settings.nominal_of(leaf) for leaf in leaves]
    allowed = [[r != "muon" or leaf.axes is not None for r in rules] for leaf in leaves]
    nominal = np.eye(len(rules), dtype=np.float32)[np.asarray(places, int)]
    each = lambda x: np.repeat(np.asarray(x), layers, axis=0)
    return Units(each(role), each(nominal), each(allowed))


def decide(
    theta: GateTheta,
    settings: GateSettings,
    units: Units,
    features: Float[Array, "n f"],
    hidden: Float[Array, "n h"],
) -> tuple[Float[Array, "n h"], Float[Array, "n k"]]:
    """(hidden state, decisions) of all units.

    A decision is what departs from the nominal rule, so that zeros are that rule:
    weights less the nominal ones, log multipliers of step, decay, 1 - b1 and 1 - b2,
    1 where the update is left out and, where that is learned, the share in [0, 1] of
    the mixture that is kept until the next decision.
    """
    if not settings.recurrent:
        hidden = jnp.zeros_like(hidden)
    hidden = gru(theta, features, hidden)
    context = jnp.broadcast_to(hidden.mean(0, keepdims=True), hidden.shape)
    raw = jnp.concatenate([hidden, context], 1) @ theta.output
    raw = raw + features @ theta.direct
    first = NAMES.index(PROGRESS[0])
    progress = features[:, first : first + len(PROGRESS)]
    each = theta.role_progress[units.role]
    raw = raw + theta.role_bias[units.role] + (progress[:, :, None] * each).sum(1)
    k = len(settings.rules)
    logits = jnp.where(units.allowed, raw[:, :k], -jnp.inf)
    weights = jax.nn.softmax(logits) - units.nominal
    memory = settings.momentum_bound
    bounds = (settings.step_bound, settings.decay_bound, memory, memory)
    logs = [b * jnp.tanh(raw[:, k + i] / b) for i, b in enumerate(bounds)]
    place = settings.columns.index("skip")
    skips = (raw[:, place] > 0) if settings.skip else jnp.zeros(len(raw), bool)
    rest = jnp.stack([*logs, skips.astype(jnp.float32)], 1)
    keep = jax.nn.sigmoid(raw[:, place + 1 :])
    return hidden, jnp.concatenate([weights, rest, keep], 1)


def between(
    settings: GateSettings, departures: Float[Array, "n k"], decided: Bool[Array, ""]
) -> Float[Array, "n k"]:
    """What holds of the last decisions in a step in which `decided` is false."""
    k = len(settings.rules)
    kept = {"nominal": 0.0, "learned": departures[:, -1:]}.get(settings.between)
    if kept is None:
        return departures
    weights = departures[:, :k] * jnp.where(decided, 1.0, kept)
    return departures.at[:, :k].set(weights)


def gru(
    theta: GateTheta, x: Float[Array, "n f"], h: Float[Array, "n h"]
) -> Float[Array, "n h"]:
    """One step of a gated recurrent unit (Cho et al. 2014; reset before the matrix)."""
    size = h.shape[1]
    read = x @ theta.input + theta.bias[None]
    back = h @ theta.recurrent[:, : 2 * size]
    z = jax.nn.sigmoid(read[:, :size] + back[:, :size])
    r = jax.nn.sigmoid(read[:, size : 2 * size] + back[:, size:])
    new = read[:, 2 * size :] + (r * h) @ theta.recurrent[:, 2 * size :]
    return (1 - z) * h + z * jnp.tanh(new)
