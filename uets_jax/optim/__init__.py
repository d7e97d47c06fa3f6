"""Update rules and schedules; `learned` is the meta-learned optimizer.

learned:              a whole optimizer, for any optax loop.
scale_by_gated_rules: its core, without the learning rate.
gate_metrics:         what it did, read off its state.
load_theta, save_theta, GateSettings: weights of a gate, and what is fixed about it.
"""

from uets_jax.optim.gate import GateSettings
from uets_jax.optim.gated import gate_metrics, scale_by_gated_rules
from uets_jax.optim.optimizer import learned
from uets_jax.optim.stored import load_theta, save_theta

__all__ = [
    "GateSettings",
    "gate_metrics",
    "learned",
    "load_theta",
    "save_theta",
    "scale_by_gated_rules",
]
