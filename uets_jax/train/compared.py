"""A run against the baseline that its config names, if any."""

from collections.abc import Sequence
from pathlib import Path

from uets_jax.measure.ahead import comparable, setting_of
from uets_jax.measure.baseline import read_baseline
from uets_jax.measure.efficiency import EfficiencyMonitor
from uets_jax.measure.machine import machine
from uets_jax.report.metrics import read_metrics
from uets_jax.train.processes import is_main
from uets_jax.train.session import Session


def open_monitor(
    session: Session, overrides: Sequence[str], metrics: Path
) -> tuple[EfficiencyMonitor | None, list[tuple[str, str]]]:
    """(the monitor of process 0, what to tell); None where nothing is compared.

    Args:
      overrides: names of the run's own parts.
      metrics: of a run that goes on; what it holds is taken in.

    Raises:
      UserError: for a file that is no baseline.
    """
    config, store = session.config, session.store
    if not config.train.baseline or not is_main():
        return None, []
    baseline = read_baseline(config.train.baseline)
    hashes = (store.fingerprint, store.tokenizer.hash)
    own = setting_of(config, *hashes, machine(), overrides)
    baseline, why = comparable(baseline, own)
    news = [("baseline", why)] if why else []
    if baseline.train is None and baseline.valid is None:
        return None, news
    told = f"compared with {baseline.name}, undecayed, on {baseline.setting.machine}"
    monitor = EfficiencyMonitor(baseline, threshold=None)
    for record in read_metrics(metrics) if metrics.exists() else ():
        monitor.observe(record)
    return monitor, [("baseline", told), *news]
