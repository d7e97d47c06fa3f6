"""What the comparison of update rules wants run.

    compare      tuned rules on four language models that meta-training never saw
    robustness   the tuned settings where something else has changed
    untuned      settings that nobody tuned

Pure: from the results so far to the jobs that are wanted. 16 trials per rule and task,
one seed, read on valid-A: a coordinate search over the rule's axes, for all rules a
multiple for the rate of embeddings, head and norms among them. Final runs are read
on valid-B. Every budget is a decayed run of its own; budgets are looked for with seed 1
until two neighbours bracket AdamW's loss.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import search, tracks
from experiments.arms import LENGTH, VOCAB
from experiments.optimizer_grids import RULES
from experiments.runner import QUIET, Job, Results
from uets_jax.config import ExperimentConfig
from uets_jax.models.presets import from_dict

TABLES = ("compare", "robustness", "untuned")
BATCH = 32  # windows: 4,096 tokens
TRIALS = 16
EVAL_TOKENS = 100_000  # of valid-A, in a trial
LADDER = (0.17, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # budgets, in steps of the task
WHOLE = LADDER.index(1.0)
FIRST = 3  # place in it of the first run of an arm


@dataclasses.dataclass(frozen=True)
class Task:
    """A language model to train.

    text:  its store.
    steps: of AdamW's run, whose loss is the target.
    seeds: of final runs; `many` of the rules in `MANY`.
    rules: that are compared; none named: all.
    """

    name: str
    text: str
    width: int
    depth: int
    steps: int
    seeds: int = 3
    many: int = 3
    rules: tuple[str, ...] = ()


MANY = ("adamw", "muon", "learned")
RIVALS = ("adamw", "learned", "soap")  # whose budgets lie around Muon's loss, too
TASKS = (
    Task("narrow", "clean", 32, 2, 100, many=10),
    Task("long", "clean", 32, 2, 400, rules=MANY),
    Task("wiki", "clean", 64, 1, 100, rules=(*MANY, "soap")),
    Task("encyclopedic", "encyclopedic", 32, 2, 100, rules=MANY),
)

FIXED = {"learned": {"weights": "default"}, "schedule_free": {"schedule": "constant"}}
UNTUNED: dict[str, tuple[str, dict[str, Any]]] = {
    "learned": ("learned", {}),
    "muon": ("muon", {}),
    "adamw, this house's": ("adamw", {}),
    "adamw, PyTorch's defaults": (
        "adamw",
        {"learning_rate": 0.001, "weight_decay": 0.01, "b2": 0.999},
    ),
    "adamw, GPT-3's": (
        "adamw",
        {"learning_rate": 0.0006, "weight_decay": 0.1, "b2": 0.95},
    ),
}
CARRIED = ("adamw", "muon", "learned")  # rules whose settings are taken elsewhere
ROBUST_TASK = TASKS[0]
CONDITIONS: tuple[tuple[str, float], ...] = (
    ("learning_rate", 0.1),
    ("learning_rate", 0.3),
    ("learning_rate", 1.0),
    ("learning_rate", 3.0),
    ("learning_rate", 10.0),
    ("batch", 0.25),
    ("batch", 4.0),
    ("width", 4.0),
    ("horizon", 0.5),
    ("horizon", 2.0),
    ("horizon", 4.0),
    ("bfloat16", 1.0),
)
LATER_SEEDS = 2  # of robustness and untuned


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    scale:  of all numbers of steps.
    digest: of the learned rule's weights: other weights are other runs.
    """

    stores: Path
    tables: tuple[str, ...] = TABLES
    tasks: tuple[str, ...] = tuple(task.name for task in TASKS)
    rules: tuple[str, ...] = tuple(RULES)
    trials: int = TRIALS
    scale: float = 1.0
    digest: str = ""

    def named(self, rule: str) -> str:
        """A rule in the name of a run."""
        return f"{rule}-{self.digest}" if self.digest and rule == "learned" else rule


def configure(
    options: Options,
    task: Task,
    rule: str,
    settings: Mapping[str, Any],
    share: float,
    seed: int,
    half: str = "b",
    **changes: Any,
) -> ExperimentConfig:
    """A run.

    Args:
      options: of the command line.
      task: the model and its text.
      rule: a name of `OptimConfig`.
      settings: of the rule; `warmup` is a share of the steps.
      share: of the task's steps.
      seed: of parameters and data order.
      half: of the validation text.
      changes: batch, width, dtype or eval_tokens that differ.
    """
    steps = max(10, round(options.scale * share * task.steps))
    own = {"warmup": 0.05, **FIXED.get(rule, {}), **settings}
    own["warmup"] = max(1, round(own["warmup"] * steps))
    width = changes.pop("width", task.width)
    model = {
        "preset": "modern",
        "depth": task.depth,
        "width": width,
        "heads": max(1, width // 32),
        "head_dim": 32,
        "context": LENGTH,
        "vocab": VOCAB,
        "head_chunks": 32,
    }
    if "dtype" in changes:
        model["dtype"] = changes.pop("dtype")
    train = {**QUIET, "steps": steps, "batch": BATCH, "seed": seed, **changes}
    quiet = {"eval_every": 0, "mesh": {"data": 1}}
    train = {**quiet, "eval_tokens": 0, **train}
    return from_dict(
        {
            "name": f"{rule} on {task.name}",
            "data": {"source": tracks.store(options.stores, task.text, half)},
            "model": model,
            "optim": {"name": rule, **own},
            "train": train,
        }
    )


class OptimizerPlan:
    """The plan of the tables that are asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tasks = tuple(t for t in TASKS if t.name in options.tasks)

    def __call__(self, results: Results) -> list[Job]:
        """All that is wanted by now."""
        jobs: list[Job] = []
        for table in self.options.tables:
            jobs += getattr(self, table)(results)
        return list({job.name: job for job in jobs}.values())

    def rules(self, task: Task) -> tuple[str, ...]:
        """Of a task, AdamW first: its loss is the target."""
        named = task.rules or tuple(RULES)
        return tuple(r for r in named if r in self.options.rules)

    # trials

    def tuned(
        self, task: Task, rule: str, results: Results, jobs: list[Job]
    ) -> dict[str, Any] | None:
        """The settings that the trials chose; None, and `jobs` longer, until then."""
        axes, losses = RULES[rule], {}
        while (
            point := search.next_point(axes, losses, self.options.trials)
        ) is not None:
            job = self.trial(task, rule, search.settings(axes, point))
            jobs.append(job)
            if job.name not in results:
                return None
            losses[point] = results[job.name]["bits_per_byte"]
        return search.settings(axes, search.best(losses))

    def trial(self, task: Task, rule: str, settings: Mapping[str, Any]) -> Job:
        """A run of seed 0, read on valid-A."""
        config = configure(
            self.options, task, rule, settings, 1.0, 0, "a", eval_tokens=EVAL_TOKENS
        )
        words = "_".join(f"{v:g}" for v in settings.values())
        name = f"trial/{task.name}/{self.options.named(rule)}_{words}"
        return _job(name, config, task, rule, "trial", 1.0, settings)

    # tables

    def compare(self, results: Results) -> list[Job]:
        """Trials, AdamW's runs, then every rule's budgets around AdamW's loss."""
        jobs: list[Job] = []
        for task in self.tasks:
            for rule in self.rules(task):
                settings = self.tuned(task, rule, results, jobs)
                if settings is not None:
                    jobs += self.finals(task, rule, settings, results)
        return jobs

    def finals(
        self, task: Task, rule: str, settings: Mapping[str, Any], results: Results
    ) -> Iterator[Job]:
        """Every budget with every seed; first seed 1, to find where they lie.

        They lie around AdamW's loss at the task's steps; those of `RIVALS` around
        Muon's, too.
        """
        seeds = range(1, 1 + (task.many if rule in MANY else task.seeds))
        final = lambda place, seed: self.final(task, rule, settings, place, seed)
        places: set[int] = {WHOLE} if rule in MANY else set()
        goals = [] if rule == "adamw" else ["adamw"]
        goals += ["muon"] if rule in RIVALS and "muon" in self.rules(task) else []
        for goal in goals:
            target = self._goal(task, goal, results)
            tried: dict[int, float | None] = {}
            place: int | None = FIRST if goal == "adamw" else WHOLE
            while place is not None:
                job = final(place, 1)
                yield job
                if target is None or job.name not in results:
                    return
                tried[place] = results[job.name]["bits_per_byte"]
                place = next_place(tried, target)
            places |= {*around(tried, target)}  # pyright: ignore
        yield from (final(place, seed) for seed in seeds for place in sorted(places))

    def final(
        self, task: Task, rule: str, settings: Mapping[str, Any], place: int, seed: int
    ) -> Job:
        """A run of a budget of the ladder."""
        share = LADDER[place]
        config = configure(self.options, task, rule, settings, share, seed)
        own = f"{self.options.named(rule)}_{_mark(settings)}"
        name = f"final/{task.name}/{own}_x{share:g}_s{seed}"
        return _job(name, config, task, rule, "final", share, settings)

    def _goal(self, task: Task, rule: str, results: Results) -> float | None:
        """A rule's loss with seed 1 at the task's steps, once it is there."""
        settings = self.tuned(task, rule, results, [])
        if settings is None:
            return None
        job = self.final(task, rule, settings, WHOLE, 1)
        return results[job.name]["bits_per_byte"] if job.name in results else None

    def robustness(self, results: Results) -> list[Job]:
        """Conditions that the settings were not tuned for."""
        jobs: list[Job] = []
        task = ROBUST_TASK
        for rule in (r for r in MANY if r in self.rules(task)):
            settings = self.tuned(task, rule, results, jobs)
            for what, factor in CONDITIONS if settings is not None else ():
                for seed in range(1, 1 + LATER_SEEDS):
                    config = _changed(self.options, task, rule, settings, what, factor)
                    train = dataclasses.replace(config.train, seed=seed)
                    config = dataclasses.replace(config, train=train)
                    own = f"{self.options.named(rule)}_{_mark(settings)}"
                    name = f"robust/{own}_{what}_x{factor:g}_s{seed}"
                    job = _job(name, config, task, rule, "robust", 1.0, settings)
                    more = (("condition", what), ("factor", factor))
                    jobs.append(dataclasses.replace(job, labels=job.labels + more))
        return jobs

    def untuned(self, results: Results) -> list[Job]:
        """Defaults, and on all other tasks the settings tuned on `ROBUST_TASK`."""
        jobs: list[Job] = []
        arms = dict(UNTUNED)
        for rule in CARRIED if ROBUST_TASK in self.tasks else ():
            settings = self.tuned(ROBUST_TASK, rule, results, jobs)
            if settings is not None:
                arms[f"{rule}, tuned on {ROBUST_TASK.name}"] = (rule, settings)
        for task in self.tasks:
            own = arms if task != ROBUST_TASK else UNTUNED
            for label, (rule, settings) in own.items():
                for seed in range(1, 1 + LATER_SEEDS):
                    config = configure(self.options, task, rule, settings, 1.0, seed)
                    mark = self.options.digest if rule == "learned" else ""
                    parts = (_plain(label), mark, _mark(settings))
                    own_name = "-".join(filter(None, parts))
                    name = f"untuned/{task.name}/{own_name}_s{seed}"
                    about = (name, config, task, rule, "untuned", 1.0, settings, label)
                    jobs.append(_job(*about))
        return jobs


def next_place(tried: Mapping[int, float | None], target: float) -> int | None:
    """The place in the ladder to try next; None where neighbours bracket the target.

    A run that diverged has not reached it.
    """
    reached = [p for p, bits in tried.items() if bits is not None and bits <= target]
    if not reached:
        place = max(tried) + 1
        return place if place < len(LADDER) else None
    place = min(reached) - 1
    return place if place >= 0 and place not in tried else None


def around(tried: Mapping[int, float | None], target: float) -> list[int]:
    """Four neighbours of the ladder, two on each side of the target.

    Seed 1 says where it lies, so that other seeds may find it a place further. Fewer at
    an end; the two largest where the target is never reached.
    """
    reached = [p for p, bits in tried.items() if bits is not None and bits <= target]
    if not reached:
        return [len(LADDER) - 2, len(LADDER) - 1]
    high = min(reached)
    return [*range(max(high - 2, 0), min(high + 2, len(LADDER)))]


def _changed(
    options: Options,
    task: Task,
    rule: str,
    settings: Mapping[str, Any],
    what: str,
    factor: float,
) -> ExperimentConfig:
    """The run of a condition."""
    share, changes = 1.0, {}
    if what == "learning_rate":
        settings = {**settings, what: settings[what] * factor}
    elif what == "horizon":
        share = factor
    elif what == "bfloat16":
        changes = {"dtype": "bfloat16"}
    else:
        size = {"batch": BATCH, "width": task.width}[what]
        changes = {what: round(size * factor)}
    return configure(options, task, rule, settings, share, 1, **changes)


def _job(
    name: str,
    config: ExperimentConfig,
    task: Task,
    rule: str,
    stage: str,
    share: float,
    settings: Mapping[str, Any],
    label: str = "",
) -> Job:
    labels: dict[str, Any] = {
        "task": task.name,
        "arm": label or rule,
        "rule": rule,
        "stage": stage,
        "share": share,
        "seed": config.train.seed,
        "settings": dict(settings),
    }
    return Job(name, config, tuple(labels.items()))


def _mark(settings: Mapping[str, Any]) -> str:
    """Of a run's name: other settings, of another grid or search, are other runs."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label)


def runs_of(
    records: Sequence[Mapping[str, Any]], **labels: Any
) -> list[Mapping[str, Any]]:
    """The records that carry all of these labels."""
    return [r for r in records if all(r.get(k) == v for k, v in labels.items())]
