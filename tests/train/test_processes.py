import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.train.mesh import make_mesh
from uets_jax.train.processes import (
    agreement,
    alike,
    barrier,
    gather,
    is_main,
    join,
    leave,
)


@pytest.mark.parametrize(("processes", "process"), [(0, -1), (2, 2), (2, -1)])
def test_numbers_that_do_not_fit_are_refused(processes, process):
    with pytest.raises(UserError, match="--process"):
        join("127.0.0.1:1", processes, process)


def test_joining_after_a_computation_is_one_clear_line():
    jnp.zeros(()).block_until_ready()
    with pytest.raises(UserError, match="can't join") as error:
        join("127.0.0.1:1", 2, 1)
    assert "\n" not in str(error.value)


def test_one_process_is_the_main_one_and_waits_for_nobody():
    assert is_main()
    barrier("here")
    tree = {"a": jnp.ones(3)}
    assert gather(tree) is tree


def test_one_process_agrees_with_itself():
    ask = agreement(make_mesh(MeshConfig(data=8)))
    assert ask(True) is True
    assert ask(False) is False


def two_processes(monkeypatch, other):
    """This is process 0 of two; what the other one says is `other`."""
    from jax.experimental import multihost_utils

    digests = []

    def gathered(own):
        digests.append(own)
        return np.stack([own, own if other is None else other(own)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    return digests


def test_processes_that_were_started_alike_go_on(monkeypatch):
    digests = two_processes(monkeypatch, None)
    alike({"train.seed": 0, "text": "abc"})
    assert digests[0].shape == (2, 32)


def test_the_first_difference_between_processes_is_named(monkeypatch):
    def another_seed(own):
        changed = own.copy()
        changed[1:, 5] += 1
        return changed

    two_processes(monkeypatch, another_seed)
    with pytest.raises(
        UserError, match=r"train\.seed: process 1 has another one.* 7\)"
    ):
        alike({"name": "a", "train.seed": 7, "text": "abc"})


@pytest.mark.parametrize(("index", "order"), [(0, ["waits", 124]), (1, [124])])
def test_process_0_leaves_last(monkeypatch, index, order):
    """Losing it first, the others would be aborted by jax, with 134."""
    done = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr("time.sleep", lambda seconds: done.append("waits"))
    monkeypatch.setattr("os._exit", done.append)
    leave(124)
    assert done == order
