"""The account of a run: FLOPs and seconds by category, tokens; saved with the state."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from uets_jax.measure.work import Cost

NOT_TRAINING = ("evaluation",)  # what curves are not drawn over


@dataclasses.dataclass
class Ledger:
    """What a run has cost so far. It is part of a checkpoint and goes on after it.

    Exactly one category of seconds runs at any time (`switch`), so that the categories
    add up to the wall-clock since `start`.
    """

    costs: dict[str, Cost] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    joules: float = 0.0
    tokens: int = 0
    _category: str = "prepare"
    _since: float = dataclasses.field(default_factory=time.perf_counter)

    def switch(self, category: str) -> str:
        """Charges the time since the last switch; returns the category that ran."""
        now, before = time.perf_counter(), self._category
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._category, self._since = category, now
        return before

    def charge(self, costs: Mapping[str, Cost], tokens: int = 0) -> None:
        """Adds FLOPs by category and tokens trained on."""
        for category, cost in costs.items():
            self.costs[category] = self.costs.get(category, Cost()) + cost
        self.tokens += tokens

    def training_flops(self) -> int:
        """What curves are drawn over: all but evaluation."""
        return sum(c.total for n, c in self.costs.items() if n not in NOT_TRAINING)

    def training_seconds(self) -> float:
        """Seconds of steps and of waiting for data: no compilation, no evaluation."""
        self.switch(self._category)
        return self.seconds.get("train", 0.0) + self.seconds.get("data", 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `flops` are matmuls and elementwise work."""
        self.switch(self._category)
        by = lambda get: {name: get(cost) for name, cost in self.costs.items()}
        return {
            "flops": by(lambda c: c.total),
            "matmul_flops": by(lambda c: c.matmul),
            "transcendentals": by(lambda c: c.transcendental),
            "traffic_bytes": by(lambda c: c.bytes),
            "seconds": dict(self.seconds),
            "joules": self.joules,
            "tokens": self.tokens,
        }

    def carry(self, stored: dict[str, Any]) -> None:
        """Takes over the account of an earlier part of the run."""
        self.switch(self._category)
        for name, total in stored["flops"].items():
            matmul = stored["matmul_flops"][name]
            cost = Cost(
                matmul=matmul,
                elementwise=total - matmul,
                transcendental=stored["transcendentals"][name],
                bytes=stored["traffic_bytes"][name],
            )
            self.charge({name: cost})
        self.tokens += stored["tokens"]
        self.joules += stored["joules"]
        for category, amount in stored["seconds"].items():
            self.seconds[category] = self.seconds.get(category, 0.0) + amount
