import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.measure.jaxpr import count
from uets_jax.measure.scopes import branch
from uets_jax.types import IGNORED
from uets_jax.uncertainty.evidence import log_marginal_likelihood
from uets_jax.uncertainty.laplace import (
    REFRESH,
    LaplaceConfig,
    bald,
    laplace,
    leverage,
    levers,
    mean_field,
    predictive_variance,
)

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    """Each test draws from the start."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def draw(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def given(features, collision, mask=None, losses=None):
    """The inputs of `apply` for some features; all losses 1 unless given."""
    mask = jnp.ones(collision.shape, bool) if mask is None else mask
    targets = jnp.where(mask, 3, IGNORED)
    losses = jnp.ones(collision.shape) if losses is None else losses
    return features, losses, collision, targets


def one_call(config, features, collision, mask=None, head=None):
    part = laplace(config)
    return part.apply(part.init(None), *given(features, collision, mask), head)[1]


def test_it_is_the_posterior_of_bayesian_linear_regression():
    d, sigma, tau = 6, 0.5, 2.0
    x, new = draw(4, 10, d), draw(7, d)
    # one output whose curvature 1 - sum p^2 is 1 / sigma^2
    state = one_call(
        LaplaceConfig(d, 1, tau=tau, every=1), x, jnp.full((4, 10), 1 - 1 / sigma**2)
    )
    rows, points = np.asarray(x, np.float64).reshape(-1, d), np.asarray(new, np.float64)
    hat = points @ np.linalg.solve(rows.T @ rows + tau * sigma**2 * np.eye(d), points.T)
    precision = rows.T @ rows / sigma**2 + tau * np.eye(d)
    variance = np.diag(points @ np.linalg.solve(precision, points.T))
    np.testing.assert_allclose(leverage(state, new), np.diag(hat), rtol=1e-4)
    np.testing.assert_allclose(predictive_variance(state, new), variance, rtol=1e-4)


def softmax_model(d=16, v=128, n=256, spread=0.3):
    """Features of a head, 2,048 weights or as said, and its probabilities."""
    w, phi = draw(d, v, scale=spread), draw(n, d) @ draw(d, d, scale=d**-0.5)
    return phi, jax.nn.softmax(phi @ w)


def dense_variance(phi, p, tau, new):
    """Mean over outputs of the logits' variance under the dense GGN, [m]."""
    (n, d), v = phi.shape, p.shape[1]
    inner = jnp.einsum("ni,nj->ijn", phi, phi).reshape(-1, n)
    outer = jnp.einsum("nv,vw->nvw", p, jnp.eye(v)) - jnp.einsum("nv,nw->nvw", p, p)
    curvature = (inner @ outer.reshape(n, -1)).reshape(d, d, v, v).swapaxes(1, 2)
    matrix = np.asarray(curvature, np.float64).reshape(d * v, d * v)
    covariance = np.linalg.inv(matrix + tau * np.eye(d * v)).reshape(d, v, d, v)
    return np.einsum("mi,ivjv,mj->m", new, covariance, new) / v


def rank_correlation(a, b):
    rank = lambda x: np.argsort(np.argsort(np.asarray(x)))
    return np.corrcoef(rank(a), rank(b))[0, 1]


def test_it_equals_the_dense_ggn_where_probabilities_are_shared():
    """Exact: of one shared uniform p, on the V - 1 directions that p - y can take."""
    d, v, tau = 8, 32, 3.0
    phi, new = draw(40, d), draw(9, d)
    uniform = jnp.full((40, v), 1 / v)
    collision = (uniform * uniform).sum(1).reshape(4, 10)
    state = one_call(
        LaplaceConfig(d, v, tau=tau, every=1), phi.reshape(4, 10, d), collision
    )
    # diag p - p p^T = (I - 1 1^T / V) / V: eigenvalue 1 / V, but 0 along the ones.
    # b is the mean of the diagonal, (1 - 1 / V) / V, so n is scaled to compare.
    scaled = jnp.sqrt(1 - 1 / v) * phi
    dense = dense_variance(scaled, uniform, tau, new)
    along = (new * new).sum(1) / tau  # the prior alone, in 1 of V directions
    ours = ((v - 1) * predictive_variance(state, new) + along) / v
    np.testing.assert_allclose(ours, dense, rtol=1e-4)


def test_it_ranks_as_the_dense_ggn_of_a_softmax_head_does():
    phi, p = softmax_model()
    new = draw(200, 16) * jnp.exp(draw(200, 1, scale=0.5))
    state = one_call(
        LaplaceConfig(16, 128, tau=1.0, every=1),
        phi.reshape(4, 64, 16),
        (p * p).sum(1).reshape(4, 64),
    )
    dense = dense_variance(phi, p, 1.0, new)
    ours = predictive_variance(state, new)
    assert rank_correlation(dense, ours) > 0.995
    ratio = np.asarray(ours) / dense  # 0.96 on average
    assert 0.85 < ratio.min() < ratio.max() < 1.02


def test_bald_is_the_information_of_samples_of_the_posterior(key):
    z, variance = draw(5, 8), jnp.float32([0.001, 0.01, 0.03, 0.05, 0.08])
    p = jax.nn.softmax(z)
    noise = jax.random.normal(key, (200_000, 5, 8))
    samples = z[None] + jnp.sqrt(variance)[None, :, None] * noise
    drawn = jax.nn.softmax(samples)
    entropy = lambda q: -(q * jnp.log(q)).sum(-1)
    exact = entropy(drawn.mean(0)) - entropy(drawn).mean(0)
    found = bald(variance, (p * p).sum(-1))
    np.testing.assert_allclose(found, exact, rtol=0.1)


def test_mean_field_is_the_mean_of_samples(key):
    z, variance = draw(4, 2), jnp.float32([0.1, 0.5, 1.0, 2.0])
    noise = jax.random.normal(key, (100_000, 4, 2))
    drawn = z[None] + jnp.sqrt(variance)[None, :, None] * noise
    exact = jax.nn.softmax(drawn).mean(0)
    # two outputs: their difference has twice the variance of each
    found = mean_field(z, 2 * variance)
    np.testing.assert_allclose(found, exact, atol=0.01)
    np.testing.assert_allclose(
        mean_field(z, 0 * variance), jax.nn.softmax(z), rtol=1e-6
    )


def test_averages_are_those_of_the_tokens_weighted_by_age():
    d, decay = 4, 0.7
    part = laplace(LaplaceConfig(d, 9, decay=decay, every=3))
    state, calls = part.init(None), []
    for _ in range(5):
        x, c = draw(2, 12, d), jnp.asarray(RNG.uniform(size=(2, 12)), jnp.float32)
        mask = jnp.asarray(RNG.uniform(size=(2, 12)) < 0.6)
        losses = jnp.asarray(RNG.uniform(size=(2, 12)), jnp.float32)
        _, state = part.apply(state, *given(x, c, mask, losses))
        kept = np.asarray(mask)[:, 2::3]
        thin = lambda a, kept=kept: np.asarray(a)[:, 2::3][kept]
        calls.append((thin(x), thin(c), thin(losses), mask))
    ages = np.concatenate(
        [[decay ** (4 - i)] * len(x) for i, (x, *_) in enumerate(calls)]
    )
    x, c, losses = (np.concatenate([call[i] for call in calls]) for i in range(3))
    expected = (ages[:, None] * x).T @ x / ages.sum()
    np.testing.assert_allclose(state.second, expected, rtol=1e-4, atol=1e-5)
    mean = lambda x: pytest.approx(ages @ x / ages.sum() / 9, rel=1e-4)
    assert float(state.curvature) == mean(1 - c)
    assert float(state.error) == mean(c - 2 * np.exp(-losses) + 1)
    assert float(state.tokens) == sum(int(mask.sum()) for *_, mask in calls)


def test_a_call_without_targets_changes_no_average():
    config, x = LaplaceConfig(4, 9, every=2), draw(2, 8, 4)
    part, c = laplace(config), jnp.full((2, 8), 0.5)
    before = one_call(config, x, c)
    nothing = jnp.zeros((2, 8), bool)
    _, after = part.apply(before, *given(100 * x, 0 * c, nothing))
    kept = lambda s: (s.second, s.curvature, s.error, s.tokens)
    for old, new in zip(kept(before), kept(after), strict=True):
        np.testing.assert_array_equal(old, new)
    empty = one_call(config, x, c, nothing)
    assert all(jnp.isfinite(leaf).all() for leaf in empty)


def test_tokens_that_are_not_finite_do_not_count():
    config, x, c = LaplaceConfig(4, 9, every=1), draw(2, 8, 4), jnp.full((2, 8), 0.5)
    losses, whole = jnp.ones((2, 8)), jnp.arange(16).reshape(2, 8) > 2
    part = laplace(config)
    broken = given(x.at[0, 0, 2].set(jnp.nan), c.at[0, 1].set(jnp.inf), None, losses)
    broken = (*broken[:1], losses.at[0, 2].set(jnp.nan), *broken[2:])
    found = part.apply(part.init(None), *broken)[1]
    expected = part.apply(part.init(None), *given(x, c, whole))[1]
    assert (found.mass, found.tokens) == (13, 16)
    for name in ("second", "curvature", "error"):
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("scale", [jnp.nan, jnp.inf, 1e30])
def test_a_forward_that_went_wrong_leaves_no_trace(scale):
    config, c = LaplaceConfig(4, 9, every=1, refresh=1), jnp.full((2, 8), 0.5)
    before = one_call(config, draw(2, 8, 4), c, head=draw(4, 9))
    wrong = given(scale * draw(2, 8, 4), c), scale * draw(4, 9)
    metrics, after = laplace(config).apply(before, *wrong[0], wrong[1])
    for name in ("second", "curvature", "error", "tokens"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert all(jnp.isfinite(leaf).all() for leaf in (*after, *metrics.values()))


def test_the_count_of_tokens_is_capped():
    config = LaplaceConfig(4, 9, every=1, cap=50.0)
    part = laplace(config)
    state = part.init(None)
    for _ in range(8):
        seen = given(draw(2, 8, 4), jnp.full((2, 8), 0.5))
        state = part.apply(state, *seen)[1]
    assert float(state.tokens) == 50


def test_a_dead_direction_keeps_the_variance_of_the_prior():
    tau, x = 2.0, draw(4, 32, 5).at[..., 3].set(0.0)
    state = one_call(LaplaceConfig(5, 9, tau=tau, every=1), x, jnp.full((4, 32), 0.3))
    found = predictive_variance(state, jnp.eye(5))
    assert float(found[3]) == pytest.approx(1 / tau, rel=1e-4)
    assert found.argmax() == 3


def test_dispersion_is_one_where_labels_come_from_the_model(key):
    phi, p = softmax_model(d=8, v=16, n=8192)
    ask = lambda y: laplace(LaplaceConfig(8, 16, every=1)).apply(
        laplace(LaplaceConfig(8, 16)).init(None),
        phi.reshape(8, -1, 8),
        -jnp.log(jnp.take_along_axis(p, y[:, None], 1)).reshape(8, -1),
        (p * p).sum(1).reshape(8, -1),
        y.reshape(8, -1),
    )[0]["laplace_dispersion"]
    drawn = jax.random.categorical(key, jnp.log(p))
    assert float(ask(drawn)) == pytest.approx(1.0, abs=0.03)
    assert float(ask(jnp.zeros_like(drawn))) > 1.05  # labels that it does not expect


def test_levers_are_those_of_the_tokens_that_are_read():
    x = draw(3, 20, 4)
    state = one_call(LaplaceConfig(4, 9), x, jnp.full((3, 20), 0.5))
    found = levers(state, x, 8)
    assert found.shape == (3, 2)
    np.testing.assert_array_equal(found, leverage(state, x[:, [7, 15]]))


def test_a_fresh_state_can_be_donated():
    part = laplace(LaplaceConfig(4, 9))
    step = jax.jit(part.apply, donate_argnums=0)
    inputs = given(draw(2, 8, 4), jnp.full((2, 8), 0.5))
    assert step(part.init(None), *inputs)[1].calls == 1


def test_short_rows_give_one_token_each():
    state = one_call(LaplaceConfig(4, 9, every=8), draw(3, 5, 4), jnp.zeros((3, 5)))
    assert state.mass == 3


def test_factors_are_refreshed_at_powers_of_two_and_multiples():
    part = laplace(LaplaceConfig(4, 9, refresh=6, every=1))
    apply, state, taken = jax.jit(part.apply), part.init(None), []
    for call in range(20):
        old = state.whitening
        metrics, state = apply(state, *given(draw(1, 8, 4), jnp.zeros((1, 8))))
        fresh = bool(metrics[f"taken/{REFRESH}"])
        assert fresh == (not np.array_equal(old, state.whitening))
        taken += [call] if fresh else []
    assert taken == [0, 1, 2, 4, 6, 8, 12, 16, 18]


def test_the_factor_is_that_of_its_definition_at_each_refresh():
    config = LaplaceConfig(5, 9, refresh=1, every=1)
    state = one_call(config, draw(2, 16, 5), jnp.full((2, 16), 0.3), head=draw(5, 9))
    matrix = state.tokens * state.second + state.tau / state.curvature * jnp.eye(5)
    product = state.whitening @ matrix @ state.whitening.T
    np.testing.assert_allclose(product, np.eye(5), atol=1e-4)


def test_a_head_sets_the_prior_precision_of_highest_evidence():
    config, head = LaplaceConfig(5, 9, every=1), draw(5, 9, scale=0.1)
    x, c = draw(2, 64, 5), jnp.full((2, 64), 0.3)
    assert one_call(config, x, c).tau == 1
    state = one_call(config, x, c, head=head)
    spectrum = jnp.linalg.eigvalsh(state.tokens * state.curvature * state.second)
    taus, norm = jnp.exp(jnp.linspace(-3, 9, 1201)), (head * head).sum()
    zero = jnp.float32(0.0)
    grid = [log_marginal_likelihood(zero, spectrum, norm, 9, t) for t in taus]
    best = taus[int(np.argmax(np.asarray(grid)))]
    assert float(state.tau) == pytest.approx(float(best), rel=0.05)


@pytest.mark.parametrize("rank", [1, 3])
def test_features_of_low_rank_are_factored(rank):
    x = draw(4, 32, rank, scale=10) @ draw(rank, 64)
    state = one_call(
        LaplaceConfig(64, 99, every=1), x, jnp.zeros((4, 32)), head=10 * draw(64, 99)
    )
    assert jnp.isfinite(state.whitening).all()
    assert leverage(state, draw(3, 64)).min() > leverage(state, x).max()


def test_the_ledger_counts_the_refresh_apart_and_it_is_cheap():
    d, v, tokens = 128, 4096, 2048
    part = laplace(LaplaceConfig(d, v), branch=branch)
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)

    def step(state, x, losses, c, targets, head):
        lever = levers(state, x, 8)
        metrics, state = part.apply(state, x, losses, c, targets, head)
        return state, lever, metrics

    rows = 16, tokens // 16
    targets, state = jax.ShapeDtypeStruct(rows, jnp.int32), jax.eval_shape(part.init, 0)
    inputs = shape(*rows, d), shape(*rows), shape(*rows), targets, shape(d, v)
    counted = count(jax.make_jaxpr(step)(state, *inputs))
    total = lambda taken: sum(
        cost.total for cost in counted.total({REFRESH: taken}, calls=100).values()
    )
    # the smallest model of this width: 4 blocks of 12 d^2 and the head
    training = 100 * 6 * tokens * (4 * 12 * d * d + d * v)
    assert 0 < total(8) < 0.003 * training
    assert total(8) > total(0)


def test_without_a_counter_the_ledger_refuses_the_branch():
    part = laplace(LaplaceConfig(4, 9))
    inputs = given(draw(2, 8, 4), jnp.zeros((2, 8)))
    with pytest.raises(UserError, match="arms differ"):
        count(jax.make_jaxpr(part.apply)(part.init(None), *inputs))


WRONG = {
    "width": 0,
    "every": 0,
    "decay": 1.0,
    "cap": 0.0,
    "outputs": 0,
    "refresh": 0,
    "tau": 0.0,
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_cannot_work_are_refused(name):
    values = {"width": 4, "outputs": 9, name: WRONG[name]}
    with pytest.raises(UserError, match=name):
        laplace(LaplaceConfig(**values))
