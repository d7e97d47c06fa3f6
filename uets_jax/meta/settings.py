"""What a meta-training run is told."""

import dataclasses

from uets_jax.errors import UserError
from uets_jax.meta.augment import AugmentConfig
from uets_jax.meta.estimators import NAMES

FREE = ("updates", "minutes", "checkpoint_minutes", "log_every")  # on resume


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """The budget ends at `updates` or after `minutes`, whichever comes first.

    updates:     of theta; 0: as many as the minutes allow.
    minutes:     of wall-clock time, summed over resumed runs, checks included; 0:
                 without end.
    estimator:   nres, pes or tbptt.
    episodes:    of a window; antithetic pairs for nres and pes.
    window:      steps.
    sigma:       of the noise on theta.
    rate, last_rate: of AdamW on theta, falling by a cosine over the budget.
    decay:       decoupled, towards the first theta: that of AdamW would pull a rule
                 away from the one that it starts as.
    clip:        of the gradient's norm.
    average:     of the running mean of theta that is a candidate, too; per update.
    validate:    updates between validations; each costs about `seeds` whole runs of
                 every held-out family.
    seeds:       of a validation; the last check uses twice as many fresh ones.
    reference:   episodes of the nominal rule for a family's curve.
    augment:     of the episodes.
    seed:        of everything.
    log_every:   updates between lines.
    checkpoint_minutes: between checkpoints.

    Raises:
      UserError: naming the field that is out of range.
    """

    updates: int = 0
    minutes: float = 0.0
    estimator: str = "nres"
    episodes: int = 16
    window: int = 25
    sigma: float = 0.02
    rate: float = 3e-3
    last_rate: float = 3e-4
    decay: float = 0.0
    clip: float = 1.0
    average: float = 0.99
    validate: int = 100
    seeds: int = 4
    reference: int = 16
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.estimator not in NAMES:
            raise UserError(f"meta.estimator: choose from {', '.join(NAMES)}")
        if self.updates < 0 or self.minutes < 0 or not (self.updates or self.minutes):
            raise UserError("meta: give updates, minutes or both")
        above = ("episodes", "window", "sigma", "rate", "last_rate", "clip")
        for name in (*above, "validate", "reference", "log_every"):
            if not getattr(self, name) > 0:
                raise UserError(f"meta.{name}: must be above 0")
        if self.seeds < 2:
            raise UserError("meta.seeds: 2 or more, for a standard error")
        if not 0 <= self.average < 1:
            raise UserError("meta.average: a share in [0, 1)")
        if self.decay < 0:
            raise UserError("meta.decay: 0 or more")


def fixed(config: MetaConfig) -> dict[str, object]:
    """The fields that a resumed run must share, for its record."""
    fields = dataclasses.asdict(config)
    return {name: value for name, value in fields.items() if name not in FREE}
