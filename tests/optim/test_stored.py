import json

import chex
import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.optim.gate import GateSettings, check_theta, init_theta
from uets_jax.optim.stored import CARD, SHIPPED, load_theta, resolved, save_theta

ALL = GateSettings(rules=("adam", "muon", "lion", "momentum", "mlp"), every=5)


@pytest.fixture
def saved(tmp_path, key):
    """The path of saved weights, and what they were."""
    theta, path = init_theta(key, ALL), tmp_path / "own" / "gate.npz"
    save_theta(path, theta, ALL, {"meta_trained": True, "tasks": ["a"], "flops": 1e12})
    return path, theta


def test_weights_settings_and_card_come_back(saved):
    path, theta = saved
    found = load_theta(path)
    chex.assert_trees_all_equal(found.theta, jax.tree.map(np.asarray, theta))
    assert found.settings == ALL
    assert found.card["tasks"] == ["a"]
    assert set(found.card) == set(CARD)


def test_what_is_shipped_is_sound_and_says_what_it_is():
    found = load_theta()
    check_theta(found.theta, found.settings, "shipped")
    assert isinstance(found.card["meta_trained"], bool)
    assert found.card["source"]
    if not found.card["meta_trained"]:
        assert not np.any(found.theta.output)
    assert SHIPPED.stat().st_size < 100_000


def broken_card(path, **fields):
    place = path.with_suffix(".json")
    row = json.loads(place.read_text())
    place.write_text(json.dumps({**row, **fields}))


def broken_arrays(path, drop="", **extra):
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files if k != drop}
    np.savez(path, **{**arrays, **extra})


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda p: p.unlink(), "gate.npz: can't be read"),
        (lambda p: p.write_bytes(b"x"), "gate.npz: no .npz of plain arrays"),
        (lambda p: p.write_bytes(b""), "gate.npz: no .npz of plain arrays"),
        (lambda p: p.with_suffix(".json").unlink(), "gate.json: can't be read"),
        (lambda p: p.with_suffix(".json").write_text("{"), "broken JSON"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "'settings' is missing"),
        (lambda p: broken_card(p, meta_trained=1), "meta_trained: give true or false"),
        (
            lambda p: broken_card(p, flop=1),
            "unknown field 'flop': did you mean 'flops'",
        ),
        (lambda p: broken_card(p, settings={"evry": 1}), "did you mean 'every'?"),
        (lambda p: broken_card(p, settings={"every": "1"}), "every: not '1'"),
        (lambda p: broken_arrays(p, "bias"), "the array 'bias' is missing"),
        (lambda p: broken_arrays(p, inputs=np.ones(1)), "did you mean 'input'?"),
        (
            lambda p: broken_arrays(p, bias=np.ones(3)),
            "bias: shape (3,), expected (24,)",
        ),
        (lambda p: broken_arrays(p, bias=np.full(24, np.nan)), "bias: not all finite"),
        (
            lambda p: broken_arrays(p, bias=np.array([{}], object)),
            "no .npz of plain arrays",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(saved, fault, text):
    path, _ = saved
    fault(path)
    with pytest.raises(UserError) as error:
        load_theta(path)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_only_what_can_be_read_is_written(tmp_path, key):
    theta = init_theta(key)
    with pytest.raises(UserError, match=r"ends in \.npz"):
        save_theta(tmp_path / "x.json", theta, GateSettings())
    with pytest.raises(UserError, match="did you mean 'tasks'"):
        save_theta(tmp_path / "x.npz", theta, GateSettings(), {"task": []})
    with pytest.raises(UserError, match="not the fields"):
        save_theta(tmp_path / "x.npz", theta, ALL)


def test_only_weights_that_were_learned_so_say_what_is_kept(tmp_path):
    with pytest.raises(UserError, match="between: 'learned' does not fit the weights"):
        resolved("default", every=4, between="learned")
    settings = GateSettings(every=4, between="learned")
    path = tmp_path / "own.npz"
    save_theta(path, init_theta(jax.random.key(0), settings), settings)
    theta, own = resolved(str(path), every=2)
    assert (own.every, own.between) == (2, "learned")
    assert theta.output.shape[1] == own.outputs
    with pytest.raises(UserError, match="learned with 'learned'; give that"):
        resolved(str(path), between="held")
