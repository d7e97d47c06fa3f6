"""The bandit finds the best of five arms, also after it has changed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.selection import policy

MEANS = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
PULLS, RUNS = 400, 32


def play(means, seed, noise=0.3):
    """Mean rewards [pulls] of the arms that were pulled; `means` is [pulls, A]."""

    root = jax.random.key(seed)

    def step(state, inputs):
        place, now = inputs
        key = jax.random.fold_in(root, place)
        arm, state = policy.pull(state, jax.random.fold_in(key, 0))
        value = now[arm] + noise * jax.random.normal(jax.random.fold_in(key, 1))
        return policy.reward(state, value, period=1), (now[arm], arm)

    inputs = (jnp.arange(len(means)), means)
    return jax.lax.scan(step, policy.init(means.shape[1]), inputs)[1]


@pytest.fixture(scope="module")
def games():
    """Rewards [runs, pulls] of a problem that stays and of one that turns around."""
    stay = jnp.tile(MEANS[None], (PULLS, 1))
    half = PULLS // 2
    turn = jnp.concatenate([stay[:half], stay[:half, ::-1]])
    run = jax.jit(jax.vmap(play, (None, 0)))
    seeds = jnp.arange(RUNS)
    return {name: run(means, seeds) for name, means in [("stay", stay), ("turn", turn)]}


def test_the_best_arm_is_found(games):
    rewards, arms = games["stay"]
    uniform = 1 - 0.5  # regret of each pull
    assert 1 - float(rewards.mean()) < 0.4 * uniform
    last = np.asarray(arms)[:, PULLS // 2 :]
    assert (last == 4).mean() > 0.7
    assert (1 - rewards.mean(1)).max() < uniform  # of every single run


def test_a_best_arm_that_changes_is_found_again(games):
    rewards, arms = games["turn"]
    assert 1 - float(rewards.mean()) < 0.5 * 0.5
    assert (np.asarray(arms)[:, -PULLS // 8 :] == 0).mean() > 0.5


def test_equal_arms_are_all_pulled():
    _, arms = jax.jit(play)(jnp.ones((PULLS, 5)), 1)
    assert np.bincount(np.asarray(arms), minlength=5).min() > PULLS / 100


def test_the_chances_add_up_and_never_fall_below_the_floor():
    state = policy.init(4)._replace(weights=jnp.array([0.0, -50.0, -50.0, -50.0]))
    chances = policy.probabilities(state, 0.2)
    np.testing.assert_allclose(chances, [0.85, 0.05, 0.05, 0.05], rtol=1e-5)
    np.testing.assert_allclose(policy.probabilities(policy.init(4)), [0.25] * 4)


def test_an_arm_is_held_for_its_period():
    pull, state, arms = jax.jit(policy.pull), policy.init(50), []
    reward = jax.jit(lambda s: policy.reward(s, jnp.ones(()), 4))
    for key in jax.random.split(jax.random.key(0), 16):
        arm, state = pull(state, key)
        arms.append(int(arm))
        state = reward(state)
    runs = np.array(arms).reshape(4, 4)
    assert (runs == runs[:, :1]).all()
    assert len(set(runs[:, 0].tolist())) > 1
    assert int(state.periods) == 4


def test_the_update_is_the_one_that_is_written_down():
    """Two periods by hand; the second one is the better of two, so r = 1."""
    state = policy.init(3)
    state = state._replace(arm=jnp.int32(1), chance=jnp.float32(0.4))
    state = policy.reward(state, jnp.float32(1.0), period=1)
    np.testing.assert_allclose(jax.nn.softmax(state.weights), [1 / 3] * 3, rtol=1e-5)
    state = state._replace(arm=jnp.int32(2), chance=jnp.float32(0.25))
    state = policy.reward(state, jnp.float32(5.0), 1, rate=0.2, share=0.1)
    u = np.exp([0, 0, 0.2 * 1.0 / 0.25])
    u /= u.sum()
    by_hand = 0.9 * u + 0.1 / 2 * (1 - u)
    np.testing.assert_allclose(np.exp(state.weights), by_hand, rtol=1e-5)


def test_the_first_steps_of_a_period_may_be_left_out():
    _, state = policy.pull(policy.init(2), jax.random.key(0))
    for value in [100.0, 100.0, 1.0, 3.0]:
        state = policy.reward(state, jnp.float32(value), period=4, settle=2)
    assert float(state.recent[0]) == 2.0


def test_a_value_that_is_no_number_counts_nothing():
    _, state = policy.pull(policy.init(2), jax.random.key(0))
    for value in [np.nan, np.inf, 3.0]:
        state = policy.reward(state, jnp.float32(value), period=3)
    chex.assert_tree_all_finite(state)
    assert float(state.recent[0]) == 1.0


def test_a_reward_before_the_first_pull_is_not_credited():
    state = policy.init(2)
    chex.assert_trees_all_equal(policy.reward(state, jnp.ones(()), 1), state)


def test_rewards_are_scaled_by_the_quantiles_of_recent_ones():
    recent = jnp.arange(11.0)
    at = lambda value, known=11: float(
        policy.scaled(jnp.float32(value), recent, jnp.int32(known))
    )
    assert [at(2), at(5), at(8)] == pytest.approx([-1, 0, 1])
    assert [at(-99), at(99)] == [-1, 1]
    assert at(2, known=3) == 1
    assert at(0, known=1) == 0
    flat = policy.scaled(jnp.float32(4.0), jnp.full(8, 3.0), jnp.int32(8))
    assert float(flat) == 0


def test_the_scale_of_the_rewards_does_not_matter():
    """Rewards that shrink and shift, as losses do, give the same arms."""
    means = jnp.tile(MEANS[None], (100, 1))
    arms = jax.jit(lambda m: play(m, 3, noise=0.0)[1])
    chex.assert_trees_all_equal(arms(means), arms(4 * means - 128))


def test_the_settings_are_the_row_of_the_arm():
    table = {"ratio": jnp.array([1.0, 4.0]), "band": jnp.array([[0.0, 1], [2, 3]])}
    row = policy.settings(table, jnp.int32(1))
    assert float(row["ratio"]) == 4.0
    assert row["band"].tolist() == [2.0, 3.0]


def test_the_component_pulls_and_rewards():
    part = policy.bandit(3, period=2)
    state, keys = part.init(None), jax.random.split(jax.random.key(0), 5)
    for key in keys:
        arm, state = part.apply(state, jnp.ones(()), key)
        assert 0 <= int(arm) < 3
    assert int(state.periods) == 2  # four rewards: the first call has none to give
