"""The FLOP walk against closed forms and XLA: `python -m experiments.ledger --help`.

XLA counts the body of a loop once, so its figure is taken of the same program with
every scan unrolled. `matmul` programs are nothing but contractions; `step` programs are
whole training steps.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from experiments.records import write_record
from uets_jax.build import build, initial_state
from uets_jax.config import ExperimentConfig, OptimConfig, TrainConfig
from uets_jax.errors import ENDS, EXIT_OK, exit_code
from uets_jax.measure.flops import step_flops
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost
from uets_jax.models.presets import model_config
from uets_jax.step import train_step
from uets_jax.types import Batch

VOCAB, BATCH = 256, 8
NOTE = (
    "Errors are walk / reference - 1. cost_analysis: of the compiled program with all "
    "scans unrolled. lowered: of the same program before XLA optimises it. "
    "elementwise: all but matmuls; XLA on a CPU computes cheap operands again in each "
    "fusion that reads them, which the walk does not count."
)

Shape = jax.ShapeDtypeStruct


class Case(NamedTuple):
    """A program, the shapes of its arguments, and its matmul FLOPs in closed form."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    closed_form: int | None


def _floats(*shape: int) -> Shape:
    return Shape(shape, jnp.float32)


def _vjp(function: Callable[..., Any]) -> Callable[..., Any]:
    """(cotangent, *arguments) -> value and gradients."""

    def both(cotangent: jax.Array, *arguments: jax.Array) -> Any:
        value, pullback = jax.vjp(function, *arguments)
        return value, pullback(cotangent)

    return both


def _chain(x: jax.Array, ws: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda c, w: (c @ w, None), x, ws)[0]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.einsum("bhqk,bkhd->bqhd", jnp.einsum("bqhd,bkhd->bhqk", q, k), v)


def _convolve(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID")


def matmul_cases() -> dict[str, Case]:
    """Contractions alone, forward and backward."""
    x, ws, q = _floats(64, 96), _floats(10, 96, 96), _floats(4, 32, 2, 16)
    wide, narrow = _floats(96, 128), _floats(128, 32)
    chain, attend = 10 * 2 * 64 * 96 * 96, 2 * 2 * 4 * 2 * 32 * 32 * 16
    picture, kernel = _floats(2, 3, 16, 16), _floats(8, 3, 5, 5)
    mlp = 2 * 64 * 128 * (96 + 32)
    return {
        "matmul": Case(jnp.matmul, (x, wide), 2 * 64 * 96 * 128),
        "batched matmul": Case(
            jnp.matmul, (_floats(6, 32, 48), _floats(6, 48, 16)), 2 * 6 * 32 * 48 * 16
        ),
        "linear MLP, gradient": Case(
            _vjp(lambda x, a, b: x @ a @ b), (_floats(64, 32), x, wide, narrow), 3 * mlp
        ),
        "scan of 10 matmuls": Case(_chain, (x, ws), chain),
        "scan of 10 matmuls, gradient": Case(_vjp(_chain), (x, x, ws), 3 * chain),
        "attention products, gradient": Case(_vjp(_attend), (q, q, q, q), 3 * attend),
        "convolution": Case(
            _convolve, (picture, kernel), 2 * 2 * 8 * 12 * 12 * 3 * 5 * 5
        ),
    }


def step_config(
    preset: str, size: str, optimizer: str, microbatches: int = 1, **model: Any
) -> ExperimentConfig:
    """A training step of `BATCH` windows."""
    return ExperimentConfig(
        model=model_config(preset, size, vocab=VOCAB, **model),
        optim=OptimConfig(name=optimizer),  # pyright: ignore[reportArgumentType]
        train=TrainConfig(batch=BATCH, microbatches=microbatches),
    )


STEPS: dict[str, ExperimentConfig] = {
    "modern tiny lion": step_config("modern", "tiny", "lion"),
    "modern tiny muon": step_config("modern", "tiny", "muon"),
    "modern tiny muon remat": step_config("modern", "tiny", "muon", remat=True),
    "modern tiny adamw 2 microbatches": step_config("modern", "tiny", "adamw", 2),
    "gpt2 tiny adamw": step_config("gpt2", "tiny", "adamw"),
    "gpt2 tiny adamw remat": step_config("gpt2", "tiny", "adamw", remat=True),
    "modern nano muon depth 1": step_config("modern", "nano", "muon", depth=1),
    "gpt2 nano adamw depth 2": step_config("gpt2", "nano", "adamw", depth=2),
}


def step_case(config: ExperimentConfig) -> Case:
    """The whole training step of a config; nothing is allocated."""
    program, length = build(config), config.model.context
    state = jax.eval_shape(functools.partial(initial_state, config, program))
    table: Any = Shape((config.train.batch, length), jnp.int32)
    rows: Any = Shape((config.train.batch,), jnp.int32)
    batch = Batch(table, table, rows, table)
    step = functools.partial(train_step, program)
    return Case(step, (state, batch), sum(step_flops(config).values()))


def unrolled(jaxpr: Any) -> Any:
    """The same (open or closed) jaxpr with every scan unrolled."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    if type(inner) is not type(jaxpr):  # before jax 0.12, closed ones held an open one
        return core.ClosedJaxpr(unrolled(inner), jaxpr.consts)
    return jaxpr.replace(eqns=[_unrolled_equation(eqn) for eqn in jaxpr.eqns])


def _unrolled_equation(eqn: Any) -> Any:
    def inside(value: Any) -> Any:
        if isinstance(value, tuple) and type(value) is tuple:
            return tuple(inside(v) for v in value)
        nested = isinstance(value, core.Jaxpr | core.ClosedJaxpr)
        return unrolled(value) if nested else value

    params = {name: inside(value) for name, value in eqn.params.items()}
    if eqn.primitive.name == "scan":
        params["unroll"] = max(1, params["length"])
    return eqn.replace(params=params)


def row(program: str, kind: str, case: Case) -> dict[str, Any]:
    """Both counts of one program, and how far the walk is from each reference."""
    traced = jax.make_jaxpr(case.function)(*case.arguments)
    cost = sum(count(traced).total().values(), start=Cost())
    flat = core.jaxpr_as_fun(unrolled(traced))
    lowered = jax.jit(flat).lower(*jax.tree.leaves(case.arguments))
    before, after = _flops(lowered), _flops(lowered.compile())
    closed, rest = case.closed_form, after - cost.matmul
    elementwise = None if kind == "matmul" else cost.elementwise / rest - 1
    return {
        "program": program,
        "kind": kind,
        "matmul_error_closed_form": cost.matmul / closed - 1 if closed else None,
        "total_error_cost_analysis": cost.total / after - 1,
        "total_error_lowered": cost.total / before - 1,
        "elementwise_error_cost_analysis": elementwise,
        "matmul_flops": cost.matmul,
        "total_flops": cost.total,
        "cost_analysis_flops": after,
    }


def _flops(stage: Any) -> float:
    """XLA's count."""
    found = (stage.cost_analysis() or {}).get("flops", math.nan)
    return float(found)


def rows(
    steps: Sequence[str] = tuple(STEPS), matmuls: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row per program; all of them unless names are given."""
    cases = matmul_cases()
    names = cases if matmuls is None else matmuls
    found = [row(name, "matmul", cases[name]) for name in names]
    return found + [row(name, "step", step_case(STEPS[name])) for name in steps]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all programs and writes `results/foundation.ledger.json`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.ledger")
    parser.add_argument("--out", type=Path, default=Path("results"))
    words = list(sys.argv[1:] if argv is None else argv)
    given = parser.parse_args(words)
    config = {"vocab": VOCAB, "batch": BATCH, "programs": list(STEPS)}
    command = " ".join(["python -m experiments.ledger", *words])
    try:
        found = rows()
        path = write_record(
            "foundation.ledger", found, command, config, NOTE, out=given.out
        )
    except ENDS as error:
        print(f"ledger: error: {error}", file=sys.stderr)
        return exit_code(error)
    for line in found:
        error = line["total_error_cost_analysis"]
        print(f"{line['program']:34} {line['total_flops']:>14,} {error:+.4f}")
    print(path)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
