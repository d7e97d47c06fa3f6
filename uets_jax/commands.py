"""The commands: from the values that were given to the text that is printed.

Everything heavy is imported by the function that needs it.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from uets_jax import flags, options, recipes
from uets_jax.config import ExperimentConfig, to_json
from uets_jax.errors import UserError
from uets_jax.models.presets import from_dict
from uets_jax.validation import validate


def _train(given: dict[str, Any]) -> str:
    fields, own = _split(given)
    _at_least(own, profile=0)
    resume, out = "resume" in own, None
    allow = [w.strip().replace("-", "_") for w in own.get("allow", "").split(",")]
    allow = [word for word in allow if word]
    if resume:
        for flag in ("recipe", "out"):
            if flag in own:
                raise UserError(f"--{flag}: can't be combined with --resume")
        out = recipes.run_dir(own["resume"])
        config = recipes.configure_resumed(fields, out, allow)
    else:
        config = recipes.configure(fields, own.get("recipe"))
    if own.get("print_config"):
        return to_json(config).rstrip("\n")
    out = out or recipes.new_dir(config.name, own.get("out", ""))
    if own.get("dry_run"):
        return _dry_run(config, out)

    from uets_jax.train import loop

    with _joined(own):
        profile = own.get("profile", 0)
        result = loop.train(config, out, resume, allow=allow, profile=profile)
    return _summary(result.summary, out)


def _joined(own: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Within, this process is one of several, if `--coordinator` says so."""
    named = [flag for flag in ("processes", "process") if flag in own]
    if "coordinator" not in own:
        if named:
            raise UserError(f"--{named[0]}: needs --coordinator HOST:PORT")
        return contextlib.nullcontext()

    from uets_jax.train import processes

    numbers = (own.get("processes", 0), own.get("process", -1))
    return processes.joined(own["coordinator"], *numbers)


def _dry_run(config: ExperimentConfig, out: Path) -> str:
    """What the run would do, and its cost on this machine's class of device."""
    from uets_jax.measure import devices
    from uets_jax.train import plan

    here = devices.current() or devices.find("cpu")
    return plan.text(plan.make_plan(config, [here]), out)


def _cost(given: dict[str, Any]) -> str:
    fields, own = _split(given)
    o = options.Cost(**own)
    if not 0 <= o.mfu <= 1:
        raise UserError(f"--mfu: must be above 0 and at most 1, got {o.mfu}")
    config = recipes.configure(fields, own.get("recipe"))

    from uets_jax.measure import devices

    if o.device == "all":
        chosen = [*devices.read(o.devices).values()]
    elif o.device:
        names = [name.strip() for name in o.device.split(",")]
        chosen = [devices.find(name, o.devices) for name in names]
    else:
        chosen = [devices.current(o.devices) or devices.find("cpu", o.devices)]

    from uets_jax.train import plan

    found = plan.make_plan(config, chosen, o.mfu or None, o.compile)
    return plan.as_json(found) if o.json else plan.text(found)


def _pilot(given: dict[str, Any]) -> str:
    fields, own = _split(given)
    if "data.source" in fields:
        raise UserError("--data.source: SOURCE says what is read; leave it out")
    o = options.Pilot(**own)
    _at_least(own, seeds=2)
    if not 0 < o.share <= 1:
        raise UserError(f"--share: must be above 0 and at most 1, got {o.share}")

    from uets_jax.slots.dataset import source_of

    fields["data.source"] = source_of(o.source)
    config = recipes.configure(fields, own.get("recipe"))
    out = recipes.new_dir(f"{config.name}-pilot", o.out)

    from uets_jax.pilot import result, run

    asked = run.Asked(config, o.flops, o.minutes, o.share, o.seeds)
    say = lambda line: print(line, file=sys.stderr, flush=True)
    if o.dry_run:
        return run.summary(run.planned(asked, out, say))
    return result.text(run.pilot(asked, out, say), out)


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the config among what was given, and the command's own flags."""
    inherited = {f.name for f in dataclasses.fields(ExperimentConfig)}
    fields = {k: v for k, v in given.items() if k.partition(".")[0] in inherited}
    return fields, {k: v for k, v in given.items() if k not in fields}


def _summary(summary: dict[str, Any], out: Path) -> str:
    """The main numbers of a finished run, one a line, and where its report is."""
    shown = ("steps", "tokens", "params", "final_loss", "perplexity", "bits_per_byte")
    rows = {key: summary[key] for key in shown if key in summary}
    by_category = {key: summary.get(key, {}) for key in ("flops", "seconds")}
    rows |= {key: float(sum(v.values())) for key, v in by_category.items() if v}
    if summary.get("joules") is not None:
        rows["joules"] = summary["joules"]
    form = lambda v: f"{v:.5g}" if isinstance(v, float) else f"{v:,}"
    lines = [f"{key:<15}{form(value)}" for key, value in rows.items()]
    return "\n".join((*lines, f"{'report':<15}{out / 'report.html'}"))


def _eval(given: dict[str, Any]) -> str:
    o = options.Eval(**given)
    _at_least(given, tokens=0, limit=0)
    path, tasks = recipes.run_dir(o.dir), "tasks" in given
    for flag in ("source", "split", "tokens") if tasks else ("limit",):
        if flag in given:
            how = "can't be combined with --tasks" if tasks else "needs --tasks"
            raise UserError(f"--{flag}: {how}")

    from uets_jax.train import finished

    if tasks:
        files = [name.strip() for name in o.tasks.split(",")]
        if not all(files):
            raise UserError(f"--tasks: {o.tasks!r} has an empty name; write FILE,FILE")
        return json.dumps(finished.evaluate_tasks(path, files, o.limit), indent=2)
    scores = finished.evaluate_run(path, o.source, o.split, o.tokens)
    return json.dumps(scores, indent=2)


def _report(given: dict[str, Any]) -> str:
    o = options.Report(**given)
    runs = [recipes.run_dir(d) for d in o.dirs]
    default = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    out = Path(o.out) if o.out else default
    recipes.writable(out.parent)
    if out.is_dir():
        raise UserError(f"--out: {out} is a directory; name a file")

    from uets_jax.report import html

    written = html.write_reports(runs, out, o.base)
    return "\n".join(map(str, written))


def _baseline(given: dict[str, Any]) -> str:
    o = options.Baseline(**given)
    path = recipes.run_dir(o.dir)
    out = Path(o.out) if o.out else path / "baseline.json"
    recipes.writable(out.parent)
    if out.is_dir():
        raise UserError(f"--out: {out} is a directory; name a file")

    from uets_jax.measure import baseline
    from uets_jax.report.baseline import baseline_of

    baseline.save_baseline(out, baseline_of(path, o.name))
    return str(out)


def _generate(given: dict[str, Any]) -> str:
    o = options.Generate(**given)
    _at_least(given, tokens=1, temperature=0, top_k=0, seed=0)
    path = recipes.run_dir(o.dir)

    from uets_jax.train import finished

    how = (o.tokens, o.temperature, o.top_k, o.seed)
    return finished.generate_run(path, o.prompt, *how)


def _tokenize(given: dict[str, Any]) -> str:
    path = recipes.writable(Path(given["dir"]))
    fields = {key: value for key, value in given.items() if key != "dir"}
    data = validate(from_dict({"data": fields})).data

    from uets_jax.data import store

    written = store.write_store(str(path), data)
    counts = {key: written.meta[key] for key in ("splits", "skipped")}
    return json.dumps({"directory": written.directory, **counts}, indent=2)


def _at_least(given: dict[str, Any], **least: int) -> None:
    for field, low in least.items():
        value = given.get(field, low)
        if not low <= value < 2**31:
            raise UserError(
                f"{flags.spelled(field)}: must be at least {low} and below 2**31, "
                f"got {value}"
            )


class Command(NamedTuple):
    """The dataclass of its flags, and what it does with those that were given."""

    options: Any
    act: Callable[[dict[str, Any]], str]


COMMANDS: dict[str, Command] = {
    "train": Command(options.Train, _train),
    "cost": Command(options.Cost, _cost),
    "pilot": Command(options.Pilot, _pilot),
    "eval": Command(options.Eval, _eval),
    "report": Command(options.Report, _report),
    "baseline": Command(options.Baseline, _baseline),
    "generate": Command(options.Generate, _generate),
    "tokenize": Command(options.Tokenize, _tokenize),
}
