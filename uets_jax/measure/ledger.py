"""The account of a run: FLOPs and seconds by category, tokens; saved with the state."""

import dataclasses
import time
from typing import Any

TRAINING = ("train", "optimizer")  # the categories of FLOPs that curves are drawn over


@dataclasses.dataclass
class Ledger:
    """What a run has cost so far. It is part of a checkpoint and goes on after it.

    Exactly one category of seconds runs at any time (`switch`), so that the categories
    add up to the wall-clock since `start`.
    """

    flops: dict[str, int] = dataclasses.field(default_factory=dict)
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

    def charge(self, flops: dict[str, int], tokens: int = 0) -> None:
        """Adds FLOPs by category and tokens trained on."""
        for category, amount in flops.items():
            self.flops[category] = self.flops.get(category, 0) + amount
        self.tokens += tokens

    def training_flops(self) -> int:
        """What curves are drawn over: forward, backward and update."""
        return sum(self.flops.get(c, 0) for c in TRAINING)

    def training_seconds(self) -> float:
        """Seconds of steps and of waiting for data: no compilation, no evaluation."""
        self.switch(self._category)
        return self.seconds.get("train", 0.0) + self.seconds.get("data", 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        self.switch(self._category)
        return {
            "flops": dict(self.flops),
            "seconds": dict(self.seconds),
            "joules": self.joules,
            "tokens": self.tokens,
        }

    def carry(self, stored: dict[str, Any]) -> None:
        """Takes over the account of an earlier part of the run."""
        self.switch(self._category)
        self.charge(stored["flops"], stored["tokens"])
        self.joules += stored["joules"]
        for category, amount in stored["seconds"].items():
            self.seconds[category] = self.seconds.get(category, 0.0) + amount
