"""What the values of a config must be for a run to work, alone and together."""

import itertools
import operator
from collections.abc import Iterator

from uets_jax.config import SNAPSHOT, ExperimentConfig
from uets_jax.errors import UserError

# the least value of a number, by path; all are below BELOW
LEAST: dict[str, int] = {
    "model.vocab": 0,
    "model.context": 1,
    "model.depth": 1,
    "model.width": 1,
    "model.heads": 1,
    "model.kv_heads": 1,
    "model.head_dim": 1,
    "model.hidden": 1,
    "model.softcap": 0,
    "model.head_chunks": 1,
    "model.memory_rows": 0,
    "model.memory_order": 2,
    "model.backoff_order": 0,
    "model.backoff_pairs": 256,
    "model.experts": 0,
    "model.active_experts": 1,
    "model.capacity": 0,
    "model.balance": 0,
    "model.frozen": 0,
    "data.length": 0,
    "optim.learning_rate": 0,
    "optim.weight_decay": 0,
    "optim.warmup": 0,
    "optim.decay": 0,
    "optim.floor": 0,
    "optim.clip": 0,
    "optim.eps": 0,
    "optim.adam_ratio": 0,
    "optim.rest_ratio": 0,
    "optim.gate_every": 1,
    "optim.average": 0,
    "optim.soap_every": 1,
    "optim.soap_max_dim": 0,
    "select.candidates": 1,
    "select.run": 1,
    "select.buffer": 1,
    "select.knobs.temperature": 0,
    "select.knobs.final_temperature": 0,
    "select.knobs.anneal": 0,
    "select.knobs.novelty": 0,
    "select.knobs.copied": 0,
    "select.knobs.natural": -100,
    "select.knobs.progress": -100,
    "select.knobs.uncertainty": -100,
    "select.knobs.staleness": 0,
    "select.knobs.ratio": 0,
    "select.knobs.floor": 0,
    "train.tune_share": 0,
    "curriculum.start": 0,
    "curriculum.until": 0,
    "curriculum.candidates": 1,
    "growth.rewarm": 0,
    "growth.every": 0,
    "growth.earliest": 0,
    "growth.slope": 0,
    "growth.cost": 0,
    "growth.probe_steps": 1,
    "growth.look_every": 0,
    "train.steps": 1,
    "train.target": 0,
    "train.cooldown": 0,
    "train.batch": 1,
    "train.microbatches": 1,
    "train.seed": 0,
    "train.eval_every": 0,
    "train.eval_tokens": 0,
    "train.checkpoint_every": 0,
    "train.keep": 1,
    "train.spike": 0,
    "train.bad_steps": 1,
    "train.watchdog": 0,
    "train.log_every": 1,
    "train.samples": 0,
    "train.sample_tokens": 1,
    "train.mesh.data": 0,
    "train.mesh.fsdp": 1,
    "train.mesh.tensor": 1,
}
BELOW = 2**31
AT_MOST_ONE = (
    "optim.decay",
    "optim.floor",
    "select.knobs.ratio",
    "select.knobs.copied",
    "select.knobs.floor",
    "curriculum.start",
    "curriculum.until",
    "train.tune_share",
    "growth.every",
    "growth.earliest",
)
BELOW_ONE = (
    "model.dropout",
    "optim.b1",
    "optim.b2",
    "optim.momentum",
    "data.valid_fraction",
)


WIDEST = 0.288  # optim.average; see optim/average.py
WITH_ADAM = ("muon", "normuon", "learned")  # Adam has a ratio of its own


def validate(config: ExperimentConfig) -> ExperimentConfig:
    """Returns `config` unchanged.

    Raises:
      UserError: for the first value that can't work, before anything is compiled.
    """
    for complaint in itertools.chain(_out_of_bounds(config), _contradictions(config)):
        raise UserError(complaint)
    return config


def _out_of_bounds(config: ExperimentConfig) -> Iterator[str]:
    """Complaints about single numbers; NaN is out of all bounds."""
    value_at = lambda path: operator.attrgetter(path)(config)
    for path, least in LEAST.items():
        value = value_at(path)
        if not value >= least:
            yield f"{path}: must be at least {least}, got {value}"
        if value >= BELOW:
            yield f"{path}: must be below 2**31, got {value}"
    for path in AT_MOST_ONE:
        if value_at(path) > 1:
            yield f"{path}: must be at most 1, got {value_at(path)}"
    for path in BELOW_ONE:
        if not 0 <= value_at(path) < 1:
            yield f"{path}: must be in [0, 1), got {value_at(path)}"


def _contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Complaints about values that don't fit together; each one is within bounds."""
    m, t, length = config.model, config.train, config.data.length
    if m.heads % m.kv_heads:
        yield f"model.kv_heads: {m.kv_heads} does not divide model.heads = {m.heads}"
    if m.position == "rope" and m.head_dim % 2:
        yield f"model.head_dim: rope needs an even one, got {m.head_dim}"
    if m.memory_order > 3:
        yield f"model.memory_order: must be 2 or 3, got {m.memory_order}"
    if m.tied and t.start == "counts":
        yield (
            "train.start: counts needs a head of its own (model.tied false, such as "
            "preset modern); or use random"
        )
    if not m.memory_trained and t.start != "counts":
        yield (
            "model.memory_trained: no, so that the tables stay empty; give train.start "
            "counts, or train them"
        )
    if m.backoff_order and not 3 <= m.backoff_order <= 5:
        yield f"model.backoff_order: must be 0 or 3 to 5, got {m.backoff_order}"
    if m.backoff_pairs & (m.backoff_pairs - 1) or m.backoff_pairs > 1 << 24:
        yield (
            "model.backoff_pairs: must be a power of two up to 2**24, got "
            f"{m.backoff_pairs}"
        )
    if m.backoff_order and t.start != "counts":
        yield (
            f"model.backoff_order: {m.backoff_order}, but nothing is counted; give "
            "train.start counts"
        )
    if m.experts == 1:
        yield "model.experts: 1 leaves nothing to route; give 0 (one MLP) or 2 or more"
    upcycled = not m.experts and "experts=" in config.growth.plan
    if m.active_experts > max(m.experts, 1) and not upcycled:
        yield (
            f"model.active_experts: {m.active_experts} of model.experts = {m.experts}; "
            "give at most as many as there are"
        )
    if m.frozen >= m.depth:
        yield (
            f"model.frozen: {m.frozen} of model.depth = {m.depth}; leave at least one "
            "block to train"
        )
    if m.frozen and config.optim.name == "schedule_free":
        yield "model.frozen: not with schedule_free, whose average goes on moving"
    if length > m.context:
        yield f"data.length: {length} is longer than model.context = {m.context}"
    if m.mask_documents and m.attention == "cudnn":
        yield "model.attention: mask_documents needs 'xla' or 'auto'"
    if config.optim.name in WITH_ADAM and config.optim.rest_ratio != 1:
        yield f"optim.rest_ratio: with {config.optim.name} give optim.adam_ratio"
    if config.optim.name == "schedule_free" and not config.optim.b1:
        yield "optim.b1: must be above 0 with schedule_free"
    if config.optim.average and config.optim.name == "schedule_free":
        yield "optim.average: schedule_free has an average of its own; give 0"
    if config.optim.average > WIDEST:
        yield (
            f"optim.average: must be at most {WIDEST} (the mean of all steps), got "
            f"{config.optim.average}"
        )
    yield from _choices(config)
    yield from _stopping(config)
    if t.batch % t.microbatches:
        yield (
            f"train.microbatches: {t.microbatches} does not divide "
            f"train.batch = {t.batch}"
        )


def _stopping(config: ExperimentConfig) -> Iterator[str]:
    """Complaints about a run that is to end at a target."""
    if not config.train.target:
        return
    if config.optim.schedule != "wsd":
        yield (
            "train.target: needs optim.schedule wsd, whose rate stays until the "
            f"cool-down, not {config.optim.schedule}"
        )
    if not config.optim.average:
        yield (
            "train.target: is checked with averaged weights; give optim.average, such "
            "as 0.1"
        )
    if not config.train.eval_every:
        yield "train.eval_every: 0; train.target is checked at validations"


def _choices(config: ExperimentConfig) -> Iterator[str]:
    """Complaints about the selection and the curriculum."""
    s, c, batch = config.select, config.curriculum, config.train.batch
    offered = batch * s.candidates
    if s.method == "aql":
        if offered % s.run:
            yield (
                f"select.run: {s.run} does not divide the {offered} windows that are "
                "offered (train.batch * select.candidates)"
            )
        if s.buffer < batch:
            yield f"select.buffer: {s.buffer} rows hold no batch of {batch}"
        if s.mode == "target" and not s.target:
            yield "select.target: empty; mode 'target' needs a sample of target text"
        for name in ("policy", "switch"):
            if getattr(s, name) and not s.buckets:
                yield f"select.{name}: needs select.buckets"
        if s.switch and s.mode == "pool":
            yield "select.switch: not in mode 'pool', whose scores cost nothing"
    if s.method == "rho" and not s.reference:
        yield "select.reference: empty; method 'rho' needs a reference's losses"
    if s.reference == SNAPSHOT and s.method != "rho":
        yield (
            f"select.reference: snapshot: method {s.method!r} reads no reference; give "
            "select.method rho"
        )
    if s.reference == SNAPSHOT and config.growth.method == "none":
        yield (
            "select.reference: snapshot: growth.method none leaves no smaller model; "
            "give another and a growth.plan, or a file"
        )
    if s.method == "mc_dropout" and not config.model.dropout:
        yield "model.dropout: 0; method 'mc_dropout' needs some, such as 0.1"
    if s.method not in ("none", "aql") and c.difficulty != "none":
        yield f"curriculum.difficulty: method {s.method} takes none"
    if s.method == "aql" and c.difficulty in ("loss", "entropy", "progress"):
        yield (
            f"curriculum.difficulty: {c.difficulty} needs select.method none; with aql "
            "take one that is read off the text"
        )
    if s.method == "aql" and s.mode == "pool" and c.difficulty != "none":
        yield (
            "curriculum.difficulty: mode 'pool' bars nothing; take difficulty none or "
            "mode 'blind'"
        )
    if s.method == "aql" and s.mode == "pool":
        for name in ("temperature", "final_temperature"):
            if not getattr(s.knobs, name):
                yield f"select.knobs.{name}: must be above 0 in mode 'pool'"
    if s.method != "none" and s.candidates < 2:
        yield "select.candidates: 1 leaves nothing to choose; give 2 or more"
