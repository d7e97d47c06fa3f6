import importlib.metadata
import subprocess
import sys
import time

import pytest

import uets_jax

HEAVY = {"flax", "grain", "tokenizers", "tyro", "tensorflow_datasets", "matplotlib"}


def test_importing_is_quick_and_loads_nothing_heavy():
    code = f"import sys, uets_jax; print(sorted({HEAVY} & set(sys.modules)))"
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert time.perf_counter() - start < 2.0
    assert out.stdout.strip() == "[]"


def test_the_ways_in_load_without_the_packages_of_the_command_line():
    code = (
        "import sys, uets_jax.train.loop, uets_jax.build, uets_jax.step;"
        f"print(sorted(({HEAVY} - {{'flax'}}) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_the_version_is_the_installed_one():
    assert uets_jax.__version__ == importlib.metadata.version("uets_jax")


def test_rooms_are_imported_when_they_are_named():
    code = (
        "import sys, uets_jax; before = 'jax' in sys.modules;"
        "print(before, uets_jax.optim.learned.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.split() == ["False", "learned"], out.stderr
    with pytest.raises(AttributeError, match="no attribute 'optimm'"):
        _ = uets_jax.optimm
    with pytest.raises(AttributeError):
        _ = uets_jax.__main__  # would be the command line
