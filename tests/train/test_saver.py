import concurrent.futures
import errno
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.train import checkpoint, saver

RECORD = {"ledger": {}}


@pytest.fixture
def state():
    return {"w": jnp.arange(12.0).reshape(3, 4), "n": jnp.zeros((), jnp.int32)}


def load(path, state):
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return checkpoint.load(path, lambda record: jax.tree.map(like, state))[0]


def test_arrays_that_are_donated_right_away_are_saved_as_they_were(tmp_path, state):
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    expected = jax.tree.map(np.asarray, jax.tree.map(jnp.copy, state))
    with saver.Saver(tmp_path) as writer:
        path = writer.save(state, {**RECORD, "step": 1})
        for _ in range(20):
            state = step(state)
        writer.wait()
    found = load(path, state)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert int(state["n"]) == 20


def held(monkeypatch):
    """Background work stops before the checksums until the event is set."""
    go, real = threading.Event(), saver.checksums

    def slow(path):
        assert go.wait(30)
        return real(path)

    monkeypatch.setattr(saver, "checksums", slow)
    return go


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, state, monkeypatch):
    go = held(monkeypatch)
    with saver.Saver(tmp_path) as writer:
        writer.save(state, {**RECORD, "step": 1})
        writer.check()  # nothing to say, and no waiting
        assert checkpoint.steps(tmp_path) == []
        go.set()
        writer.wait()
        assert checkpoint.steps(tmp_path) == [1]


@pytest.mark.parametrize(("keep", "left"), [(1, [5]), (4, [2, 3, 4, 5]), (9, None)])
def test_the_newest_ones_are_kept(keep, left, tmp_path, state):
    for step in range(1, 6):
        saver.save(tmp_path, state, {**RECORD, "step": step}, keep)
    assert checkpoint.steps(tmp_path) == (left or [1, 2, 3, 4, 5])


def test_the_next_save_waits_for_the_one_before(tmp_path, state, monkeypatch):
    go = held(monkeypatch)
    with saver.Saver(tmp_path, keep=5) as writer:
        writer.save(state, {**RECORD, "step": 1})
        threading.Timer(0.2, go.set).start()
        writer.save(state, {**RECORD, "step": 2})
        assert checkpoint.steps(tmp_path)[0] == 1
    assert checkpoint.steps(tmp_path) == [1, 2]


def full(path):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("method", ["check", "wait", "save"])
def test_a_failure_in_the_background_is_raised_by_the_next_call(
    method, tmp_path, state, monkeypatch
):
    saver.save(tmp_path, state, {**RECORD, "step": 1})
    arguments = (state, {**RECORD, "step": 3}) if method == "save" else ()
    with monkeypatch.context() as patch, saver.Saver(tmp_path) as writer:
        patch.setattr(saver, "checksums", full)
        writer.save(state, {**RECORD, "step": 2})
        concurrent.futures.wait([writer._pending])
        with pytest.raises(UserError, match=r"could not be written.*No space left"):
            getattr(writer, method)(*arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]
    jax.tree.map(
        np.testing.assert_array_equal, load(tmp_path / "00000001", state), state
    )


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_last_save(
    tmp_path, state, monkeypatch
):
    monkeypatch.setattr(saver, "checksums", full)
    writer = saver.Saver(tmp_path)
    writer.save(state, {**RECORD, "step": 2})
    with pytest.raises(KeyError, match="first"), writer:
        raise KeyError("first")


def test_leaving_waits_for_the_last_save(tmp_path, state):
    with saver.Saver(tmp_path, keep=1) as writer:
        for step in (1, 2, 3):
            writer.save(state, {**RECORD, "step": step})
    assert checkpoint.steps(tmp_path) == [3]
    assert [t for t in threading.enumerate() if t.name.startswith("checkpoint")] == []


def test_a_kill_while_an_old_checkpoint_is_dropped_leaves_no_half_of_it(
    tmp_path, state, monkeypatch
):
    class KilledError(BaseException):
        pass

    def killed(path):
        next(path.rglob("manifest.json")).unlink()
        raise KilledError

    saver.save(tmp_path, state, {**RECORD, "step": 1}, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(saver.shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            saver.save(tmp_path, state, {**RECORD, "step": 2}, keep=1)
    assert checkpoint.steps(tmp_path) == [2]
    checkpoint.verify(tmp_path / "00000002")
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["00000002"]


def test_a_full_disk_is_told_once_and_shortly(tmp_path, state, caplog, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    class Lost:
        def result(self):
            import absl.logging

            absl.logging.error("_SignalingThread.run() raised an exception: x")
            raise ValueError("RESOURCE_EXHAUSTED: d: No space left on device [28]")

    monkeypatch.setattr(ocp, "save_async", lambda path, state: Lost())
    with pytest.raises(UserError, match=r"written \(No space left on device\); make"):
        saver.save(tmp_path, state, {**RECORD, "step": 1})
    assert "raised an exception" not in caplog.text
