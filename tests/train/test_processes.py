import jax.numpy as jnp
import pytest

from uets_jax.config import MeshConfig
from uets_jax.errors import UserError
from uets_jax.train.mesh import make_mesh
from uets_jax.train.processes import agreement, barrier, gather, is_main, join


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
