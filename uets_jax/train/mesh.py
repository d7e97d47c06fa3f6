"""Placement at the jit boundary: a mesh of data, fsdp and tensor axes."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.models.axes import axes_of
from uets_jax.step import Program, init_state, train_step
from uets_jax.types import Batch, Hypers, Params, TrainState

# Which mesh axis a parameter's axis is split over, where its size allows.
_RULES = {
    "vocab": "tensor",
    "head": "tensor",
    "kv_head": "tensor",
    "hidden": "tensor",
    "width": "fsdp",
}
_ROWS = PartitionSpec(("data", "fsdp"))
Start = Callable[..., Params]


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over the devices of all processes; `data` 0 takes what is left.

    Raises:
      UserError: if the axes need more devices than there are.
    """
    have = jax.device_count()
    rest = config.fsdp * config.tensor
    data = config.data or have // rest
    need = data * rest
    if not data or need > have or (need < have and jax.process_count() > 1):
        raise UserError(
            f"train.mesh: data {config.data} x fsdp {config.fsdp} x tensor "
            f"{config.tensor} does not fit {have} devices"
        )
    # Auto axes: the default, Explicit, breaks gathers such as an embedding's
    return jax.make_mesh(
        (data, config.fsdp, config.tensor),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[:need],
    )


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def leaf_spec(axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh) -> Any:
    """How one leaf is split: by `_RULES`, whole where a size does not divide."""
    spec: list[str | None] = []
    for axis, size in zip(axes, shape, strict=True):
        to = _RULES.get(axis)
        fits = to is not None and to not in spec and size % mesh.shape[to] == 0
        spec.append(to if fits else None)
    return PartitionSpec(*spec)


def state_shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
    """A sharding for every leaf of a state.

    Parameters, and the optimizer's leaves that mirror one (same last names on their
    path, same rank), follow the table of axes; everything else is on every device.
    """

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        spec = leaf_spec(axes_of(path, leaf.ndim), leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda _: everywhere, abstract)._replace(
        params=jax.tree_util.tree_map_with_path(place, abstract.params),
        opt=jax.tree_util.tree_map_with_path(place, abstract.opt),
    )


@functools.lru_cache(maxsize=64)
def abstract_state(program: Program, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the program's state; allocates nothing."""
    scalar: Any = jax.ShapeDtypeStruct((), np.float32)
    shapes = jax.eval_shape(
        functools.partial(init_state, program),
        Hypers(scalar, scalar, scalar, scalar),
        jax.ShapeDtypeStruct((), np.int32),
    )
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        state_shardings(shapes, mesh),
    )


def _placed(program: Program, mesh: Mesh) -> TrainState:
    return jax.tree.map(lambda x: x.sharding, abstract_state(program, mesh))


@functools.lru_cache(maxsize=64)
def compile_init(program: Program, mesh: Mesh, start: Start | None = None):
    """Jits `(hypers, seed, counted=None) -> state`, each leaf made where it belongs.

    Args:
      start: (fresh params, counted) -> params that the run begins with.
    """

    def init(hypers: Hypers, seed: Any, counted: Any = None) -> TrainState:
        own = None if start is None else lambda params: start(params, counted)
        return init_state(program, hypers, seed, own)

    return jax.jit(init, out_shardings=_placed(program, mesh))


@functools.lru_cache(maxsize=64)
def compile_step(program: Program, mesh: Mesh):
    """Jits `step(state, pool, assets) -> (state, metrics)`; the state is donated.

    Cached by program and mesh: runs that differ only in traced values share it.
    """
    where, everywhere = _placed(program, mesh), NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        functools.partial(train_step, _spread(program, mesh)),
        in_shardings=(where, NamedSharding(mesh, _ROWS), everywhere),
        out_shardings=(where, everywhere),
        donate_argnums=0,
    )


def _spread(program: Program, mesh: Mesh) -> Program:
    """The program with the rows that it chooses split over the mesh, as a batch is.

    They come out of a buffer that every device has whole; without a word XLA would let
    every device train on all of them.
    """
    if program.select is None or row_shards(mesh) == 1:
        return program
    choose = program.select.choose

    def spread(*given: Any) -> Any:
        batch, weights, metrics, state = choose(*given)
        split = NamedSharding(mesh, _ROWS)
        place = lambda x: jax.lax.with_sharding_constraint(x, split)
        return *jax.tree.map(place, (batch, weights)), metrics, state

    return dataclasses.replace(program, select=program.select._replace(choose=spread))


def put_batch(batch: Batch, mesh: Mesh, shared: bool = False) -> Batch:
    """A host batch on the mesh, its rows split over `data` and `fsdp`.

    Args:
      batch: this process's own rows; with `shared`, all rows, alike in every process.
    """
    where = NamedSharding(mesh, _ROWS)
    if jax.process_count() == 1:
        return jax.device_put(batch, where)
    if shared:
        make = lambda x: jax.make_array_from_callback(x.shape, where, lambda i: x[i])
    else:
        make = functools.partial(jax.make_array_from_process_local_data, where)
    return jax.tree.map(make, batch)


def check_rows(rows: int, mesh: Mesh, field: str) -> None:
    """Raises `UserError` unless `rows` can be split over the mesh."""
    shards = math.lcm(row_shards(mesh), jax.process_count())
    if rows % shards:
        raise UserError(
            f"{field}: {rows} rows can't be split over {shards} devices; "
            f"use a multiple of {shards} or set --train.mesh.data"
        )
