"""What a run would do and cost, as text or as plain values for JSON."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uets_jax.config import DataConfig, ExperimentConfig, window_length
from uets_jax.measure.devices import Device
from uets_jax.measure.flops import parameters
from uets_jax.report import units
from uets_jax.train.cost import Estimate, estimate, largest_stage
from uets_jax.train.footprint import RESERVE, fits, largest_batch
from uets_jax.train.session import check_growth


@dataclasses.dataclass(frozen=True)
class Offer:
    """A run on one kind of device.

    largest: about the largest batch that fits, all else as it is; 0: none.
    mend: microbatches and recomputation with which the batch fits; None where it fits
      as it is, or in no way.
    """

    estimate: Estimate
    device: Device
    largest: int
    mend: tuple[int, bool] | None

    @property
    def fits(self) -> bool:
        """The step fits the card as it is, with the reserve."""
        limit = self.device.memory_bytes * (1 - RESERVE)
        return self.estimate.memory_bytes <= limit

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        mend = self.mend and {"microbatches": self.mend[0], "remat": self.mend[1]}
        return {
            **self.estimate.to_dict(),
            "device_memory_bytes": self.device.memory_bytes,
            "fits": self.fits,
            "fits_with": mend,
            "largest_batch": self.largest,
            "source": self.device.source,
        }


@dataclasses.dataclass(frozen=True)
class Plan:
    """A config, what its tokenizer and text are, and an offer for each device."""

    config: ExperimentConfig
    tokenizer: str
    vocab: int  # 0: not known before the tokenizer is read
    offers: tuple[Offer, ...]


def make_plan(
    config: ExperimentConfig,
    devices: Sequence[Device],
    mfu: float | None = None,
    compile: bool = False,
) -> Plan:
    """Traces the run and estimates its cost on each device.

    A vocabulary that only the data will tell counts as one row.

    Raises:
      UserError: a source that isn't there, or as `estimate`.
    """
    tokenizer, vocab, valid_tokens = text_of(config.data)
    vocab = config.model.vocab or vocab
    model = dataclasses.replace(config.model, vocab=vocab or 1)
    config = dataclasses.replace(config, model=model)
    check_growth(config, None)
    (largest, before), offers = largest_stage(config), []
    for device in devices:
        found = estimate(config, device, None, mfu, compile, valid_tokens)
        offer = Offer(found, device, largest_batch(largest, device, None, before), None)
        fit = None if offer.fits else fits(largest, device, None, before)
        mend = fit and (fit.microbatches, fit.remat)
        offers.append(dataclasses.replace(offer, mend=mend))
    return Plan(config, tokenizer, vocab, tuple(offers))


def text_of(data: DataConfig) -> tuple[str, int, int | None]:
    """Spec and vocabulary (0: not known yet) of the tokenizer that a run would use, and
    the tokens of its validation text, where they are known without reading it.

    Raises:
      UserError: no such token store, or a pattern that matches no file.
    """
    from uets_jax.data import corpus, store

    if data.source.partition(":")[0] == "tokens":
        stored = store.prepare(data)
        spec = stored.meta.get("tokenizer", "of the store")
        valid = stored.meta["splits"]["valid"]["tokens"]
        return spec, stored.tokenizer.vocab_size, valid
    for source in filter(None, (data.source, data.valid_source)):
        corpus.check(source)
    return data.tokenizer, _vocab(data.tokenizer), _valid_tokens(data)


def _vocab(tokenizer: str) -> int:
    """Rows of the embedding, if the tokenizer's name or file tells; else 0."""
    from uets_jax.data import loading

    kind, _, size = tokenizer.partition(":")
    if kind == "bpe" and size.isdecimal():
        return int(size)
    if tokenizer != "bytes" and not os.path.exists(os.path.expanduser(tokenizer)):
        return 0
    found = loading.resolve(tokenizer)
    return found if isinstance(found, int) else found.vocab_size


def _valid_tokens(data: DataConfig) -> int | None:
    """Of the built-in text, if a run has tokenized it before."""
    from uets_jax.data import folders, store, writer

    if data.source != "builtin" or data.valid_source not in ("", "builtin"):
        return None
    key = writer.make_plan(data).key[:32]
    path = folders.cache_folder(data.cache, "stores") / key
    if not path.exists():
        return None
    return store.open_store(path).meta["splits"]["valid"]["tokens"]


def text(plan: Plan, out: Path | None = None) -> str:
    """The plan as lines, then a table with a row for each device."""
    c, found = plan.config, plan.offers[0].estimate
    m, o, t = c.model, c.optim, c.train
    unknown = dataclasses.replace(m, vocab=0)
    params = found.parameters if plan.vocab else parameters(unknown)
    known = "" if plan.vocab else ", embedding not counted"
    per_step = t.batch * window_length(c)
    rows = {
        "name": c.name,
        "source": f"{c.data.source}, tokenizer {plan.tokenizer}",
        "model": f"{m.preset} {m.size}: {m.depth} layers of width {m.width}, "
        f"{params:,} parameters{known}",
        "optimizer": f"{o.name}, learning rate {o.learning_rate:g} ({o.schedule})",
        "tokens": f"{per_step:,} per step x {t.steps:,} steps = {found.tokens:,}",
        "FLOPs": f"{_parts(found.flops, units.flops)}",
        "memory": f"{_parts(found.memory, units.memory)} ({found.memory_source}"
        + (f", on each of {found.devices} devices)" if found.devices > 1 else ")"),
        **({} if out is None else {"output": str(out)}),
    }
    lines = [f"{name:<11}{value}" for name, value in rows.items()]
    return "\n".join((*lines, "", *_table(plan.offers), "", *_notes(plan)))


def as_json(plan: Plan) -> str:
    """The plan as indented JSON."""
    devices = [offer.to_dict() for offer in plan.offers]
    head = {"name": plan.config.name, "vocab": plan.vocab or None}
    return json.dumps({**head, "devices": devices}, indent=2)


def _parts(amounts: dict[str, int], form: Any) -> str:
    """`9 KiB: parameters 4 KiB, activations 5 KiB`."""
    each = (f"{k.replace('_', '/')} {form(v)}" for k, v in amounts.items() if v)
    return f"{form(sum(amounts.values()))}: {', '.join(each)}"


def _table(offers: Sequence[Offer]) -> list[str]:
    rows = [("device", "MFU", "time", "energy", "money", "memory", "fits")]
    for offer in offers:
        e, card = offer.estimate, units.memory(offer.device.memory_bytes)
        rows.append(
            (
                e.device if e.devices == 1 else f"{e.devices} x {e.device}",
                f"{e.mfu:.0%}",
                units.duration(e.seconds),
                units.si(e.joules, gap=" ") + "J",
                f"${e.dollars:,.2f}",
                f"{units.memory(e.memory_bytes)} of {card}",
                _verdict(offer),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _verdict(offer: Offer) -> str:
    if offer.fits:
        return f"yes; up to batch {max(offer.largest, 1)}"
    if offer.mend is None:
        return "no: take a smaller model or batch"
    parts, remat = offer.mend
    how = f"--train.microbatches {parts}" + " --model.remat" * remat
    smaller = f", or batch {offer.largest}" if offer.largest else ""
    return f"with {how}{smaller}"


def _notes(plan: Plan) -> list[str]:
    dtype = plan.config.model.dtype
    return [
        f"Time: matmul FLOPs at this MFU of the {dtype} peak (--mfu), without "
        "compilation and data.",
        "Energy: time x power limit, an estimate. Money: time x rent "
        "(uets_jax/measure/devices.json, --devices FILE).",
        f"Memory: peak of a step; {RESERVE:.0%} of the card stays free.",
    ]
