"""Everything that a run needs before its first step: data, program, mesh."""

import dataclasses
import functools
import hashlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uets_jax.aql.reference import Snapshot
from uets_jax.build import build, hypers
from uets_jax.config import (
    SNAPSHOT,
    ExperimentConfig,
    ModelConfig,
    candidates,
    piece,
    window_length,
)
from uets_jax.curriculum import length
from uets_jax.data.folders import cache_folder
from uets_jax.data.store import TokenStore, prepare
from uets_jax.data.windows import Windows, sequential
from uets_jax.errors import UserError
from uets_jax.growth.grow import check_own
from uets_jax.growth.learned import load_policy
from uets_jax.growth.stages import (
    Stage,
    after,
    ladder,
    parse,
    prunes,
    referred,
    snapshots,
)
from uets_jax.measure.baseline import read_baseline
from uets_jax.measure.work import Cost, Costs
from uets_jax.step import Program
from uets_jax.train.assets import asset_costs, build_assets, inputs_sha256
from uets_jax.train.combinations import check_tune
from uets_jax.train.counting import (
    check_start,
    counted,
    start_costs,
    start_of,
)
from uets_jax.train.mesh import abstract_state, check_rows, compile_init, make_mesh
from uets_jax.train.stopping import check_schedule, latest_cooldown
from uets_jax.types import Batch, Hypers, TrainState
from uets_jax.validation import validate


@dataclasses.dataclass(frozen=True)
class Session:
    """A resolved config and what it names, ready to step.

    snapshot: the earlier model that selection refers to, if there is one; shapes alone
      where no step will be made.
    """

    config: ExperimentConfig
    store: TokenStore
    program: Program
    mesh: Mesh
    overrides: Mapping[str, Any] | None = None
    snapshot: Snapshot | None = None

    def reshaped(self, model: ModelConfig) -> "Session":
        """The same run with another model; text, windows and tables are shared.

        Where selection comes to refer to the model as it is: to its shapes.
        """
        if model == self.config.model:
            return self
        config = dataclasses.replace(self.config, model=model)
        fields = {"config": config, "program": build(config, self.overrides)}
        if referred(self.config, model):
            fields["snapshot"] = self._abstract()
        return self._changed(**fields)

    def referring(self, snapshot: Snapshot | None) -> "Session":
        """The same with another model that selection refers to, or with none."""
        same = snapshot is self.snapshot
        return self if same else self._changed(snapshot=snapshot)

    def _changed(self, **fields: Any) -> "Session":
        other = dataclasses.replace(self, **fields)
        shared = ("windows", "tables", "assets_sha256")
        vars(other).update({k: vars(self)[k] for k in shared if k in vars(self)})
        return other

    def _abstract(self) -> Snapshot:
        """Shapes of the model as a snapshot, which every device has whole."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        whole = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
        params = abstract_state(self.program, self.mesh).params
        return Snapshot(jax.tree.map(whole, params), self.program.forward)

    @functools.cached_property
    def windows(self) -> Windows:
        """This process's share of the training batches, by step.

        Raises:
          UserError: if there are fewer windows than a batch has rows.
        """
        c = self.config
        return Windows(
            tokens=self.store.tokens("train"),
            eot=self.store.tokenizer.eot,
            length=window_length(c),
            batch=c.train.batch * candidates(c),
            seed=c.train.seed,
            piece=piece(c),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def evaluation(self, split: str = "valid", tokens: int = 0) -> Iterator[Batch]:
        """Consecutive windows of a split; at most `tokens` tokens, 0: all."""
        c = self.config
        return sequential(
            self.store.tokens(split),
            self.store.tokenizer.eot,
            window_length(c),
            c.train.batch // c.train.microbatches,
            tokens,
        )

    @functools.cached_property
    def tables(self) -> Any:
        """What all steps of the run read, on every device.

        Raises:
          UserError: for a sample or a reference that can't be read.
        """
        found = build_assets(self.config, self.store)
        return jax.device_put(found, NamedSharding(self.mesh, PartitionSpec()))

    @property
    def assets(self) -> Any:
        """What the step reads beside its state and its data: tables and snapshot.

        Raises:
          UserError: as `tables`.
        """
        if self.snapshot is None or self.tables is None:
            return self.tables
        return self.tables._replace(reference=self.snapshot)

    @functools.cached_property
    def assets_sha256(self) -> str:
        """Of what the assets are made from beside the training text; may be "".

        Raises:
          UserError: for a sample or a reference that can't be read.
        """
        return inputs_sha256(self.config)

    def place_hypers(self, values: Hypers) -> Hypers:
        """Traced hyper-parameters on every device of the mesh."""
        return jax.device_put(values, NamedSharding(self.mesh, PartitionSpec()))

    def initial_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        values, seed = hypers(self.config), self.config.train.seed
        if self.config.train.start == "random":
            return compile_init(self.program, self.mesh)(values, seed)
        init = compile_init(self.program, self.mesh, start_of(self.config.model))
        return init(values, seed, counted(self.config, self.windows, self.assets))

    def counting_costs(self) -> Costs:
        """What `initial_state` takes."""
        if self.config.train.start == "random":
            return {}
        return start_costs(self.config, self.program, self.assets, self.windows)

    def start_costs(self) -> Costs:
        """What has to be known before the first step, beside the weights of others."""
        costs = asset_costs(self.config, self.store)
        counting = self.counting_costs()
        names = costs | counting
        return {n: costs.get(n, Cost()) + counting.get(n, Cost()) for n in names}


def open_session(
    config: ExperimentConfig, overrides: Mapping[str, Any] | None = None
) -> Session:
    """Checks the config, prepares its data and builds its program.

    Raises:
      UserError: for anything that would fail later, before anything is compiled.
    """
    validate(config)
    check_lengths(config)
    check_tune(config)
    if config.train.baseline:
        read_baseline(config.train.baseline)
    if config.model.attention == "cudnn" and jax.default_backend() != "gpu":
        raise UserError("model.attention: cudnn needs an NVIDIA GPU; use auto or xla")
    mesh = make_mesh(config.train.mesh)
    rows = config.train.batch // config.train.microbatches
    check_rows(rows, mesh, "train.batch / train.microbatches")
    use_compilation_cache(config.data.cache)
    store = prepare(config.data)
    config = resolve(config, store)
    session = Session(config, store, build(config, overrides), mesh, overrides)
    check_start(config, overrides)
    check_growth(config, overrides)
    check_schedule(config, overrides)
    # raise now, not at the first step
    _ = session.windows, session.tables, session.assets_sha256
    return session


def check_growth(config: ExperimentConfig, overrides: Mapping[str, Any] | None) -> None:
    """Raises `UserError` for a plan that can't be read, or not be carried out."""
    method, plan = config.growth.method, config.growth.plan
    if config.growth.look_every:
        _check_halves(config, "growth.look_every")
    if method != "none" and not plan:
        raise UserError(
            f"growth.plan: empty; method {method!r} needs stages, such as depth=4:0.5"
        )
    if method == "none" and plan:
        raise UserError(f"growth.method: none; {plan!r} needs one, such as fixed")
    if config.growth.policy and method != "learned":
        raise UserError(f"growth.policy: only method learned reads it, not {method!r}")
    if method == "none":
        return
    if method == "learned":
        load_policy(config.growth.policy or None)
    check_own(overrides)
    for before, stage in zip(ladder(config), parse(config.growth), strict=False):
        validate(after(before, stage))
        _check_time(config, stage)
        _check_pruning(before, stage)
    if config.select.reference == SNAPSHOT and not any(snapshots(ladder(config))):
        raise UserError(
            f"select.reference: snapshot: nothing grows in growth.plan {plan!r}; give "
            "a stage that adds something, such as depth=4:0.5, or a file"
        )


def _check_time(config: ExperimentConfig, stage: Stage) -> None:
    """Raises `UserError` for a stage that no step is left for."""
    steps, what = config.train.steps, "after the last one"
    most = (steps - 1) / steps
    if config.train.target:
        most, what = (latest_cooldown(config) - 1) / steps, "in the cool-down"
    if config.growth.method == "fixed" and stage.share > most:
        raise UserError(
            f"growth.plan: {stage}: share {stage.share:g} of {steps} steps comes "
            f"{what}; use at most {most:.3g} or more train.steps"
        )


def _check_pruning(before: ExperimentConfig, stage: Stage) -> None:
    """Raises `UserError` where what a stage prunes can't be scored."""
    for op in stage.ops:
        if prunes(before.model, op):
            if before.growth.prune == "importance" and op.field != "depth":
                _check_halves(before, f"growth.plan: {op}")
            if before.growth.prune == "magnitude" and before.model.experts:
                raise UserError(
                    f"growth.plan: {op}: prune 'magnitude' can't weigh experts; use "
                    "growth.prune importance"
                )
        before = after(before, Stage((op,), stage.share))


def _check_halves(config: ExperimentConfig, what: str) -> None:
    """Raises `UserError` for an odd number of rows: a look reads two halves."""
    rows = config.train.batch // config.train.microbatches
    if rows % 2:
        raise UserError(
            f"{what}: reads two halves of a batch, but train.batch / "
            f"train.microbatches is {rows}; make it even"
        )


def check_lengths(config: ExperimentConfig) -> None:
    """Raises `UserError` for a length warm-up that can't be read or used."""
    try:
        length.parse(config.curriculum.lengths, window_length(config))
    except UserError as error:
        raise UserError(f"curriculum.lengths: {error}") from None


def resolve(config: ExperimentConfig, store: TokenStore) -> ExperimentConfig:
    """`config` with the vocabulary taken from the tokenizer, if it was left open.

    Raises:
      UserError: if the model's vocabulary is smaller than the tokenizer's.
    """
    have = store.tokenizer.vocab_size
    if config.model.vocab == 0:
        model = dataclasses.replace(config.model, vocab=have)
        return dataclasses.replace(config, model=model)
    if config.model.vocab < have:
        raise UserError(
            f"model.vocab: {config.model.vocab} is smaller than the tokenizer's "
            f"{have}; use 0 or at least that"
        )
    return config


def processor() -> str:
    """Names the instruction set: a program compiled for another one may crash."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256(flags.encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"


def use_compilation_cache(configured: str = "") -> None:
    """Keeps compiled programs in the cache folder, unless jax has a place for them."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = cache_folder(configured, "xla") / processor()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
