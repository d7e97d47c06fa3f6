"""What the tables of growth want run: on clean text, final size 4 layers of width 64.

    target   FLOPs to the loss of a tuned static model of the same final size
    events   4 -> 12 layers in 300 steps
    moments  optimizer states carried, from the template, made anew
    prune    heads, units and layers taken away at 70 % of the steps
    moe      a dense model against a mixture of experts of equal active FLOPs

Pure: from the results so far to the jobs that are wanted. Trials are one seed read on
valid-A: seven rates for `static`, three and four for the small static models, eleven
times, ways and rates for `grow_fixed`, two thresholds for `grow_trigger`. Final runs
are read on valid-B. Every budget is a decayed run of its own.
"""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import arms, tracks
from experiments.aql_plan import RECIPES
from experiments.runner import QUIET, Job, Measure, Results
from uets_jax.config import ExperimentConfig
from uets_jax.growth.stages import ladder, parse
from uets_jax.measure.flops import block_matrices, train_flops
from uets_jax.models.presets import from_dict

TABLES = ("target", "events", "moments", "prune", "moe")
DEPTH = 4  # of the final model
RECIPE, BATCH = RECIPES["b2"], 8
RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
SMALL_RATES = {1: RATES[1:4], 2: RATES[1:5]}  # by depth
EVAL_TOKENS = 100_000  # of valid-A, in a trial
TOKENS_PER_PARAM = (3, 10)  # parameters of the blocks of the final model
HALF = 0.5  # of the tokens, in the tables of moments and pruning
MOE = {"dense": (1.0,), "4 experts": (0.5, 1.0), "upcycled at 50 %": (0.7, 1.0)}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    scale: of all numbers of tokens; 1 is the protocol's.
    trials: rows of an earlier `growth.target_trials`, whose choices are taken where the
      trials at the first number of tokens per parameter are not asked for.
    """

    stores: Path
    tables: tuple[str, ...] = TABLES
    seeds: int = 3
    scale: float = 1.0
    per_param: tuple[int, ...] = TOKENS_PER_PARAM
    trials: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to train: layers at the start, how it grows, its learning rate.

    growth: (field, value) pairs of `GrowthConfig`.
    model:  likewise of the model, beside depth.
    optim:  likewise of the optimizer.
    times:  a seed's own time of growth, drawn at random.
    """

    name: str
    depth: int = 1
    rate: float = 0.02
    growth: tuple[tuple[str, Any], ...] = ()
    model: tuple[tuple[str, Any], ...] = ()
    optim: tuple[tuple[str, Any], ...] = ()
    times: bool = False

    def with_growth(self, **fields: Any) -> "Arm":
        """With other fields of `GrowthConfig`."""
        growth = tuple({**dict(self.growth), **fields}.items())
        return dataclasses.replace(self, growth=growth)


STATIC = Arm("static", DEPTH)
SMALL = tuple(Arm(f"static {d}", d) for d in (1, 2))
FIXED = Arm("grow_fixed", growth=(("method", "fixed"), ("plan", "depth=4:0.75")))
TRIGGER = Arm("grow_trigger", growth=(("method", "trigger"), ("plan", "depth=4:0.85")))
LEARNED = Arm("grow_learned", growth=(("method", "learned"), ("plan", "depth=4:0.7")))
RANDOM = Arm("grow_random", growth=FIXED.growth, times=True)
PLANS = (
    "depth=4:0.3",
    "depth=4:0.6",
    "depth=4:0.75",
    "depth=4:0.85",
    "depth=2:0.4,depth=4:0.75",
)
ALIKE = 1.2  # of the least FLOPs among the trials of an arm
AIM = 0.65  # of the static run's FLOPs, at which growth is tuned
SLOPES = (0.25, 0.4)
STEPS = {  # of a static run of the table: budgets of the final runs
    "static": (1.0,),
    "static 1": (0.7, 1.5),
    "static 2": (0.6, 1.2),
    "grow_fixed": (1.0, 1.5),
    "grow_trigger": (1.0, 1.5),
    "grow_learned": (1.0, 1.5),
    "grow_random": (1.0, 1.5),
}
MANY = ("static", "grow_fixed", "grow_trigger")  # arms with five seeds at 3
LATER_SEEDS = 2
LATER_STEPS = {
    "static": (1.0,),
    "static 1": (0.7, 1.5, 2.5),
    "static 2": (0.9, 1.5),
    "grow_fixed": (1.0, 1.5, 2.0, 2.4),
}
LATER = tuple(LATER_STEPS)  # arms at more tokens per parameter


def tokens_of(per_param: int) -> float:
    """Training tokens at so many per parameter of the blocks."""
    model = from_dict({"model": model_of(DEPTH)}).model
    return per_param * DEPTH * float(sum(a * b for a, b in block_matrices(model)))


def model_of(depth: int, **fields: Any) -> dict[str, Any]:
    """A `modern` model at the unit's width."""
    return {
        "preset": "modern",
        "depth": depth,
        "width": arms.WIDTH,
        "heads": arms.HEADS,
        "head_dim": arms.WIDTH // arms.HEADS,
        "context": arms.LENGTH,
        "vocab": arms.VOCAB,
        "head_chunks": 32,
        **fields,
    }


def configure(
    options: Options,
    arm: Arm,
    tokens: float,
    seed: int,
    half: str = "b",
    **train: Any,
) -> ExperimentConfig:
    """The run of an arm on so many tokens."""
    steps = max(20, round(options.scale * tokens / (BATCH * arms.LENGTH)))
    growth = dict(arm.growth)
    if arm.times:
        share = random.Random(f"time {seed}").uniform(0.1, 0.93)
        growth["plan"] = f"depth=4:{share:.3f}"
    if growth:
        growth.setdefault("rewarm", max(1, round(0.02 * steps)))
    optim = {
        "name": "muon",
        "learning_rate": arm.rate * (BATCH / arms.REFERENCE_BATCH) ** 0.5,
        "weight_decay": RECIPE["weight_decay"],
        "warmup": round(RECIPE["warmup"] * steps),
        "schedule": RECIPE["schedule"],
        "adam_ratio": RECIPE["adam_ratio"],
    }
    quiet = {**QUIET, "eval_every": 0, "eval_tokens": 0, "mesh": {"data": 1}}
    return from_dict(
        {
            "name": arm.name,
            "data": {"source": tracks.store(options.stores, "clean", half)},
            "model": model_of(arm.depth, **dict(arm.model)),
            "optim": {**optim, **dict(arm.optim)},
            "growth": growth,
            "train": {**quiet, "steps": steps, "batch": BATCH, "seed": seed, **train},
        }
    )


class DynamicPlan:
    """The plan of the tables that are asked for.

    options: of the command line.
    measure: from a job's name to what is read off its run.
    """

    def __init__(self, options: Options, measure: Any = None) -> None:
        self.options, self._measure = options, measure

    def __call__(self, results: Results) -> list[Job]:
        """All that is wanted by now."""
        jobs: list[Job] = []
        for table in self.options.tables:
            jobs += getattr(self, table)(results)
        return list({job.name: job for job in jobs}.values())

    # target

    def target(self, results: Results) -> list[Job]:
        """Trials, then the final runs of every arm whose trials are there."""
        jobs: list[Job] = []
        for per_param in self.options.per_param:
            known = self.tuned(per_param, results, jobs)
            for arm in known:
                jobs += self.finals(arm, per_param)
        return jobs

    def tuned(self, per_param: int, results: Results, jobs: list[Job]) -> list[Arm]:
        """The arms as their trials chose them.

        At 10 tokens per parameter the static model's rate of the table at 3 is held
        against smaller ones, and growth is tried in other ways (`later_trials`); all
        else is as at 3.
        """
        found, first = [], TOKENS_PER_PARAM[0]
        if per_param != first:
            again = first in self.options.per_param
            earlier = self.tuned(first, results, jobs) if again else self._recorded()
            return self._later(per_param, earlier, results, jobs)
        found += self._best(per_param, _rates(STATIC, RATES), results, jobs)
        for arm in SMALL:
            found += self._best(
                per_param, _rates(arm, SMALL_RATES[arm.depth]), results, jobs
            )
        fixed = self._best(per_param, fixed_trials(), results, jobs)
        found += fixed
        for arm in fixed:
            same = {"depth": dict(arm.growth).get("depth", "identity")}
            trigger = [TRIGGER.with_growth(slope=s, **same) for s in SLOPES]
            trigger = [dataclasses.replace(t, rate=arm.rate) for t in trigger]
            found += self._best(per_param, trigger, results, jobs)
            for other in (LEARNED, RANDOM):
                grown = dataclasses.replace(other.with_growth(**same), rate=arm.rate)
                found.append(grown)
        return found

    def _later(
        self, per_param: int, earlier: list[Arm], results: Results, jobs: list[Job]
    ) -> list[Arm]:
        """The arms that are run with more tokens, too."""
        known = {arm.name: arm for arm in earlier if arm.name in LATER}
        if "static" not in known:
            return []
        place = RATES.index(known["static"].rate)
        near = RATES[max(0, place - 3) : place + 1]
        found = self._best(per_param, _rates(STATIC, near), results, jobs)
        found += [known[name] for name in ("static 1", "static 2") if name in known]
        if "grow_fixed" in known:
            trials = later_trials(known["grow_fixed"])
            found += self._best(per_param, trials, results, jobs)
        return found

    def _recorded(self) -> list[Arm]:
        """The arms of `LATER` as recorded trials chose them."""
        first = TOKENS_PER_PARAM[0]
        rows = [r for r in self.options.trials if r["tokens_per_param"] == first]
        found = []
        for arm in (STATIC, *SMALL, FIXED):
            tried = [r for r in rows if r["arm"] == arm.name and r["bits_per_byte"]]
            if not tried:
                return []
            best = min(tried, key=lambda row: row["bits_per_byte"])
            if arm.growth:
                arm = arm.with_growth(plan=best["plan"], depth=best["how"])
            found.append(dataclasses.replace(arm, rate=best["rate"]))
        return found

    def _best(
        self,
        per_param: int,
        trials: Sequence[Arm],
        results: Results,
        jobs: list[Job],
    ) -> list[Arm]:
        """The arm of least loss on valid-A, once all are there.

        Of those that spent much more than the least one, only if all did: a trigger
        that grows early has more FLOPs than its trial was meant to have.
        """
        made = [self.trial(arm, per_param) for arm in trials]
        jobs += made
        if any(job.name not in results for job in made):
            return []
        found = [results[job.name] for job in made]
        bits = [record["bits_per_byte"] or 99.0 for record in found]
        spent = [sum(record.get("flops", {}).values()) for record in found]
        fair = [i for i, s in enumerate(spent) if s <= ALIKE * min(spent)]
        return [trials[min(fair, key=lambda i: bits[i])]]

    def trial(self, arm: Arm, per_param: int) -> Job:
        """A run of seed 0, read on valid-A; growth has `AIM` of the static FLOPs."""
        share = {1: 2.0, 2: 1.5}.get(arm.depth, 1.0)
        if arm.growth:
            share = AIM / cost(arm)
        tokens = share * tokens_of(per_param)
        config = configure(self.options, arm, tokens, 0, "a", eval_tokens=EVAL_TOKENS)
        return self._job(f"trial/p{per_param}", arm, config, "trial", per_param, share)

    def finals(self, arm: Arm, per_param: int) -> Iterator[Job]:
        """Every budget with every seed."""
        seeds = self.options.seeds
        if per_param != TOKENS_PER_PARAM[0]:
            seeds = min(seeds, LATER_SEEDS)
        elif arm.name in MANY and seeds == 3:
            seeds = 5
        steps = STEPS if per_param == TOKENS_PER_PARAM[0] else LATER_STEPS
        for share in steps[arm.name]:
            for seed in range(1, seeds + 1):
                tokens = share * tokens_of(per_param)
                config = configure(self.options, arm, tokens, seed)
                where = f"final/p{per_param}"
                yield self._job(where, arm, config, "final", per_param, share)

    # the other tables, at 3 tokens per parameter or half of that

    def events(self, results: Results) -> list[Job]:
        """4 -> 12 layers, once, 300 steps."""
        grow = {"method": "fixed", "plan": "depth=8:0.34,depth=12:0.67"}
        arm = Arm("4 to 12 layers", 4, growth=tuple(grow.items()))
        tokens = 300 * BATCH * arms.LENGTH
        config = configure(self.options, arm, tokens, 1)
        return [self._job("events", arm, config, "events", 0, 1.0)]

    def moments(self, results: Results) -> list[Job]:
        """Muon and Adam, each with its moments carried, from the template, anew."""
        jobs = []
        for arm in moment_arms():
            for seed in range(1, self.options.seeds + 1):
                tokens = HALF * tokens_of(TOKENS_PER_PARAM[0])
                config = configure(self.options, arm, tokens, seed)
                jobs.append(self._job("moments", arm, config, "moments", 3, HALF))
        return jobs

    def prune(self, results: Results) -> list[Job]:
        """What goes at 70 % of the steps, and how it is chosen."""
        jobs = []
        for arm in prune_arms():
            for seed in range(1, self.options.seeds + 1):
                tokens = HALF * tokens_of(TOKENS_PER_PARAM[0])
                config = configure(self.options, arm, tokens, seed)
                jobs.append(self._job("prune", arm, config, "prune", 3, HALF))
        return jobs

    def moe(self, results: Results) -> list[Job]:
        """Dense and experts of equal active FLOPs, one layer."""
        jobs = []
        for arm in moe_arms():
            for share in MOE[arm.name]:
                for seed in range(1, self.options.seeds + 1):
                    tokens = share * tokens_of(TOKENS_PER_PARAM[0])
                    config = configure(self.options, arm, tokens, seed)
                    jobs.append(self._job("moe", arm, config, "moe", 3, share))
        return jobs

    def _job(
        self,
        where: str,
        arm: Arm,
        config: ExperimentConfig,
        table: str,
        per_param: int,
        share: float,
    ) -> Job:
        words = [*map(str, dict(arm.growth).values()), f"{arm.rate:g}", f"x{share:.3g}"]
        words += ["from2"] if arm.growth and arm.depth == 2 else []
        parts = [arm.name, *words, f"s{config.train.seed}"]
        name = "_".join(parts).translate(str.maketrans(" :,=/", "-_-_-"))
        labels: Mapping[str, Any] = {
            "table": table,
            "arm": arm.name,
            "tokens_per_param": per_param,
            "share": share,
            "rate": arm.rate,
            "plan": config.growth.plan,
            "depth": arm.depth,
            "how": config.growth.depth,
            "slope_threshold": config.growth.slope,
            "seed": config.train.seed,
        }
        name = f"{where}/{name}"
        measure: Measure | None = self._measure and self._measure(name)
        return Job(name, config, tuple(labels.items()), measure)


def cost(arm: Arm) -> float:
    """FLOPs of a growing arm over those of the final model, for as many steps."""
    config = from_dict({"model": model_of(arm.depth), "growth": dict(arm.growth)})
    stages, configs = parse(config.growth), ladder(config)
    each = [train_flops(c.model, arms.LENGTH) for c in configs]
    starts = [0.0, *(stage.share for stage in stages), 1.0]
    parts = zip(each, itertools.pairwise(starts), strict=True)
    return sum(f * (b - a) for f, (a, b) in parts) / each[-1]


def _rates(arm: Arm, rates: Sequence[float]) -> list[Arm]:
    return [dataclasses.replace(arm, rate=rate) for rate in rates]


def fixed_trials() -> list[Arm]:
    """Times and stages, then ways and rates, then the best time's rates."""
    found = [FIXED.with_growth(plan=plan) for plan in PLANS]
    found += [FIXED.with_growth(depth=how) for how in ("stack", "random")]
    found += _rates(FIXED, (0.01, 0.04))
    found += _rates(FIXED.with_growth(plan=PLANS[3]), (0.01, 0.005))
    return found + _rates(FIXED.with_growth(plan="depth=4:0.93"), (0.01,))


def later_trials(best: Arm) -> list[Arm]:
    """For more tokens: other times, other rates, from two layers, by stacking."""
    found = [best.with_growth(plan=f"depth=4:{t}") for t in ("0.5", "0.7", "0.85")]
    middle = found[1]
    found += _rates(middle, (2 * best.rate, best.rate / 2))
    two = dataclasses.replace(best, depth=2).with_growth(plan="depth=4:0.4")
    return [*found, two, two.with_growth(depth="stack")]


def moment_arms() -> list[Arm]:
    """By rule and by what becomes of the moments; growth at half of the steps."""
    grow = {"method": "fixed", "plan": "depth=4:0.5", "rewarm": 0}
    adam = (("name", "adamw"), ("learning_rate", 0.004), ("weight_decay", 0.1))
    found = []
    for rule, optim in (("muon", ()), ("adamw", adam)):
        for how in ("carry", "template", "reset"):
            growth = tuple({**grow, "moments": how}.items())
            found.append(Arm(f"{rule} {how}", 1, growth=growth, optim=optim))
    return found


def prune_arms() -> list[Arm]:
    """None, then heads, units, layers by importance and by other choices; combined."""
    found = [Arm("static", DEPTH)]
    plans = {
        "heads 4 -> 2": "heads=2:0.7",
        "units 256 -> 128": "hidden=128:0.7",
        "layers 4 -> 2": "depth=2:0.7",
    }
    narrow = (("heads", 4), ("kv_heads", 4), ("head_dim", 16))
    for name, plan in plans.items():
        model = narrow if name.startswith("heads") else ()
        grow = (("method", "fixed"), ("plan", plan))
        found.append(Arm(name, DEPTH, growth=grow, model=model))
    found.append(Arm("static, 4 heads", DEPTH, model=narrow))
    for name in ("units 256 -> 128", "layers 4 -> 2"):
        for how in ("magnitude", "random"):
            grow = (("method", "fixed"), ("plan", plans[name]), ("prune", how))
            found.append(Arm(f"{name}, {how}", DEPTH, growth=grow))
    found.append(Arm("static, 128 units", DEPTH, model=(("hidden", 128),)))
    found.append(Arm("static, 2 layers", 2))
    both = "depth=4:0.5,hidden=192:0.8"
    grow = (("method", "fixed"), ("plan", both))
    return [*found, Arm("grow 1 -> 4, units 256 -> 192", 1, growth=grow)]


def moe_arms() -> list[Arm]:
    """One layer: dense, four experts of which one is active, upcycled at half."""
    four = (("experts", 4), ("active_experts", 1), ("capacity", 1.25))
    grow = (("method", "fixed"), ("plan", "experts=4:0.5"))
    return [
        Arm("dense", 1),
        Arm("4 experts", 1, model=four),
        Arm("upcycled at 50 %", 1, growth=grow, model=four[1:]),
    ]
