"""Meta-training: theta is learned on families in turn, checked on others, kept or not.

    out/meta.jsonl       a line per update and per validation
    out/curve.svg        their values, drawn again as they come
    out/reference.json   the nominal rule's curve of every family
    out/checkpoints/     theta, optimizer, episodes; whole or not at all, with checksums
    out/result.json      what came out, and what it cost

Update u trains on family u mod n with keys that are functions of the seed and u: a run
that is resumed and one that was never interrupted make the same theta, bit for bit,
where updates are the budget.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from uets_jax.errors import StoppedError, UserError
from uets_jax.meta.episode import Make
from uets_jax.meta.estimators import sizes_like
from uets_jax.meta.family import Tasks
from uets_jax.meta.outer import adam, updated
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.store import Books, Store
from uets_jax.meta.validate import Comparison, compare
from uets_jax.meta.workshop import Bench, Scoring, Workshop
from uets_jax.report.progress import Stream
from uets_jax.train.files import held, write_json
from uets_jax.train.interrupts import Interrupts

_CONFIRM = 1 << 20  # first seed of the last check


class MetaState(NamedTuple):
    """start: the first theta. best: so far. mean: running mean of theta. opt: of AdamW.
    carries: the episodes of each family.
    """

    theta: Any
    start: Any
    best: Any
    mean: Any
    opt: Any
    carries: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Result:
    """theta:      the best one, or the first if that isn't better by two errors.
    chosen:     `best` or `start`.
    last:       the theta that training ended with.
    confirm:    best against start on fresh seeds of the held-out families.
    updates, inner_steps, seconds, core_seconds: of all parts of the run; flops too,
      None where the rule has an operation that nothing counts.
    history:    validations: update, mean and error of theta and its running mean
      against the first theta.
    """

    theta: Any
    chosen: str
    last: Any
    confirm: Comparison
    updates: int
    inner_steps: int
    seconds: float
    core_seconds: float
    flops: float | None
    history: tuple[dict[str, Any], ...]


def meta_train(
    make: Make,
    theta0: Any,
    tasks: Tasks,
    config: MetaConfig,
    out: Path,
    *,
    learned: Any = None,
    nominal: tuple[Make, Any] | None = None,
    shop: Workshop | None = None,
    mesh: Mesh | None = None,
    stream: Stream | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Result:
    """Learns theta within a budget, or goes on where a run in `out` has stopped.

    Args:
      make: theta -> rule.
      theta0: where it starts: a pytree of float32, best the nominal rule.
      tasks: families to learn on and families to choose by.
      config: budget and settings.
      out: folder of the run.
      learned: like theta0, False (or a mask) for what stays as it is; None: all learn.
      nominal: rule and theta that the reference curves are of; None: make, theta0.
      shop: what an earlier run of the same rule and tasks has compiled.
      mesh: over whose first axis the episodes are split; None: one device.
      stream: of the progress lines; stderr unless told.
      now: a clock in seconds.

    Raises:
      UserError: theta is not float32, a run of other settings or another first theta
        is in `out`, or another process trains there.
      StoppedError: a signal asked to stop; the state is saved.
    """
    theta0, out = _checked(theta0, tasks), out.resolve()  # orbax wants absolute paths
    with held(out), Interrupts() as interrupts:
        store = Store(out, config, tasks, stream, now, start_digest(theta0, learned))
        about = (out / "reference.json", nominal, mesh)
        shop = shop or Workshop(make, theta0, tasks, config, *about)
        shop.check(make, tasks, config, mesh)
        sizes = sizes_like(theta0, config.sigma, learned)
        benches, scoring = shop.benches, shop.scoring
        first = _first(theta0, benches, config)
        state, books = store.resume(_placed(first, mesh))
        if (done := _finished(state, store, books)) is not None:
            return done
        if not books.scales:
            scores = _scored(scoring, state.start, 0, config.seeds, books)
            books.start_scores, books.scales = scores.tolist(), scoring.scales or []
        shared = (benches, scoring, sizes)
        state = _learn(state, *shared, config, store, books, interrupts)
        return _ended(state, scoring, config, store, books)


def start_digest(theta: Any, learned: Any = None) -> str:
    """A digest of a first theta and of what of it is learned, see `meta_train`."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((theta, sizes_like(theta, 1.0, learned))):
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]


def _finished(state: MetaState, store: Store, books: Books) -> Result | None:
    """What a run that has used its budget came to; None while it has not."""
    path = store.out / "result.json"
    if store.fraction(books) < 1 or not path.exists():
        return None
    row = json.loads(path.read_text("utf-8"))
    if row["updates"] != books.updates:
        return None
    store.note(f"{store.out}: already finished, after update {books.updates}")
    row.pop("best_update")
    confirm = row.pop("confirm")
    confirm["families"] = tuple(confirm["families"])
    history = tuple(row.pop("history"))
    theta = state.best if row["chosen"] == "best" else state.start
    kept = {"theta": theta, "last": state.theta, "history": history}
    return Result(confirm=Comparison(**confirm), **kept, **row)


def _learn(
    state: MetaState,
    benches: dict[str, Bench],
    scoring: Scoring,
    sizes: Any,
    config: MetaConfig,
    store: Store,
    books: Books,
    interrupts: Interrupts,
) -> MetaState:
    names, root = list(benches), jax.random.key(config.seed)
    advance = jax.jit(updated, static_argnames="config")
    while store.fraction(books) < 1:
        name = names[books.updates % len(names)]
        work, key = benches[name], jax.random.fold_in(root, books.updates)
        given = (state.theta, state.carries[name], key, sizes)
        gradient, carry, metrics = work.window(*given)
        at = jnp.asarray(store.fraction(books), jnp.float32)
        count = jnp.asarray(books.updates)
        parts = (state.theta, state.start, state.mean, state.opt)
        moved = advance(*parts, gradient, at, count, config=config)
        theta, mean, opt, norm = moved
        carries = {**state.carries, name: carry}
        state = state._replace(theta=theta, mean=mean, opt=opt, carries=carries)
        books.charge(work.flops, work.steps)
        books.updates += 1
        store.line(books, name, metrics, norm)
        if books.updates % config.validate == 0:
            state = _validated(state, scoring, config, store, books)
        if interrupts.caught:
            store.save(state, books)
            raise StoppedError(
                f"{interrupts.caught}: stopped after update {books.updates}; the "
                "same call goes on"
            )
        if store.due():
            store.save(state, books)
    return state


def _validated(
    state: MetaState,
    scoring: Scoring,
    config: MetaConfig,
    store: Store,
    books: Books,
) -> MetaState:
    """Scores theta and its running mean on the seeds of every validation."""
    begun, row = store.now(), {}
    for label, theta in (("theta", state.theta), ("mean", state.mean)):
        scores = _scored(scoring, theta, 0, config.seeds, books)
        found = compare(scores, np.asarray(books.start_scores), _scales(books))
        row[label] = found._asdict()
        if found.mean < books.best_mean:
            books.best_mean, books.best_update = found.mean, books.updates
            state = state._replace(best=theta)
    books.check_seconds = store.now() - begun
    books.history.append({"update": books.updates, **row})
    store.told(books)
    return state


def _ended(
    state: MetaState,
    scoring: Scoring,
    config: MetaConfig,
    store: Store,
    books: Books,
) -> Result:
    """The last validation, then best against start on fresh seeds."""
    last = books.history[-1]["update"] if books.history else 0
    if last < books.updates:
        state = _validated(state, scoring, config, store, books)
    store.save(state, books)
    firsts = (_CONFIRM, _CONFIRM + config.seeds)  # two calls of one program
    fresh = lambda theta: np.concatenate(
        [_scored(scoring, theta, first, config.seeds, books) for first in firsts], 1
    )
    both = fresh(state.best), fresh(state.start)
    confirm = compare(*both, _scales(books))
    chosen = "best" if books.best_update and confirm.better else "start"
    store.clock(books)
    result = Result(
        state.best if chosen == "best" else state.start,
        chosen,
        state.theta,
        confirm,
        books.updates,
        books.inner_steps,
        books.seconds,
        books.core_seconds,
        books.flops,
        tuple(books.history),
    )
    plain = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("theta", "last")
    }
    plain |= {"confirm": confirm._asdict(), "best_update": books.best_update}
    write_json(store.out / "result.json", plain)
    store.note(
        f"{chosen} after {books.updates} updates: {confirm.mean:+.4f} +- "
        f"{confirm.error:.4f} against the start, in e-folds of steps"
    )
    return result


def _scored(
    scoring: Scoring, theta: Any, first: int, seeds: int, books: Books
) -> np.ndarray:
    books.charge(scoring.flops(theta, seeds), 0)
    steps = sum(family.horizon for family in scoring.families)
    books.inner_steps += seeds * steps
    return scoring(theta, first, seeds)


def _scales(books: Books) -> np.ndarray:
    return np.asarray(books.scales)


def _first(theta: Any, benches: dict[str, Bench], config: MetaConfig) -> MetaState:
    root = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
    carries = {
        name: work.init(theta, jax.random.fold_in(root, i))
        for i, (name, work) in enumerate(benches.items())
    }
    copies = (jax.tree.map(jnp.copy, theta) for _ in range(4))
    return MetaState(*copies, adam().init(theta), carries)


def _placed(state: MetaState, mesh: Mesh | None) -> MetaState:
    """Episodes split over the mesh's first axis, the rest on every device."""
    if mesh is None:
        return state
    whole = jax.NamedSharding(mesh, jax.P())
    split = jax.NamedSharding(mesh, jax.P(mesh.axis_names[0]))
    carries = jax.device_put(state.carries, split)
    return jax.device_put(state._replace(carries={}), whole)._replace(carries=carries)


def _checked(theta: Any, tasks: Tasks) -> Any:
    if not jax.tree.leaves(theta):
        raise UserError("theta: there is nothing to learn")
    for path, leaf in jax.tree.leaves_with_path(theta):
        if jnp.asarray(leaf).dtype != jnp.float32:
            raise UserError(f"theta{jax.tree_util.keystr(path)}: must be float32")
        if not math.isfinite(float(jnp.asarray(leaf).sum())):
            raise UserError(f"theta{jax.tree_util.keystr(path)}: must be finite")
    names = [family.name for family in (*tasks.train, *tasks.valid)]
    if not tasks.train or not tasks.valid or len({*names}) < len(names):
        raise UserError(
            "tasks: give families to train and to validate on, each with its own name"
        )
    return jax.tree.map(jnp.asarray, theta)
