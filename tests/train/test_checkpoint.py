import json
import random
import shutil

import jax
import numpy as np
import pytest

from uets_jax.build import build, hypers
from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.train import checkpoint, saver
from uets_jax.train.mesh import abstract_state, compile_init, make_mesh

ONE = MeshConfig(data=1)
RECORD = {"chain": "abc", "ledger": {}}


def abstract(config, mesh_config=ONE):
    return abstract_state(build(config), make_mesh(mesh_config))


@pytest.fixture(scope="module")
def start(tiny):
    return compile_init(build(tiny), make_mesh(ONE))(hypers(tiny), 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, start):
    """A folder with checkpoints 1 and 2; tests copy it before they touch it."""
    root = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        saver.save(root, start, {**RECORD, "step": step})
    return root


def same(a, b):
    bits = lambda x: np.asarray(
        jax.random.key_data(x)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        else x
    )
    equal = jax.tree.map(lambda x, y: np.array_equal(bits(x), bits(y)), a, b)
    return all(jax.tree.leaves(equal))


def test_what_is_saved_comes_back_bit_by_bit(saved, start, tiny):
    state, record = checkpoint.load(saved / "00000002", lambda record: abstract(tiny))
    assert same(state, start)
    assert record == {**RECORD, "step": 2}
    assert checkpoint.steps(saved) == [1, 2]


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(2, 2, 2)])
def test_a_checkpoint_loads_onto_another_mesh(saved, start, tiny, mesh):
    wanted = abstract(tiny, mesh)
    state, _ = checkpoint.load(saved / "00000001", lambda record: wanted)
    assert same(state, start)
    kept = jax.tree.map(lambda x, a: x.sharding == a.sharding, state, wanted)
    assert all(jax.tree.leaves(kept))


def test_only_the_newest_are_kept_and_leftovers_are_swept(tmp_path, start):
    (tmp_path / ".tmp-00000009" / "state").mkdir(parents=True)
    for step in (1, 2, 3):
        saver.save(tmp_path, start, {**RECORD, "step": step}, keep=2)
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert {p.name for p in tmp_path.iterdir()} == {"00000002", "00000003"}


@pytest.mark.parametrize("gone", ["manifest.json", "record.json"])
def test_the_newest_intact_one_is_loaded_and_damage_is_told(
    saved, tiny, tmp_path, gone
):
    root = tmp_path / "copy"
    shutil.copytree(saved, root)
    (root / "00000002" / gone).unlink()
    found, damaged = checkpoint.load_newest(root, lambda record: abstract(tiny))
    assert found is not None
    assert found[1]["step"] == 1
    assert len(damaged) == 1
    assert "00000002" in damaged[0]
    assert checkpoint.load_newest(
        tmp_path / "nowhere", lambda record: abstract(tiny)
    ) == (None, [])


@pytest.mark.parametrize("keep", [1, 2])
def test_what_was_just_saved_is_never_dropped(tmp_path, start, keep):
    for step in (8, 9, 3):
        path = saver.save(tmp_path, start, {**RECORD, "step": step}, keep=keep)
        assert path.exists()
    assert 3 in checkpoint.steps(tmp_path)
    assert len(checkpoint.steps(tmp_path)) == keep


def test_checkpoints_above_a_step_are_set_aside(tmp_path, start):
    for step in (1, 2, 3):
        saver.save(tmp_path, start, {**RECORD, "step": step}, keep=3)
    checkpoint.set_aside(tmp_path, above=1)
    assert checkpoint.steps(tmp_path) == [1]
    assert (tmp_path / "00000003.damaged" / "record.json").exists()


def damage(path, rng):
    """Flips one bit, cuts a file short, or removes it."""
    files = [p for p in path.rglob("*") if p.is_file() and p.stat().st_size]
    file = rng.choice(files)
    data, kind = bytearray(file.read_bytes()), rng.choice(["flip", "cut", "remove"])
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
    elif kind == "cut":
        file.write_bytes(data[: rng.randrange(len(data))])
    else:
        file.unlink()


def test_no_damage_goes_unnoticed(saved, tmp_path):
    rng = random.Random(0)
    for trial in range(60):
        root = tmp_path / str(trial)
        shutil.copytree(saved / "00000001", root)
        damage(root, rng)
        with pytest.raises(checkpoint.CorruptCheckpointError):
            checkpoint.verify(root)
        shutil.rmtree(root)


def test_a_model_of_another_depth_is_refused_by_name(saved, tiny):
    import dataclasses

    deeper = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, depth=3))
    with pytest.raises(UserError, match=r"blocks.*\[2, .*but.*\[3, "):
        checkpoint.load(saved / "00000001", lambda record: abstract(deeper))


def test_an_unwritable_folder_is_one_clear_line(tmp_path, start):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match="could not be written") as error:
        saver.save(blocked / "checkpoints", start, {**RECORD, "step": 1})
    assert "\n" not in str(error.value)


def test_the_record_is_plain_json(saved):
    record = json.loads((saved / "00000001" / "record.json").read_text())
    assert record["tree"][".params['head']['w']"] == "float32[32, 64]"


def test_only_names_of_eight_digits_are_steps(tmp_path):
    for name in ("00000004", "77", "00000005.damaged", ".tmp-00000006", "123456789"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [4, 123456789]
