import os
import re

import jax

from uets_jax.measure import machine


def test_a_cpu_machine_is_named_by_its_cores():
    assert machine.machine() == f"cpu-{len(os.sched_getaffinity(0))}"


def test_versions_hold_what_is_installed():
    found = machine.versions()
    assert found["jax"] == jax.__version__
    assert {"python", "flax", "optax", "numpy"} <= set(found)


def test_commit_is_a_hash_or_nothing():
    found = machine.commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)


def test_peak_memory_is_at_least_what_jax_needs():
    assert 50e6 < machine.peak_rss_bytes() < 100e9
    assert machine.peak_device_bytes() is None  # a CPU


def test_live_arrays_are_counted():
    before = machine.live_array_bytes()
    held = jax.numpy.ones((1000, 250))
    assert machine.live_array_bytes() >= before + held.nbytes == before + 1_000_000
