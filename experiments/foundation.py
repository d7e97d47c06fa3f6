"""What the house itself costs and gives: `python -m experiments.foundation --help`.

loop_overhead: `train` against a bare jitted step of the same model, same process.
wikitext2:     `modern` with Muon and `gpt2` with AdamW at equal tokens, one report.
gpu:           gpt2-small in bfloat16 for a few hundred steps: model FLOPs utilisation.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.records import write_record
from uets_jax.config import ExperimentConfig, to_dict
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code
from uets_jax.measure.devices import current
from uets_jax.measure.flops import step_flops
from uets_jax.measure.ledger import NOT_TRAINING
from uets_jax.models.presets import from_dict
from uets_jax.report.html import write_report
from uets_jax.report.metrics import read_metrics
from uets_jax.train.finished import evaluate_run
from uets_jax.train.loop import train
from uets_jax.train.mesh import compile_step, put_batch
from uets_jax.train.session import Session, open_session

Rows = list[dict[str, Any]]
QUIET = {"eval_every": 0, "checkpoint_every": 0, "samples": 0, "log_every": 1 << 20}
SIZES: dict[str, dict[str, int]] = {
    "nano": {"steps": 14, "batch": 16},
    "tiny": {"steps": 400, "batch": 16},  # a step so short that the host's work shows
}
SKIPPED = 3  # first steps of a timing, not counted


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    out: Path
    runs: Path
    data_dir: Path
    steps: int
    rounds: int
    source: str
    batch: int


def bare_seconds(session: Session, steps: int) -> float:
    """Seconds per step of the jitted step alone, on batches already on the device."""
    step, state = compile_step(session.program, session.mesh), session.initial_state()
    pools = [put_batch(session.windows[i], session.mesh) for i in range(4)]
    for i in range(SKIPPED):
        state, metrics = step(state, pools[i % 4], None)
    jax.block_until_ready((state, metrics))
    start = time.perf_counter()
    for i in range(steps - SKIPPED):
        state, metrics = step(state, pools[i % 4], None)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - start) / (steps - SKIPPED)


def loop_seconds(config: ExperimentConfig) -> float:
    """Seconds per step of `train`: data, dispatch, metrics of every step on disk."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run")
        records = read_metrics(Path(folder) / "run" / "metrics.jsonl")
    at = {r["step"]: r["seconds"] for r in records if "loss" in r}
    return (at[max(at)] - at[SKIPPED]) / (max(at) - SKIPPED)


def loop_overhead(options: Options) -> tuple[Rows, dict[str, Any], str]:
    """Times both ways in pairs, the order turning, so that both meet a busy machine."""
    rows, config = [], {}
    for size, fields in SIZES.items():
        values = {"name": size, "model": {"size": size}, "data": {"tokenizer": "bytes"}}
        steps = options.steps or fields["steps"]
        train_fields = {**QUIET, **fields, "steps": steps}
        session = open_session(from_dict({**values, "train": train_fields}))
        config[size] = to_dict(session.config)
        rows.append({"arm": size, **overhead_row(session, options.rounds)})
    note = "median over pairs; _ci: 95 % bootstrap interval of the median of the ratios"
    return rows, config, note


def overhead_row(session: Session, rounds: int) -> dict[str, Any]:
    """Seconds per step of both ways and the loop's share on top of the bare step."""
    steps = session.config.train.steps
    ways = {
        "bare": lambda: bare_seconds(session, steps),
        "loop": lambda: loop_seconds(session.config),
    }
    times: dict[str, list[float]] = {"bare": [], "loop": []}
    for number in range(rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            times[name].append(ways[name]())
    bare, loop = np.asarray(times["bare"]), np.asarray(times["loop"])
    rng = np.random.default_rng(0)
    drawn = rng.choice(loop / bare - 1, (10_000, rounds))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "pairs": rounds,
        "steps": steps,
        "bare_step_seconds": float(np.median(bare)),
        "loop_step_seconds": float(np.median(loop)),
        "host_step_seconds": float(np.median(loop - bare)),
        "seconds_overhead": float(np.median(loop / bare - 1)),
        "seconds_overhead_ci_low": float(low),
        "seconds_overhead_ci_high": float(high),
    }


def wikitext2(options: Options) -> tuple[Rows, dict[str, Any], str]:
    """Two recipes at equal tokens on WikiText-2; leaves runs and one report."""
    folder = options.data_dir / "wikitext-2"
    if not folder.is_dir():
        raise UserError(
            f"--data-dir: {folder} is missing; it holds train.txt.xz and so on"
        )
    data = {
        "source": f"files:{folder}/train.txt.xz",
        "valid_source": f"files:{folder}/valid.txt.xz",
        "tokenizer": "bpe:2048",
    }
    steps = options.steps or 400
    shared = {"steps": steps, "batch": 16, "eval_every": max(1, steps // 8)}
    arms = {
        "modern + muon": ("modern", {"name": "muon", "schedule": "wsd"}),
        "gpt2 + adamw": (
            "gpt2",
            {"name": "adamw", "learning_rate": 0.003, "schedule": "cosine"},
        ),
    }
    rows, config, folders = [], {}, []
    for name, (preset, optim) in arms.items():
        values = {
            "name": name,
            "data": data,
            "model": {"preset": preset, "size": "nano"},
            "optim": {**optim, "warmup": max(1, steps // 20)},
            "train": {**shared, "eval_tokens": 100_000},
        }
        out = options.runs / name.replace(" ", "")
        result = train(from_dict(values), out)
        config[name] = to_dict(result.config)
        folders.append(out)
        scores = evaluate_run(out)  # the whole validation text
        rows.append({**row_of(name, result.summary), **whole_text(scores)})
    report = write_report(folders, options.runs / "wikitext2.html")
    print(f"report: {report}")
    note = "one seed, not tuned; bits_per_byte of the whole validation text"
    return rows, config, note


def whole_text(scores: dict[str, float | int]) -> dict[str, float | int]:
    """What `evaluate_run` says of the whole text, as a row shows it."""
    return {name: scores[name] for name in ("bits_per_byte", "valid_tokens")}


def row_of(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    """The figures of a finished run that a table shows."""
    return {
        "arm": name,
        "track": "clean",
        "seeds": 1,
        "params": summary["params"],
        "tokens": summary["tokens"],
        "total_flops": training_flops(summary),
        "train_seconds": summary["seconds"]["train"],
    }


def training_flops(summary: Mapping[str, Any]) -> int:
    """All that a run has cost but its evaluations."""
    flops = summary["flops"].items()
    return sum(n for category, n in flops if category not in NOT_TRAINING)


def gpu(options: Options) -> tuple[Rows, dict[str, Any], str]:
    """gpt2-small in bfloat16: tokens per second and MFU on one GPU."""
    if jax.default_backend() != "gpu":
        raise UserError("--only gpu: no GPU here; jax sees " + jax.default_backend())
    kind, device = jax.devices()[0].device_kind, current()
    if device is None:
        raise UserError(f"--only gpu: {kind} is in no table; see $UETS_DEVICES")
    peak = device.peak("bfloat16")
    steps = options.steps or 300
    config = from_dict(
        {
            "name": "gpt2-small-bf16",
            "data": {"source": options.source},
            "model": {
                "preset": "gpt2",
                "size": "gpt2-small",
                "vocab": 50304,
                "dtype": "bfloat16",
            },
            "optim": {"name": "adamw", "learning_rate": 6e-4, "warmup": 50},
            "train": {**QUIET, "steps": steps, "batch": options.batch, "log_every": 20},
        }
    )
    result = train(config, options.runs / "gpt2-small-bf16")
    records = read_metrics(options.runs / "gpt2-small-bf16" / "metrics.jsonl")
    at = {r["step"]: r["seconds"] for r in records if "loss" in r}
    seconds = (at[steps] - at[steps // 4]) / (steps - steps // 4)
    flops = step_flops(result.config)["forward_backward"]
    row = {
        "arm": "gpt2-small bf16",
        "device": kind,
        "steps": steps,
        "batch_tokens": options.batch * result.config.model.context,
        "step_seconds": seconds,
        "tokens_per_second": options.batch * result.config.model.context / seconds,
        "mfu": flops / seconds / peak,
        "joules": result.summary["joules"],
        "joules_estimate": result.summary["joules_estimate"],
        "peak_memory_bytes": result.summary["peak_memory_bytes"],
        "final_train_loss": result.summary["final_train_loss"],
    }
    note = f"MFU against {peak:.3g} FLOP/s dense bf16 (data sheet); L x L attention"
    return [row], to_dict(result.config), note


TABLES: dict[str, Callable[[Options], tuple[Rows, dict[str, Any], str]]] = {
    "loop_overhead": loop_overhead,
    "wikitext2": wikitext2,
    "gpu": gpu,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures one table and writes `results/foundation.<table>.json`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.foundation")
    parser.add_argument("--only", choices=TABLES, required=True, metavar="TABLE")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/foundation"))
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=0, help="0: as the table says")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--source", default="builtin", help="of the gpu table")
    parser.add_argument("--batch", type=int, default=32, help="of the gpu table")
    words = list(sys.argv[1:] if argv is None else argv)
    given = vars(parser.parse_args(words))
    table = given.pop("only")
    try:
        rows, config, note = TABLES[table](Options(**given))
    except ENDS as error:
        print(f"foundation: error: {error}", file=sys.stderr)
        return exit_code(error)
    command = " ".join(["python -m experiments.foundation", *words])
    path = write_record(
        f"foundation.{table}", rows, command, config, note, out=given["out"]
    )
    print(f"{path}: {rows}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
