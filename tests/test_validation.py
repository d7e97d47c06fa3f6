"""What can't work is refused, and named, before anything is compiled."""

import dataclasses
import math
import re
import typing

import pytest

from uets_jax.config import ExperimentConfig, nested, replace_from_dict
from uets_jax.errors import UserError
from uets_jax.validation import validate

DEFAULT = ExperimentConfig()


def numbers(kind, prefix: str = "") -> dict[str, type]:
    """The type of every int and float field of a config class, by path."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= numbers(hint, f"{prefix}{name}.")
        elif hint in (int, float):
            found[prefix + name] = hint
    return found


def changed(path: str, value) -> ExperimentConfig:
    return replace_from_dict(DEFAULT, nested({path: value}))


NUMBERS = numbers(ExperimentConfig)
SNAPSHOT = {"method": "rho", "reference": "snapshot"}
AQL = {"method": "aql", "policy": True}


def test_validate_returns_its_argument():
    assert validate(DEFAULT) is DEFAULT


LEAST = {
    256: "model.backoff_pairs",
    2: "model.memory_order",
    1: "model.active_experts "
    "model.context model.depth model.width model.heads model.kv_heads "
    "model.head_dim model.hidden model.head_chunks train.steps train.batch "
    "train.microbatches "
    "train.keep train.bad_steps train.log_every train.sample_tokens train.mesh.fsdp "
    "train.mesh.tensor select.candidates select.run select.buffer "
    "curriculum.candidates growth.probe_steps optim.gate_every optim.soap_every",
    0: "model.experts model.capacity model.balance "
    "model.vocab model.softcap model.memory_rows model.frozen model.backoff_order "
    "data.length optim.learning_rate "
    "optim.weight_decay optim.warmup optim.decay optim.floor optim.clip optim.eps "
    "optim.adam_ratio optim.rest_ratio optim.soap_max_dim optim.average "
    "train.target train.cooldown train.seed train.eval_every train.eval_tokens "
    "train.checkpoint_every train.spike train.watchdog train.samples "
    "train.mesh.data select.knobs.temperature select.knobs.final_temperature "
    "select.knobs.anneal select.knobs.novelty select.knobs.staleness "
    "select.knobs.ratio select.knobs.floor select.knobs.copied "
    "train.tune_share curriculum.start curriculum.until growth.rewarm growth.every "
    "growth.earliest "
    "growth.slope growth.cost growth.look_every",
    -100: "select.knobs.natural select.knobs.progress select.knobs.uncertainty",
}
BOUNDS = [(path, low) for low, paths in LEAST.items() for path in paths.split()]
SHARES = [
    "model.dropout",
    "optim.b1",
    "optim.b2",
    "optim.momentum",
    "data.valid_fraction",
]


@pytest.mark.parametrize(("path", "low"), BOUNDS)
def test_numbers_have_bounds(path, low):
    hint = NUMBERS[path]
    wrong = [low - 1, 2**31]
    wrong += [math.nan, math.inf] if hint is float else []
    for value in wrong:
        with pytest.raises(UserError, match=path.replace(".", r"\.")):
            validate(changed(path, hint(value)))


@pytest.mark.parametrize(
    "path",
    [
        "optim.decay",
        "optim.floor",
        "select.knobs.ratio",
        "select.knobs.floor",
        "select.knobs.copied",
        "curriculum.start",
        "curriculum.until",
        "train.tune_share",
        "growth.every",
        "growth.earliest",
    ],
)
def test_parts_of_a_whole_are_at_most_one(path):
    validate(changed(path, 1.0))
    with pytest.raises(UserError, match=rf"{path}: must be at most 1, got 1\.01"):
        validate(changed(path, 1.01))


@pytest.mark.parametrize("path", SHARES)
def test_shares_are_below_one(path):
    validate(changed(path, 0.0))
    for value in (-0.1, 1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=path.replace(".", r"\.")):
            validate(changed(path, value))


def test_every_number_has_a_bound():
    assert set(NUMBERS) == {path for path, _ in BOUNDS} | set(SHARES)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"model": {"kv_heads": 3}}, "model.kv_heads"),
        ({"model": {"kv_heads": 8}}, "model.kv_heads"),
        ({"model": {"head_dim": 33}}, "model.head_dim"),
        ({"data": {"length": 129}}, "data.length"),
        ({"model": {"experts": 1}}, "model.experts: 1 leaves nothing to route"),
        ({"model": {"active_experts": 2}}, "model.active_experts: 2 of model.experts"),
        ({"model": {"experts": 2, "active_experts": 3}}, "model.active_experts: 3 of"),
        ({"model": {"mask_documents": True, "attention": "cudnn"}}, "model.attention"),
        (
            {"model": {"frozen": 4}},
            "model.frozen: 4 of model.depth = 4; leave at least",
        ),
        (
            {"model": {"frozen": 1}, "optim": {"name": "schedule_free"}},
            "model.frozen: not with schedule_free",
        ),
        ({"train": {"batch": 32, "microbatches": 5}}, "train.microbatches"),
        ({"select": AQL | {"run": 7}}, "select.run: 7 does not divide the 512"),
        ({"select": AQL | {"buffer": 31}}, "select.buffer: 31 rows hold no batch"),
        ({"select": AQL | {"mode": "target"}}, "select.target: empty"),
        ({"select": AQL | {"buckets": False}}, "select.policy: needs select.buckets"),
        (
            {"select": {"method": "aql", "switch": True, "buckets": False}},
            "select.switch: needs select.buckets",
        ),
        ({"select": AQL | {"switch": True, "mode": "pool"}}, "select.switch: not in"),
        ({"select": AQL | {"candidates": 1}}, "select.candidates: 1 leaves nothing"),
        ({"select": {"method": "rho"}}, "select.reference: empty"),
        (
            {"select": SNAPSHOT | {"method": "loss"}},
            "select.reference: snapshot: method 'loss' reads no reference; give "
            "select.method rho",
        ),
        (
            {"select": SNAPSHOT},
            "select.reference: snapshot: growth.method none leaves no smaller model; "
            "give another",
        ),
        ({"select": {"method": "mc_dropout"}}, "model.dropout: 0"),
        ({"select": {"method": "loss", "candidates": 1}}, "select.candidates: 1"),
        (
            {"select": {"method": "loss"}, "curriculum": {"difficulty": "rarity"}},
            "curriculum.difficulty: method loss takes none",
        ),
        *(
            ({"select": AQL, "curriculum": {"difficulty": name}}, f": {name} needs")
            for name in ("loss", "entropy", "progress")
        ),
        (
            {
                "select": AQL | {"mode": "pool"},
                "curriculum": {"difficulty": "rarity"},
            },
            "curriculum.difficulty: mode 'pool' bars nothing",
        ),
    ],
)
def test_values_that_contradict_each_other_are_named(values, culprit):
    with pytest.raises(UserError, match=re.escape(culprit)):
        validate(replace_from_dict(DEFAULT, values))


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"kv_heads": 1}},
        {"model": {"experts": 2, "active_experts": 2, "capacity": 0, "balance": 0}},
        {"model": {"position": "learned", "head_dim": 33}},
        {"data": {"length": 128}},
        {"model": {"frozen": 3}},
        {"model": {"mask_documents": True, "attention": "xla"}},
        {"train": {"seed": 2**31 - 1}},
        {"optim": {"floor": 1.0, "decay": 1.0, "clip": 0.0}},
        {"select": AQL | {"buffer": 32, "run": 512}},
        {"select": AQL | {"mode": "target", "target": "files:x"}},
        {"select": AQL | {"mode": "pool", "candidates": 2, "run": 1}},
        {"select": AQL | {"policy": False, "buckets": False}},
        {"select": AQL, "curriculum": {"difficulty": "surprisal"}},
        {"select": {"run": 7, "buffer": 1, "mode": "target"}},
        {"curriculum": {"difficulty": "progress"}},
        {"model": {"dropout": 0.1}, "select": {"method": "mc_dropout"}},
        {"select": {"method": "rho", "reference": "x.npy"}},
        {"select": SNAPSHOT, "growth": {"method": "fixed", "plan": "depth=9:0.5"}},
    ],
)
def test_the_edge_of_what_is_allowed_is_allowed(values):
    config = replace_from_dict(DEFAULT, values)
    assert validate(config) is config


def test_there_are_tables_for_bigrams_and_trigrams_only():
    validate(changed("model.memory_order", 3))
    with pytest.raises(UserError, match=r"model\.memory_order: must be 2 or 3, got 4"):
        validate(changed("model.memory_order", 4))


def test_a_back_off_model_needs_counts_and_a_power_of_two():
    counted = {"train": {"start": "counts"}, "model": {"backoff_order": 5}}
    validate(replace_from_dict(DEFAULT, counted))
    for own, match in (
        ({"backoff_order": 2}, "backoff_order: must be 0 or 3 to 5, got 2"),
        ({"backoff_order": 6}, "backoff_order: must be 0 or 3 to 5, got 6"),
        ({"backoff_order": 3, "backoff_pairs": 1000}, "backoff_pairs: .* power of two"),
        ({"backoff_order": 3, "backoff_pairs": 1 << 25}, "power of two up to 2..24"),
    ):
        with pytest.raises(UserError, match=match):
            validate(replace_from_dict(DEFAULT, {**counted, "model": own}))
    with pytest.raises(UserError, match=r"backoff_order: 5, .* train\.start counts"):
        validate(changed("model.backoff_order", 5))
