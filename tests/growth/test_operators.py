import contextlib
import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.config import OptimConfig
from uets_jax.growth import operators
from uets_jax.growth.operators import (
    Moved,
    came_from,
    carried,
    move_params,
    move_state,
    new_entries,
)
from uets_jax.growth.plan import is_exact, moves
from uets_jax.growth.stages import Op, resized
from uets_jax.models.axes import (
    axes_of,
    hidden_matrix,
    is_matrix,
    layer_axis,
    map_axes,
    names,
    role,
)
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model
from uets_jax.optim.gate import GateSettings, init_theta
from uets_jax.optim.gated import scale_by_gated_rules
from uets_jax.optim.rules import rule
from uets_jax.optim.schedule_free import averaged
from uets_jax.types import Batch

# compiled in a hurry: each of these programs runs but a few times
HURRY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick = functools.partial(jax.jit, compiler_options=HURRY)

SMALL = {
    "vocab": 17,
    "context": 6,
    "depth": 2,
    "width": 8,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 4,
    "hidden": 6,
    "capacity": 0.0,
}
KINDS = {
    "modern": {},
    "gpt2": {},
    "grouped": {"heads": 4, "kv_heads": 2, "tied": True},
    "tables": {"memory_rows": 4, "activation": "swiglu"},
    "backoff": {"backoff_order": 3, "backoff_pairs": 256},
    "routed": {"active_experts": 2},
}
OPS = {
    "identity": Op("depth", 4, "identity"),
    "random": Op("depth", 4, "random"),
    "stack": Op("depth", 4, "stack"),
    "interleave": Op("depth", 4, "interleave"),
    "middle": Op("depth", 4, "middle"),
    "new heads": Op("heads", 4, "new"),
    "split heads": Op("heads", 4, "split"),
    "new units": Op("hidden", 9, "new"),
    "split units": Op("hidden", 9, "split"),
    "twice": Op("width", 16),
    "thrice": Op("width", 24),
    "experts": Op("experts", 3),
    "rows": Op("memory_rows", 8),
}
CHAINS = {
    "chain": ("split heads", "identity", "twice", "split units", "rows"),
    "other chain": ("thrice", "random", "new units", "new heads", "experts"),
}
INEXACT = ("stack", "interleave", "middle")
CASES = {
    "modern": (*OPS,),
    "gpt2": ("identity", "split heads", "split units", "twice"),
    "grouped": ("split heads", "thrice", "other chain"),
    "tables": ("split units", "rows", "chain"),
    "routed": ("experts",),
    "backoff": ("twice", "identity"),
}
PAIRS = [(kind, name) for kind, names in CASES.items() for name in names]
MOMENTS = [
    *(("gpt2", name) for name in ("split heads", "split units", "twice")),
    *(("grouped", name) for name in ("split heads", "thrice")),
    *(("tables", name) for name in ("split units", "rows")),
    *(("modern", name) for name in ("identity", "new heads", "twice", "experts")),
]
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 17, (2, 7)), jnp.int32)
BATCH = Batch(
    TOKENS[:, :-1], TOKENS[:, 1:], jnp.arange(2), jnp.zeros((2, 6), jnp.int32)
)


def architecture(kind):
    preset = kind if kind == "gpt2" else "modern"
    return model_config(preset, "tiny", **{**SMALL, **KINDS[kind]})


def exact(model):
    """The model's functions in float64, past the Literal."""
    model = dataclasses.replace(model)
    object.__setattr__(model, "dtype", "float64")
    return make_model(model)


def attention(q, k, v, **_):
    """Causal and grouped, in the precision of its inputs; jax.nn's is float32."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k) / q.shape[-1] ** 0.5
    causal = jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None]
    p = jax.nn.softmax(jnp.where(causal, scores, -1e30))
    return jnp.einsum("bhlm,bmhk->blhk", p, v)


@contextlib.contextmanager
def double():
    """Float64 throughout."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.nn, "dot_product_attention", attention)
        yield patch


@functools.cache
def drawn(kind):
    """Parameters far from where they begin: no zero hides anything."""
    return noisy(architecture(kind), 0)


@functools.cache
def shapes_of(model):
    return jax.eval_shape(make_model(model).init, jax.random.key(0))


def by_path(tree):
    """The leaves by the names along their paths, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {names(path): np.asarray(x) for path, x in leaves}


def noisy(model, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.4 * rng.normal(size=x.shape), shapes_of(model))


def ops_of(kind, name):
    """The ops of a case for an architecture; those of heads keep its groups."""
    model = architecture(kind)
    for each in CHAINS.get(name, (name,)):
        op = OPS[each]
        if op.field == "heads" and model.kv_heads < model.heads:
            op = dataclasses.replace(op, size=6)
        if op.field == "memory_rows" and not model.memory_rows:
            op = dataclasses.replace(op, size=5)
        yield op


def grown(model, ops, params):
    """(model, params) after ops; what is fresh is drawn, too, but for new tables."""
    params = jax.tree.map(jnp.asarray, params)
    for number, op in enumerate(ops):
        after = resized(model, op)
        fresh = noisy(after, 10 + number)
        if not model.memory_rows and after.memory_rows:
            fresh["memory"] = jax.tree.map(np.zeros_like, fresh["memory"])
        how, key = moves(model, op), jax.random.key(number)
        move = quick(lambda old, new, key, how=how: move_params(how, old, new, key))
        params, model = move(params, fresh, key), after
    return model, params


@functools.cache
def logits(model):
    """The compiled logits of the batch, in float64; one program for each shape."""
    return quick(lambda params: exact(model).logits(params, BATCH.tokens))


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_an_op_keeps_the_function_exactly_or_says_that_it_does_not(kind, name):
    model, params, ops = architecture(kind), drawn(kind), [*ops_of(kind, name)]
    with double():
        old = logits(model)(params)
        after, new = grown(model, ops, params)
        change = float(jnp.abs(logits(after)(new) - old).max())
    told = all(is_exact(op, model) for op in ops)
    assert told == (name not in INEXACT)
    assert change < 1e-9 if told else change > 1e-2


def loss(model, params):
    """Nats per token, from the compiled logits."""
    found = np.asarray(logits(model)(params))
    top = found.max(-1, keepdims=True)
    total = np.log(np.exp(found - top).sum(-1)) + top[..., 0]
    right = np.take_along_axis(found, BATCH.targets[..., None], -1)[..., 0]
    return (total - right).mean()


@functools.cache
def gradient(kind):
    """Of the loss in every parameter, before growth."""
    model = architecture(kind)
    mean = lambda p: exact(model).forward(p, BATCH)[0].mean()
    with double():
        return quick(jax.grad(mean))(drawn(kind))


def directions(move, path, shape, name):
    """Two random ones over the entries whose moments are carried.

    Copies that share the old gradient in unequal parts go the same way.
    """
    rng = np.random.default_rng(3)
    axes, shared = axes_of(path, len(shape)), {"experts": "expert", "rows": "bucket"}
    for _ in range(2):
        d = rng.normal(size=shape)
        if shared.get(name) in axes:
            axis = axes.index(shared[name])
            period = 1 if name == "experts" else shape[axis] // 2
            d = np.take(d, np.arange(shape[axis]) % period, axis)
        yield d * carried(move, shape)


@pytest.mark.parametrize(("kind", "name"), MOMENTS)
def test_moments_move_as_the_gradient_does(kind, name, monkeypatch):
    """The old gradient as first moment and its square as second one, moved, are the
    gradient of the grown model and its square; that is measured by differences.
    """
    monkeypatch.setattr(operators, "NOISE", 0.0)  # copies stand for the same function
    monkeypatch.setattr(operators, "LEAST_NOISE", 0.0)
    model, params, [op] = architecture(kind), drawn(kind), ops_of(kind, name)
    how, h = moves(model, op), 1e-5
    with double():
        old = jax.device_get(gradient(kind))
        after, new = grown(model, [op], params)
        state = optax.ScaleByAdamState(np.int32(7), old, jax.tree.map(np.square, old))
        moved = moved_state(model, op, state, optax.scale_by_adam(), params, new)
        assert not moved.begun
    new = jax.device_get(new)
    first, second = by_path(moved.state.mu), by_path(moved.state.nu)
    for path, leaf in by_path(new).items():
        if how[path].old is None:
            assert not first[path].any()
            assert not second[path].any()
            continue
        kept = carried(how[path], leaf.shape)
        for d in directions(how[path], path, leaf.shape, name):
            with double():
                ends = [loss(after, shifted(new, path, x * d)) for x in (h, -h)]
            guess, slope = (first[path] * d).sum(), np.subtract(*ends) / (2 * h)
            assert slope == pytest.approx(guess, rel=1e-5, abs=1e-9)
        squares = np.square(first[path])[kept]
        np.testing.assert_allclose(second[path][kept], squares, rtol=1e-9)
        assert not first[path][~kept].any()
        if not kept.all():
            fill = np.unique(second[path][~kept])
            np.testing.assert_allclose(fill, second[path][kept].mean(), rtol=1e-9)


def shifted(tree, at, by):
    """The tree with one leaf moved."""
    move = lambda path, x: x + by if names(path) == at else x
    return jax.tree_util.tree_map_with_path(move, tree)


def moved_state(model, op, state, tx, params, new, **how):
    """What `grow` does with an optimizer's state."""
    after, ways, begun = resized(model, op), moves(model, op), []
    had, have = by_path(params), by_path(new)
    shapes = {
        path: (had[move.old].shape if move.old else None, have[path].shape)
        for path, move in ways.items()
    }

    def move(state, new):
        depths = (model.depth, after.depth)
        found = move_state(ways, depths, state, tx.init(new), shapes, **how)
        begun.extend(found.begun)
        return found.state

    return Moved(quick(move)(state, new), tuple(begun))


def test_of_four_copies_of_the_stream_no_two_are_read_alike():
    model, op = architecture("modern"), Op("width", 32)
    _, new = grown(model, [op], noisy(model, 0))
    old = by_path(noisy(model, 0))
    for leaf in ("query", "key", "value"):
        path = ("blocks", "attention", leaf, "w")
        copies = np.split(by_path(new)[path], 4, axis=1)
        np.testing.assert_allclose(sum(copies), old[path], rtol=1e-5, atol=1e-6)
        for one, other in itertools.combinations(copies, 2):
            assert np.abs(one - other).min(axis=(2, 3)).max() > 1e-3


# optimizers


def by_room(params):
    """Blocks apart from the rest."""
    label = lambda path, x: "in" if "blocks" in names(path) else "out"
    return jax.tree_util.tree_map_with_path(label, params)


def of_rule(name):
    """A rule of this house."""
    of = lambda kind: functools.partial(map_axes, kind)
    return rule(OptimConfig(name=name), of(hidden_matrix), of(is_matrix))


def gated(**changes):
    """A gated rule with a first theta."""
    s, of = GateSettings(**changes), lambda fn: functools.partial(map_axes, fn)
    about = {"matrices": of(hidden_matrix), "decayed": of(is_matrix)}
    about |= {"layer_axis": of(layer_axis), "roles": of(role)}
    theta = init_theta(jax.random.key(0), s)
    return scale_by_gated_rules(theta, **about, settings=s)


OPTIMIZERS = {
    "gated": gated,
    "gated in steps": lambda: gated(every=4),
    "adamw": lambda: optax.adamw(1e-2),
    "lion": lambda: optax.lion(1e-2),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "own adamw": lambda: of_rule("adamw"),
    "own muon": lambda: of_rule("muon"),
    "own normuon": lambda: of_rule("normuon"),
    "own sgd": lambda: of_rule("sgd"),
    "own rmsprop": lambda: of_rule("rmsprop"),
    "partition": lambda: optax.partition(
        {"in": optax.adam(1e-2), "out": optax.sgd(1e-2, momentum=0.9)}, by_room
    ),
    "multi_transform": lambda: optax.multi_transform(
        {"in": optax.rmsprop(1e-2), "out": optax.set_to_zero()}, by_room
    ),
    "masked": lambda: optax.masked(optax.adam(1e-2), lambda p: map_axes(is_matrix, p)),
    "injected": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.trace(0.9), optax.scale(-1e-2)),
    "in steps": lambda: optax.MultiSteps(optax.adam(1e-2), 4).gradient_transformation(),
}


def filled(state):
    """A state as after some steps: every number drawn, counts at 7."""
    rng = np.random.default_rng(5)

    def fill(x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(np.full(x.shape, 7, x.dtype))
        return jnp.asarray(rng.uniform(1, 2, x.shape), x.dtype)

    return jax.tree.map(fill, state)


def moved_by(tx, name, **how):
    """(old state, moved state, template) of the modern model."""
    model, op = architecture("modern"), OPS[name]
    params, after = noisy(model, 0), noisy(resized(model, op), 1)
    old = filled(jax.eval_shape(tx.init, shapes_of(model)))
    template = jax.eval_shape(tx.init, shapes_of(resized(model, op)))
    return old, moved_state(model, op, old, tx, params, after, **how), template


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_as_it_was(name):
    old, found, template = moved_by(OPTIMIZERS[name](), "identity")
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    assert not found.begun
    had, grew = by_path(old), 0
    for path, new in by_path(found.state).items():
        was = had[path]
        if was.shape == new.shape:
            np.testing.assert_array_equal(new, was)
            continue
        grew += 1
        np.testing.assert_array_equal(new[:2], was)
        squares = {"nu", "nu_max", "second"} & set(path)
        fill = np.mean(was) if squares else 0.0
        np.testing.assert_allclose(new[2:], np.full_like(new[2:], fill), rtol=1e-6)
    assert grew >= 8


@pytest.mark.parametrize("name", OPS)
def test_nothing_of_a_gated_rule_begins_anew(name):
    _, found, template = moved_by(gated(every=4), name)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    assert not found.begun


def test_a_layer_of_a_gate_is_fresh_or_a_copy():
    for name, fresh in (("identity", True), ("stack", False)):
        old, found, _ = moved_by(gated(every=4), name)
        had, new = by_path(old), by_path(found.state)
        for field in ("hidden", "held", "first", "start"):
            path = (field, "blocks", "mlp", "up", "w")
            rest = np.zeros_like(had[path]) if fresh else had[path]
            np.testing.assert_array_equal(new[path][:2], had[path])
            np.testing.assert_array_equal(new[path][2:], rest)


def test_experts_take_over_what_the_gate_knew_of_the_mlp():
    old, found, _ = moved_by(gated(), "experts")
    had, new = by_path(old), by_path(found.state)
    for leaf in ("up", "down"):
        where = ("hidden", "blocks", "experts", leaf, "w")
        was = ("hidden", "blocks", "mlp", leaf, "w")
        np.testing.assert_array_equal(new[where], had[was])


@pytest.mark.parametrize("name", ["identity", "split units", "new heads", "twice"])
def test_an_average_moves_as_the_parameters_do(name, monkeypatch):
    """Iterate and average of schedule-free are moved parameters themselves."""
    monkeypatch.setattr(operators, "NOISE", 0.0)
    monkeypatch.setattr(operators, "LEAST_NOISE", 0.0)
    model, op, read = architecture("modern"), OPS[name], averaged(0.9)
    tx, params = of_rule("schedule_free"), jax.tree.map(jnp.float32, noisy(model, 0))
    old = filled(jax.eval_shape(tx.init, shapes_of(model)))
    _, new = grown(model, [op], params)
    found = moved_state(model, op, old, tx, params, new)
    assert not found.begun
    _, expected = grown(model, [op], read(params, old))
    seen = 0
    for path, x in by_path(read(new, found.state)).items():
        from_old = came_from(moves(model, op)[path], x.shape)
        known = np.where(from_old, by_path(expected)[path], by_path(new)[path])
        np.testing.assert_allclose(x, known, rtol=1e-5, atol=1e-6)
        seen += int(not from_old.all())
    assert bool(seen) == (name in ("identity", "new heads"))


@pytest.mark.parametrize("name", ["split units", "new heads", "twice", "experts"])
def test_mean_squares_of_neurons_follow_the_neurons(name):
    """Whatever happens to the inputs, over which they are means."""
    old, found, template = moved_by(of_rule("normuon"), name)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    assert not found.begun
    had, new = by_path(old), by_path(found.state)
    ways, looked = moves(architecture("modern"), OPS[name]), 0
    for path, leaf in new.items():
        end = next((path[i:] for i in range(len(path)) if path[i:] in ways), ())
        prefix = path[: len(path) - len(end)]
        if "muon" not in prefix or prefix[-1] != "nu" or ways[end].old is None:
            continue
        was = had[(*prefix, *ways[end].old)]
        kept = set(was.ravel())
        filled_in = {x for x in leaf.ravel() if x not in kept}
        assert len(filled_in) == (name == "new heads" and was.shape != leaf.shape)
        looked += 1
    assert looked >= 4


def bases(model):
    """Paths of SOAP's factors and bases of a model whose shapes are all apart."""
    state = jax.eval_shape(of_rule("soap").init, shapes_of(model))
    return {path: x.shape for path, x in by_shape(state).items() if "sides" in path}


def by_shape(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {names(path): x for path, x in leaves}


@pytest.mark.parametrize("name", ["identity", "stack", "new units", "twice"])
def test_bases_that_do_not_fit_begin_anew_and_are_named(name):
    old, found, template = moved_by(of_rule("soap"), name)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    model = architecture("modern")
    before, after = bases(model), bases(resized(model, OPS[name]))
    changed = {p for p in after if before[p][1:] != after[p][1:]}
    assert set(found.begun) == {"/".join(p) for p in changed}
    assert bool(changed) == (name in ("new units", "twice"))
    had, new = by_path(old), by_path(found.state)
    for path in after.keys() - changed:
        np.testing.assert_array_equal(new[path][:2], had[path])
    for path in changed:
        zero = np.zeros(after[path])
        square = np.broadcast_to(np.eye(zero.shape[-1]), zero.shape)
        is_basis = path[-1].endswith("basis")
        np.testing.assert_array_equal(new[path], square if is_basis else zero)


@pytest.mark.parametrize("name", ["identity", "new units"])
def test_matrices_that_begin_anew_stand_still_for_one_step(name):
    model, tx = architecture("modern"), of_rule("soap")
    op, params = OPS[name], noisy(model, 0)
    state, update = quick(tx.init)(params), quick(tx.update)
    for seed in range(2):
        _, state = update(noisy(model, seed), state, params)
    after, new = grown(model, [op], params)
    state = moved_state(model, op, state, tx, params, new).state
    up, zero = [], jnp.zeros(())
    for seed in range(2):
        given = noisy(after, seed), state, new
        step, state = quick(tx.update)(*given, weight_decay=zero)
        chex.assert_tree_all_finite(step)
        w = step["blocks"]["mlp"]["up"]["w"]
        up.append(np.abs(w).max((1, 2)) > 0)
    still = [False, False] if name == "new units" else [True, True, False, False]
    assert up[0].tolist() == still
    assert up[1].all()


def test_a_template_leaves_second_moments_at_zero():
    _, found, _ = moved_by(optax.adam(1e-2), "new units", moments="template")
    up = found.state[0].nu["blocks"]["mlp"]["up"]["w"]
    assert np.all(up[..., :6] >= 1)
    assert not np.any(up[..., 6:])


def test_what_a_factored_optimizer_cannot_carry_is_named():
    tx = optax.adafactor(1e-2, min_dim_size_to_factor=4)
    old, found, template = moved_by(tx, "identity")
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    norms = ("attention/key_norm", "attention/query_norm", "attention_norm", "mlp_norm")
    fields = ("v", "v_col", "v_row")  # with four layers these leaves are factored, too
    named = {f"{f}/blocks/{norm}/scale" for norm in norms for f in fields}
    assert {leaf.partition("/")[2] for leaf in found.begun} == named
    rows = lambda state: state[0].v_row["blocks"]["attention"]["query"]["w"]
    np.testing.assert_array_equal(rows(found.state)[:2], rows(old))
    np.testing.assert_allclose(rows(found.state)[2:].ravel(), np.mean(rows(old)), 1e-6)


def by_layer():
    """Keeps something for each layer, under parameters' paths and without one."""

    def init(params):
        blocks = params["blocks"]
        each = lambda x: jnp.zeros((x.shape[0], 8))
        depth = jax.tree.leaves(blocks)[0].shape[0]
        return {
            "seen": jnp.zeros((), jnp.int32),
            "each": {"blocks": jax.tree.map(each, blocks)},
            "trust": jnp.zeros(depth),
            "pairs": jnp.zeros((depth, depth)),
        }

    update = lambda updates, state, params=None: (updates, state)
    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("name", ["identity", "stack"])
def test_what_is_kept_for_each_layer_moves_along_the_layers(name):
    old, found, template = moved_by(by_layer(), name)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, template)
    assert found.begun == ("pairs",)
    assert int(found.state["seen"]) == 7
    had, new = by_path(old), by_path(found.state)
    for path in [("trust",), ("each", "blocks", "mlp", "up", "w")]:
        np.testing.assert_array_equal(new[path][:2], had[path])
        rest = had[path] if name == "stack" else np.zeros_like(had[path])
        np.testing.assert_array_equal(new[path][2:], rest)


def test_a_state_of_no_known_shape_begins_anew_and_is_named():
    tx = optax.GradientTransformation(
        lambda params: {
            "heads": jnp.zeros(params["blocks"]["attention"]["output"]["w"].shape[1])
        },
        lambda updates, state, params=None: (updates, state),
    )
    _, found, _ = moved_by(tx, "new heads")
    assert found.begun == ("heads",)
    assert not np.any(found.state["heads"])


# what is new learns, and copies part


@functools.cache
def slopes(model):
    loss = lambda params: make_model(model).forward(params, BATCH)[0].mean()
    return quick(jax.grad(loss))


@functools.cache
def trained(name, optimizer):
    """(moves, both gradients, parameters after) of two steps on a grown model."""
    model, params, [op] = (
        architecture("modern"),
        noisy(architecture("modern"), 0),
        ops_of("modern", name),
    )
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    tx = of_rule(optimizer)
    after, new = grown(model, [op], params)
    state = moved_state(model, op, quick(tx.init)(params), tx, params, new).state
    gradients = []

    @quick
    def update(slope, state, params):
        updates, state = tx.update(slope, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(2):
        gradients.append(slopes(after)(new))
        new, state = update(gradients[-1], state, new)
    return moves(model, op), list(map(by_path, gradients)), by_path(new)


NEW = ("identity", "random", "new heads", "new units", "split heads", "experts", "rows")


@pytest.mark.parametrize("name", NEW)
def test_everything_new_has_a_gradient_within_two_steps(name):
    how, gradients, new = trained(name, "adamw")
    looked = 0
    for path, leaf in new.items():
        size = sum(np.abs(g[path]) for g in gradients)
        for axis, flags in enumerate(new_entries(how[path], leaf.shape)):
            if path[0] == "memory":
                assert size.any()
                looked += 1
                continue
            each = np.moveaxis(size, axis, 0).reshape(len(flags), -1).max(1)
            assert (each[flags > 0] > 0).all(), (path, axis)
            looked += int(flags.sum())
    assert looked


# leaf, its axis, one entry, its copy
COPIES = {
    "split heads": [(f"attention/{n}/w", 2, 0, 2) for n in ("query", "key", "value")],
    "split units": [("mlp/up/w", 2, 0, 6)],
    "twice": [("attention/query/w", 1, 0, 8), ("mlp/down/w", 2, 0, 8)],
    "identity": [("mlp/down/w", 0, 2, 3)],
    "experts": [("experts/up/w", 1, 0, 1)],
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", COPIES)
def test_copies_part_within_two_steps(name, optimizer):
    _, _, new = trained(name, optimizer)
    for leaf, axis, one, other in COPIES[name]:
        w = np.moveaxis(np.asarray(new["blocks", *leaf.split("/")]), axis, 0)
        assert np.abs(w[one] - w[other]).max() > 1e-4, leaf
