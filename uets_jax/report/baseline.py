"""From a finished run to the baseline that others are compared with."""

from pathlib import Path

from uets_jax.config import ExperimentConfig
from uets_jax.errors import UserError
from uets_jax.measure.ahead import Baseline, Setting, setting_of
from uets_jax.measure.baseline import train_curve, undecayed, valid_curve
from uets_jax.models.presets import read_config
from uets_jax.report.run import Run, load_run
from uets_jax.report.scale import number

FULL = ("wsd", "constant")  # schedules that stay at their highest rate for a while


def baseline_of(run_folder: Path | str, name: str = "") -> Baseline:
    """The undecayed part of a run as a baseline: its steps at full learning rate.

    Args:
      run_folder: of a finished run with schedule `wsd` or `constant`.
      name: to be told by; empty: the run's own.

    Raises:
      UserError: for a folder without a finished run, another schedule, or a run with
        fewer than two losses at full rate.
    """
    path = Path(run_folder)
    run, config = load_run(path), read_config(path / "config.json")
    if config.optim.schedule not in FULL:
        raise UserError(
            f"{path}: schedule {config.optim.schedule} has no undecayed part; train "
            "the baseline with --optim.schedule wsd or constant"
        )
    for key in ("corpus_sha256", "tokenizer_sha256", "machine"):
        if not isinstance(run.summary.get(key), str):
            raise UserError(f"{path}: summary.json has no {key}; finish the run first")
    records = undecayed(run.records)
    curves = train_curve(records), valid_curve(records)
    if not any(curves):
        raise UserError(f"{path}: fewer than two losses at full rate; train for longer")
    peak = number((run.summary.get("bytes") or {}).get("step_peak"))
    setting = _setting(run, config)
    told = name or run.name
    return Baseline(told, setting, None if peak is None else int(peak), *curves)


def _setting(run: Run, config: ExperimentConfig) -> Setting:
    hashes = run.summary["corpus_sha256"], run.summary["tokenizer_sha256"]
    return setting_of(config, *hashes, run.summary["machine"])
