"""What is searched for each update rule: its settings, most sensitive first.

Every rule has a multiple of its rate for embeddings, head and norms, the decays of its
moments, and as many settings and trials as the others. The warm-up is 5 % of the steps
but for rules with fewer decays, which have it in their place.
"""

from experiments.search import Axis

_ADAM_RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
_MUON_RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_LION_RATES = (0.000125, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008)
_SGD_RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_DECAY = Axis("weight_decay", (0.0, 0.1, 0.3, 1.0, 3.0), 1, closed=True)
_RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_RATIO = Axis("adam_ratio", _RATIOS, 3)
_REST = Axis("rest_ratio", _RATIOS, 3)
_WARMUP = Axis("warmup", (0.02, 0.05, 0.1, 0.2, 0.4), 1, closed=True)
_B1 = Axis("b1", (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98), 4)
_B2 = Axis("b2", (0.8, 0.9, 0.95, 0.98, 0.99), 2)
_MOMENTUM = Axis("momentum", (0.3, 0.5, 0.7, 0.85, 0.95, 0.98), 4)
# the shipped gate multiplies 1 - momentum of hidden matrices by 4: as wide as Muon's
_GATED = Axis("momentum", (0.83, 0.88, 0.925, 0.95, 0.965, 0.985, 0.995), 3)
_rate = lambda grid, start=3: Axis("learning_rate", grid, start)
_MUON = (_rate(_MUON_RATES), _RATIO, _MOMENTUM, _B1, _DECAY)
RULES: dict[str, tuple[Axis, ...]] = {
    "adamw": (_rate(_ADAM_RATES), _REST, _B1, _DECAY, _B2),
    "muon": _MUON,
    "learned": (_rate(_MUON_RATES), _RATIO, _GATED, _B1, _DECAY),
    "soap": (_rate(_ADAM_RATES), _REST, _B1, _DECAY, _B2),
    "lion": (_rate(_LION_RATES), _REST, _B1, _DECAY, _B2),
    "schedule_free": (_rate(_ADAM_RATES, 4), _REST, _B1, _DECAY, _B2),
    "normuon": _MUON,
    "rmsprop": (_rate(_ADAM_RATES), _REST, _DECAY, _B2, _WARMUP),
    "sgd": (_rate(_SGD_RATES, 2), _REST, _MOMENTUM, _DECAY, _WARMUP),
}
