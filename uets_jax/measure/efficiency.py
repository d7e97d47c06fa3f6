"""What a run has to show for its cost, read off its metrics record by record."""

from collections.abc import Mapping
from typing import Any

import jax

from uets_jax.errors import UserError
from uets_jax.measure.ahead import (
    FULL_RATE,
    Baseline,
    Ratio,
    Smooth,
    costs_of,
    follow,
    ratios,
)
from uets_jax.measure.converged import Prediction
from uets_jax.measure.converged import converged as predicted
from uets_jax.measure.slope import Slope, bottleneck, init, read, update

Record = Mapping[str, Any]
_update = jax.jit(update)


class EfficiencyMonitor:
    """How far ahead of a baseline, whether the model is the bottleneck, whether done.

    Fed with the records of `metrics.jsonl`, live or afterwards, in their order:

        monitor = EfficiencyMonitor(read_baseline("b2m.json"))
        for record in read_metrics(run / "metrics.jsonl"):
            monitor.observe(record)
        monitor.line()                   # 3.2x ahead of b2m, undecayed (time 2.9x)
        monitor.bottleneck_detected()    # as `growth.method` trigger asks
        monitor.converged(1.66)          # whether a target, bits per byte, is reached

    Args:
      baseline: less what can't be compared, see `ahead.comparable`; None: no ratios.
      threshold: `growth.slope`, nats per factor e of FLOPs; None: the slope is not
        followed.
    """

    def __init__(
        self, baseline: Baseline | None = None, threshold: float | None = 0.3
    ) -> None:
        self.baseline, self.threshold = baseline, threshold
        self.ratios: dict[str, Ratio] = {}
        self.history: list[tuple[int, float]] = []
        self._smooth, self._slope = Smooth(), init()
        self._top, self._decays, self._peak = 0.0, False, 0

    def observe(
        self, record: Record, peak_bytes: int | None = None
    ) -> dict[str, float]:
        """Takes a record in; returns what it says of the baseline, for the metrics.

        Args:
          record: of a step, a validation or an event.
          peak_bytes: of the compiled step that is running, per device.

        Returns:
          `ahead_flops`, `ahead_tokens`, `ahead_seconds`, `ahead_joules` at the loss of
          the record, where they can be known; `ahead_bytes`; with `_above` or `_below`
          behind the name what is only a bound. 1 of `ahead_decays` says that the run's
          own rate has left its peak, which the baseline's never does.
        """
        self._peak = max(self._peak, peak_bytes or 0)
        if record.get("event") == "growth":
            self._slope, self.history = init(), []
        if "event" in record or record.get("skipped"):
            return {}
        if "bits_per_byte" in record:
            if not self._decays:
                self.history.append((record["step"], record["bits_per_byte"]))
            return self._compare("valid", record["bits_per_byte"], costs_of(record))
        loss = record.get("loss")
        if not isinstance(loss, int | float):
            return {}
        costs = costs_of(record)
        if self.threshold is not None:
            self._slope = _update(self._slope, costs["flops"], float(loss))
        self._smooth = follow(self._smooth, loss, costs)
        rate = record.get("learning_rate", 0.0)
        self._top = max(self._top, rate)
        self._decays = rate < FULL_RATE * self._top
        return self._compare("train", self._smooth.loss, self._smooth.costs())

    def _compare(
        self, kind: str, quality: float, costs: Mapping[str, float]
    ) -> dict[str, float]:
        curve = self.baseline and getattr(self.baseline, kind)
        if self.baseline is None or curve is None or not quality > 0 or not costs:
            return {}
        self.ratios = ratios(curve, quality, costs)
        if self.baseline.peak_bytes and self._peak:
            self.ratios["bytes"] = Ratio(self.baseline.peak_bytes / self._peak)
        ends = {"": "", ">": "_above", "<": "_below"}
        said = {f"ahead_{n}{ends[r.sign]}": r.value for n, r in self.ratios.items()}
        return {**said, "ahead_decays": float(self._decays)}

    def line(self) -> str:
        """`3.24x ahead of b2m, undecayed (time 2.9x, energy 3.1x, bytes 0.9x)`; empty
        where nothing is compared. The first ratio is that of FLOPs.
        """
        if self.baseline is None or "flops" not in self.ratios:
            return ""
        more = (("time", "seconds"), ("energy", "joules"), ("bytes", "bytes"))
        others = [f"{n} {self.ratios[k]}" for n, k in more if k in self.ratios]
        beside = f" ({', '.join(others)})" if others else ""
        own = "; this run decays" if self._decays else ""
        first = self.ratios["flops"]
        return f"{first} ahead of {self.baseline.name}, undecayed{own}{beside}"

    def slope(self) -> Slope:
        """The loss's slope since the last growth and its standard error, in nats per
        factor e of FLOPs.
        """
        return jax.device_get(read(self._slope))

    def bottleneck_detected(self) -> bool:
        """Whether the loss falls too slowly for the FLOPs that this model takes: the
        question that a run with `growth.method` trigger grows on.

        Raises:
          UserError: without a threshold.
        """
        if self.threshold is None:
            raise UserError("monitor: bottleneck_detected needs a threshold (0.3)")
        found = self.slope()
        return bottleneck(float(found.slope), float(found.error), self.threshold)

    def converged(self, target: float, cooldown: float = 0.25) -> Prediction:
        """Whether a cool-down from here ends at `target` bits per byte: the
        `Prediction` (loss, error, reached) of `measure.converged`, from the validations
        since the last growth at full rate, which have to be of averaged weights.
        """
        return predicted(self.history, target, cooldown)
