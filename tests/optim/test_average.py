import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.build import build, hypers
from uets_jax.config import replace_from_dict
from uets_jax.errors import UserError
from uets_jax.growth.grow import begun_anew, grow
from uets_jax.growth.operators import by_path
from uets_jax.growth.stages import Op, resized
from uets_jax.optim.average import WIDEST, average, averaged, exponent
from uets_jax.step import evaluated, init_state, train_step
from uets_jax.train.mesh import abstract_state, make_mesh
from uets_jax.validation import validate

WIDTH = 0.15
PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": {"w": jnp.ones((2, 2))}, "c": None}


def draw(seed, like=PARAMS):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), like)


def chained(width=WIDTH):
    return optax.chain(optax.sgd(0.1), average(width))


def walk(tx, steps, params=PARAMS):
    """Parameters after each step, and the last state."""
    state, seen, update = tx.init(params), [params], jax.jit(tx.update)
    for seed in range(steps):
        updates, state = update(draw(seed, params), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state


def by_hand(points, gamma):
    """The mean written out as the paper has it: a loop in NumPy, float64."""
    found = np.zeros_like(points[0])
    for t, point in enumerate(points, 1):
        beta = (1 - 1 / t) ** (gamma + 1)
        found = beta * found + (1 - beta) * point
    return found


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2, WIDEST])
def test_the_window_has_the_width_that_was_asked_for(width):
    """Weights that the recursion gives each of 3,000 steps, by NumPy."""
    gamma, steps = exponent(width), 3000
    weights = np.zeros(steps)
    for t in range(1, steps + 1):
        beta = (1 - 1 / t) ** (gamma + 1)
        weights[: t - 1] *= beta
        weights[t - 1] = 1 - beta
    place = np.arange(1, steps + 1) / steps
    mean = weights @ place
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt(weights @ (place - mean) ** 2) == pytest.approx(width, rel=5e-3)


def test_exponents_are_those_of_the_paper():
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)
    assert exponent(WIDEST) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_other_widths_are_refused(width):
    with pytest.raises(UserError, match="give a width above 0"):
        average(width)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_average_is_the_mean_by_hand(steps):
    seen, state = walk(chained(), steps)
    read = jax.jit(averaged(WIDTH))(seen[-1], state)
    for name, get in (("a", lambda p: p["a"]), ("w", lambda p: p["b"]["w"])):
        points = [np.asarray(get(p), np.float64) for p in seen[1:]]
        expected = by_hand(points, exponent(WIDTH))
        np.testing.assert_allclose(get(read), expected, rtol=1e-5, err_msg=name)
    assert read["c"] is None
    chex.assert_trees_all_equal(walk(optax.sgd(0.1), steps)[0], seen)


def test_before_and_after_the_first_step_it_is_the_parameters():
    for steps in (0, 1):
        seen, state = walk(chained(), steps)
        chex.assert_trees_all_equal(averaged(WIDTH)(seen[-1], state), seen[-1])


def test_the_widest_is_the_plain_mean():
    seen, state = walk(chained(WIDEST), 7)
    mean = np.mean([p["a"] for p in seen[1:]], axis=0)
    found = averaged(WIDEST)(seen[-1], state)["a"]
    np.testing.assert_allclose(found, mean, rtol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx, lambda p: jax.tree.map(lambda _: True, p)),
        lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
        lambda tx: optax.chain(tx, optax.scale(1.0)),
        lambda tx: optax.inject_hyperparams(lambda s: optax.chain(tx, optax.scale(s)))(
            1.0
        ),
    ],
)
def test_the_average_is_found_wherever_the_state_is(wrap):
    (*_, last), state = walk(wrap(chained()), 4)
    (*_, expected), plain = walk(chained(), 4)
    read = averaged(WIDTH)
    chex.assert_trees_all_close(read(last, state), read(expected, plain), rtol=1e-6)


def test_of_several_small_steps_the_whole_one_counts():
    seen, state = walk(optax.MultiSteps(chained(), 2).gradient_transformation(), 6)
    points = [np.asarray(p["a"], np.float64) for p in seen[2::2]]
    found = averaged(WIDTH)(seen[-1], state)["a"]
    np.testing.assert_allclose(found, by_hand(points, exponent(WIDTH)), rtol=1e-5)


def test_bfloat16_parameters_have_a_float32_average():
    low = {"a": jnp.ones(3, jnp.bfloat16)}
    seen, state = walk(chained(), 3, low)
    assert state[1].average["a"].dtype == jnp.float32
    assert averaged(WIDTH)(seen[-1], state)["a"].dtype == jnp.bfloat16
    assert walk(chained(), 1, {})[0] == [{}, {}]


def test_update_needs_params():
    with pytest.raises(ValueError, match="average: update needs `params`"):
        average().update(PARAMS, average().init(PARAMS))


# in a program


def of(config, **changes):
    return replace_from_dict(config, {"optim": {"average": WIDTH}, **changes})


def steps_of(config, program, batch, count):
    state = jax.jit(lambda: init_state(program, hypers(config), 0))()
    step, seen = jax.jit(lambda s: train_step(program, s, batch)[0]), []
    for _ in range(count):
        state = step(state)
        seen.append(state.params)
    return state, seen


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_program_evaluates_what_its_parameters_were(frozen, tiny, batch):
    """Frozen blocks, whose updates are set to 0 after the rule, stand still in it."""
    config = of(tiny, model={"frozen": frozen})
    state, seen = steps_of(config, build(config), batch, 4)
    found, begun = evaluated(build(config), state), seen[0]
    up = lambda p: np.asarray(p["blocks"]["mlp"]["up"]["w"], np.float64)
    expected = by_hand([up(p) for p in seen], exponent(WIDTH))
    np.testing.assert_allclose(up(found), expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(up(found)[:frozen], up(begun)[:frozen])
    plain = replace_from_dict(config, {"optim": {"average": 0.0}})
    chex.assert_trees_all_equal(seen, steps_of(plain, build(plain), batch, 4)[1])


@pytest.mark.parametrize("name", ["muon", "learned", "soap"])
def test_every_rule_has_it(name, tiny):
    config = replace_from_dict(tiny, {"optim": {"name": name, "average": WIDTH}})
    program, mesh = build(config), make_mesh(config.train.mesh)
    opt = abstract_state(program, mesh).opt
    params = abstract_state(program, mesh).params
    chex.assert_trees_all_equal_shapes_and_dtypes(opt[-1].average, params)
    assert program.averaged is not None


def test_own_rules_have_it_and_an_own_reading_wins(tiny):
    own, read = {"tx": optax.sgd(0.1)}, lambda params, opt: params
    assert build(tiny, own).averaged is None
    assert build(of(tiny), own).averaged is not None
    assert build(of(tiny), {"averaged": read}).averaged is read


def test_the_average_is_split_as_the_parameters_are(tiny):
    config = of(tiny, train={"mesh": {"data": 2, "fsdp": 2, "tensor": 2}})
    state = abstract_state(build(config), make_mesh(config.train.mesh))
    for p, a in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(state.opt[-1]), strict=False
    ):
        if a.shape == p.shape and a.ndim:
            assert a.sharding == p.sharding
    where = lambda tree: jax.tree.map(lambda x: x.sharding, tree)
    assert where(state.opt[-1].average) == where(state.params)


# growth


@pytest.mark.parametrize(
    "op", [Op("heads", 4, "new"), Op("hidden", 136, "split"), Op("depth", 3)], ids=str
)
def test_an_average_grows_with_the_parameters(op, tiny, batch):
    """What it was behind moves along, what is fresh is the new parameter's; so the
    function of the average is kept, too.
    """
    config = of(tiny, growth={"method": "fixed", "plan": "depth=3:0.5"})
    program = build(config)
    state, _ = steps_of(config, program, batch, 3)
    after = jax.jit(lambda s: grow(config, s, [op])[1])(state)
    larger = build(dataclasses.replace(config, model=resized(config.model, op)))
    losses = lambda program, state: jax.jit(program.forward)(
        evaluated(program, state), batch
    )[0]
    before = losses(program, state)
    np.testing.assert_allclose(losses(larger, after), before, rtol=1e-5, atol=1e-5)
    assert begun_anew(config, [op]) == ()
    assert int(after.opt[-1].count) == 3
    new, held = by_path(after.params), by_path(after.opt[-1].average)
    path = ("blocks", "attention", "query", "w")
    assert (held[path][:2, :, :2] != new[path][:2, :, :2]).any()
    if op.field == "heads":
        np.testing.assert_array_equal(held[path][:, :, 2:], new[path][:, :, 2:])


# refusals


def test_what_can_not_be_averaged_is_one_clear_line(tiny):
    validate(of(tiny))
    for optim, told in (
        ({"average": 0.29}, r"optim\.average: must be at most 0\.288"),
        (
            {"average": 0.1, "name": "schedule_free", "schedule": "constant"},
            r"optim\.average: schedule_free has an average of its own",
        ),
    ):
        with pytest.raises(UserError, match=told):
            validate(replace_from_dict(tiny, {"optim": optim}))


def test_what_a_mask_leaves_out_is_read_as_it_is():
    own = {"a": True, "b": {"w": False}, "c": None}
    tx = optax.masked(chained(), own)
    seen, state = walk(tx, 12, {"a": PARAMS["a"], "b": PARAMS["b"], "c": None})
    found = averaged(WIDTH)(seen[-1], state)
    expected = by_hand([np.asarray(p["a"]) for p in seen[1:]], exponent(WIDTH))
    np.testing.assert_allclose(found["a"], expected, rtol=1e-5)
    chex.assert_trees_all_equal(found["b"], seen[-1]["b"])


@pytest.mark.parametrize("op", [Op("memory_rows", 32), Op("depth", 3)])
def test_tables_that_are_not_trained_have_no_average_and_grow(op, tiny):
    changes = {"memory_rows": 16, "memory_trained": False}
    config = replace_from_dict(
        tiny,
        {"model": changes, "optim": {"average": WIDTH}, "train": {"start": "counts"}},
    )
    program = build(config)
    begun = jax.jit(lambda: init_state(program, hypers(config), 0))()
    rows = jnp.ones((16, config.model.width))
    params = {
        **begun.params,
        "memory": {n: {"table": rows} for n in ("bigram", "trigram")},
    }
    begun = begun._replace(params=params)
    leaves = {x.shape for x in jax.tree.leaves(begun.opt)}
    assert rows.shape not in leaves
    after, grown = grow(config, begun, [op])
    model = resized(config.model, op)
    assert after.model == model
    like = jax.eval_shape(lambda: init_state(build(after), hypers(after), 0))
    chex.assert_trees_all_equal_shapes_and_dtypes(grown, like)
    read = evaluated(build(after), grown)
    assert read["memory"]["bigram"]["table"].shape[0] == model.memory_rows
    assert read["memory"]["bigram"]["table"].all()
